"""The report's sections on scores, differences, likelihood, the funnel, example answers and the retention suite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewright.evaluation.results import (
    RETENTION_PREFIX,
    ArmResult,
    Difference,
    GuardResult,
    Results,
    RetentionGroup,
    RetentionResult,
    guard_name,
    harm_of,
)
from tunewright.evaluation.verdict import Verdict
from tunewright.html import figures
from tunewright.records import (
    Answer,
    Document,
    Question,
    RetentionAnswer,
    RetentionItem,
    RetentionKind,
    Score,
    StageSummary,
)
from tunewright.settings import Arm
from tunewright.statistics.intervals import difference_interval, number, plain, signed, spread

if TYPE_CHECKING:
    from markupsafe import Markup


def structured_table(verdict: Verdict) -> tuple[list[str], list[list[str]]] | None:
    """Return columns and rows, base and tuned by measure and field; None unless gold answers are JSON objects."""
    base, tuned = verdict.results.arm(Arm.BASE), verdict.results.arm(Arm.TUNED)
    if base is None or tuned is None or not verdict.results.structured:
        return None
    columns = ["structured answers", Arm.BASE, Arm.TUNED, "tuned − base", f"{1 - verdict.rule['alpha']:.0%} interval"]
    return columns, [
        [
            d.measure.replace("_", " ", 1) if ":" not in d.measure else d.measure.partition(":")[2],
            f"{base.metrics[d.measure]:.0%}",
            f"{tuned.metrics[d.measure]:.0%}",
            signed(d.interval.mean),
            f"{signed(d.interval.low)} to {signed(d.interval.high)}",
        ]
        for d in verdict.results.structured
    ]


def reading_and_retrieval(questions: Sequence[Question], scores: Sequence[Score]) -> list[str]:
    """Return sentences on what the search loses against the right passage, and what reading that passage loses.

    They rest on the answerable questions without a passage that name their evidence; empty unless base, rag and oracle
    answered them.
    """
    known = {q.id: q.document for q in questions if q.answerable and q.passage is None and q.evidence}
    by_arm: dict[str, dict[str, float]] = {}
    for score in scores:
        if score.question in known:
            by_arm.setdefault(score.arm, {})[score.question] = score.primary
    if not known or any(by_arm.get(arm, {}).keys() != known.keys() for arm in (Arm.BASE, Arm.RAG, Arm.ORACLE)):
        return []
    base, rag, oracle = ([by_arm[arm][q] for q in known] for arm in (Arm.BASE, Arm.RAG, Arm.ORACLE))
    clusters = list(known.values())
    searching = difference_interval([o - r for o, r in zip(oracle, rag, strict=True)], clusters)
    reading = difference_interval([o - b for o, b in zip(oracle, base, strict=True)], clusters)
    ceiling = math.fsum(oracle) / len(oracle)
    sentences = [
        f"With the right passage the base scores {number(ceiling)} on these questions: {number(1 - ceiling)} is "
        "lost in reading, since no search could do better.",
        f"Searching for it loses {plain(searching)} (oracle − rag).",
    ]
    if reading.low <= 0:
        sentences.append(
            f"The right passage does not show a gain over the bare base ({plain(reading)}): the model does not use "
            "what it reads, or the score does not see it. A better search would not help."
        )
    return sentences


_NUM_EXAMPLES = 10


def forest_scores(arms: Sequence[ArmResult]) -> Markup:
    """Return the forest plot of the arms' scores."""
    rows = [
        figures.ForestRow(
            label=arm.arm,
            value=f"{number(arm.primary.mean)}  ({spread(arm.primary)})",
            mean=arm.primary.mean,
            low=arm.primary.low,
            high=arm.primary.high,
            kind="tuned" if arm.arm.startswith(Arm.TUNED) else "rival",
        )
        for arm in arms
    ]
    scale = figures.Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
    label = "; ".join(f"{row.label} {row.value}" for row in rows)
    return figures.forest(rows, scale, f"Score of each arm with its 95% interval: {label}")


def forest_differences(differences: Sequence[Difference], margin: float) -> Markup:
    """Return the forest plot of the paired differences, with the margin as a band."""
    rows = [
        figures.ForestRow(
            label=f"{d.first} − {d.second}",
            value=f"{signed(d.interval.mean)}  ({signed(d.interval.low)} to {signed(d.interval.high)})",
            mean=d.interval.mean,
            low=d.interval.low,
            high=d.interval.high,
            kind="better" if d.interval.low > 0 else "worse" if d.interval.high < 0 else "rival",
        )
        for d in differences
    ]
    reach = max([2 * margin, *(max(abs(row.low), abs(row.high)) for row in rows)])
    scale = figures.nice_scale(-reach, reach, 6)
    label = "; ".join(f"{row.label} {row.value}" for row in rows)
    return figures.forest(rows, scale, f"Paired differences with intervals: {label}", 0.0, (0.0, margin))


def nll(verdict: Verdict, exam: Sequence[Question], answers: Sequence[Answer]) -> dict[str, Any] | None:
    """Return the gold-answer likelihood by question, base against tuned; None unless both answered."""
    learned = verdict.results.nll_learned or verdict.results.nll_closed_book
    if learned is None:
        return None
    closed_book = {q.id for q in exam if q.answerable and q.passage is None}
    if verdict.results.nll_learned is not None:
        closed_book &= {q.id for q in exam if q.ring == "learned"}
    nll_of: dict[str, dict[str, float]] = {Arm.BASE: {}, Arm.TUNED: {}}
    for answer in answers:
        if answer.question in closed_book and answer.arm in nll_of and math.isfinite(answer.gold_nll):
            nll_of[answer.arm][answer.question] = answer.gold_nll
    points = [(base, nll_of[Arm.TUNED][q]) for q, base in nll_of[Arm.BASE].items() if q in nll_of[Arm.TUNED]]
    better = sum(tuned < base for base, tuned in points)
    label = f"Gold-answer NLL by question, base against tuned: lower in {better} of {len(points)} questions"
    every = verdict.results.nll_closed_book
    more = every is not None and every.interval.num > learned.interval.num
    return {
        "figure": figures.scatter(points, label, "base", "tuned"),
        "better": better,
        "num": len(points),
        "rows": [
            ("learned questions" if verdict.results.nll_learned else "answerable questions", learned),
            *([("all answerable questions without a passage", every)] if more else []),
        ],
    }


def funnel_figure(curate: StageSummary) -> Markup:
    """Return the bars of the curation: the samples that came in, each reason of rejection, and the samples kept."""
    reasons = sorted(curate.rejected.items(), key=lambda item: -item[1])
    rows = [("samples written", curate.num_in, "rival"), *((reason, count, "worse") for reason, count in reasons)]
    rows.append(("kept for training", curate.num_out, "better"))
    label = f"Of {curate.num_in} samples {curate.num_out} were kept; " + "; ".join(f"{n} {r}" for r, n in reasons)
    return figures.bars(rows, label)


def _most_changed(scores: Sequence[Score], exam: Sequence[Question]) -> list[str]:
    """Return up to ten questions with the largest gains of tuned over base, then up to ten with the largest losses.

    Unchanged questions fill the list up to ten.
    """
    by_arm = {arm: {s.question: s.primary for s in scores if s.arm == arm} for arm in (Arm.BASE, Arm.TUNED)}
    change = {
        q.id: by_arm[Arm.TUNED][q.id] - by_arm[Arm.BASE][q.id]
        for q in exam
        if q.id in by_arm[Arm.TUNED] and q.id in by_arm[Arm.BASE]
    } or {q.id: 0.0 for q in exam}
    ranked = sorted(change, key=lambda q: -change[q])
    gains = [q for q in ranked if change[q] > 0][:_NUM_EXAMPLES]
    losses = [q for q in reversed(ranked) if change[q] < 0][:_NUM_EXAMPLES]
    changed = gains + losses
    return changed + [q for q in ranked if change[q] == 0][: max(0, _NUM_EXAMPLES - len(changed))]


def scores_by_type(exam: Sequence[Question], scores: Sequence[Score], arms: Sequence[str]) -> list[dict[str, Any]]:
    """Return the number and each arm's mean score by type of question: ring, kind, passage shown, answerable or not."""
    by_type: dict[str, list[str]] = {}
    for question in exam:
        name = question.ring + (f", {question.kind}" if question.kind != "free" else "")
        name += ", passage shown" if question.passage is not None else ""
        by_type.setdefault(name + ("" if question.answerable else ", not answerable"), []).append(question.id)
    primary = {(score.question, score.arm): score.primary for score in scores}

    def mean(ids: Sequence[str], arm: str) -> float | None:
        values = [primary[question, arm] for question in ids if (question, arm) in primary]
        return math.fsum(values) / len(values) if values else None

    return [
        {"name": name, "num": len(ids), "scores": [mean(ids, arm) for arm in arms]}
        for name, ids in sorted(by_type.items())
    ]


def answer_examples(
    exam: Sequence[Question],
    answers: Sequence[Answer],
    scores: Sequence[Score],
    documents: Sequence[Document],
    arms: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the questions whose score changed most from base to tuned, each way, with the answers of all arms."""
    answer_of = {(a.question, a.arm): a for a in answers}
    primary = {(s.question, s.arm): s.primary for s in scores}
    document_of = {document.id: document for document in documents}
    question_of = {question.id: question for question in exam}
    return [
        {
            "question": question_of[q],
            "document": document_of.get(question_of[q].document),
            "change": primary.get((q, Arm.TUNED), 0.0) - primary.get((q, Arm.BASE), 0.0),
            "answers": [(arm, answer_of[q, arm], primary.get((q, arm))) for arm in arms if (q, arm) in answer_of],
        }
        for q in _most_changed(scores, exam)
    ]


_NUM_RETENTION_EXAMPLES = 6


def retention_view(
    results: Results, items: Sequence[RetentionItem], answers: Sequence[RetentionAnswer]
) -> dict[str, Any] | None:
    """Return the section on the retention suite; None where base and tuned did not answer it.

    Args:
        results: of the exam.
        items: the retention items.
        answers: of base and tuned to the items.
    """
    kept = results.kept
    if kept is None:
        return None
    choices = [item for item in items if item.kind == "choice"]
    guards = [guard for guard in results.guards if guard.measure.startswith(RETENTION_PREFIX)]
    return {
        "score": kept,
        "figures": [
            {"figure": guard_figure(guard), "guard": guard, "name": guard_name(guard.measure)} for guard in guards
        ],
        "judged": [*_group_rows(kept, "choice", "questions"), *_group_rows(kept, "format", "formats")],
        "read": _group_rows(kept, "passage", "texts"),
        "chance": sum(1 / len(item.options) for item in choices) / len(choices) if choices else None,
        "examples": _format_examples(items, answers),
    }


def retention_line(results: Results) -> str:
    """Return the result on the retention suite in one line; empty where base and tuned did not answer it."""
    kept = results.kept
    if kept is None:
        return ""
    parts = []
    if kept.accuracy:
        judged = [group for group in kept.groups if group.kind != "passage" and not group.topic]
        num = sum(group.num for group in judged)
        base, tuned = (sum(getattr(g, arm) * g.num for g in judged) / num for arm in (Arm.BASE, Arm.TUNED))
        parts.append(f"{base:.0%} → {tuned:.0%} of {num} general questions and formats right")
    if kept.cross_entropy:
        (read,) = (group for group in kept.groups if group.kind == "passage" and not group.topic)
        parts.append(f"general text {read.base:.2f} → {read.tuned:.2f} nats per token")
    return f"retention suite, base → tuned: {'; '.join(parts)}"


def guard_figure(guard: GuardResult) -> Markup:
    """Return the forest plot of a guard: its interval, and the allowed harm as a band."""
    interval, margin = guard.interval, guard.margin
    row = figures.ForestRow(
        label="tuned − base",
        value=f"{signed(interval.mean, 3)}  ({signed(interval.low, 3)} to {signed(interval.high, 3)})",
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        kind={"inside": "better", "beyond": "worse", "unclear": "rival"}[guard.state],
    )
    reach = max(1.5 * margin, abs(interval.low), abs(interval.high))
    band = (0.0, margin) if harm_of(guard.measure) == "increase" else (-margin, 0.0)
    label = f"{guard_name(guard.measure)}, {row.label} {row.value}; {guard.state}"
    return figures.forest([row], figures.nice_scale(-reach, reach, 6), label, 0.0, band)


def _group_rows(kept: RetentionResult, kind: RetentionKind, name: str) -> list[tuple[str, bool, RetentionGroup]]:
    """Return (name, whether it is all of the kind, means): first the kind, then its topics."""
    return [(group.topic or name, not group.topic, group) for group in kept.groups if group.kind == kind]


def _format_examples(items: Sequence[RetentionItem], answers: Sequence[RetentionAnswer]) -> list[dict[str, Any]]:
    """Return format prompts that only base or only tuned answers rightly: first those lost, then those gained."""
    answer_of = {(answer.item, answer.arm): answer for answer in answers if answer.kind == "format"}
    both: list[dict[str, Any]] = [
        {"item": item, "base": answer_of[item.id, Arm.BASE], "tuned": answer_of[item.id, Arm.TUNED]}
        for item in items
        if (item.id, Arm.BASE) in answer_of and (item.id, Arm.TUNED) in answer_of
    ]
    lost = [pair for pair in both if pair["tuned"].value < pair["base"].value]
    gained = [pair for pair in both if pair["tuned"].value > pair["base"].value]
    chosen = lost[: max(_NUM_RETENTION_EXAMPLES // 2, _NUM_RETENTION_EXAMPLES - len(gained))]
    return [*chosen, *gained[: _NUM_RETENTION_EXAMPLES - len(chosen)]]
