"""What the adapter kept, for the report and the terminal: by kind and topic, against the margins, with examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewright.evaluation.results import (
    RETENTION_PREFIX,
    ArmResult,
    Difference,
    GuardResult,
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
    read_jsonl,
)
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.statistics.intervals import number, signed, spread

if TYPE_CHECKING:
    from markupsafe import Markup


def structured_table(verdict: Verdict) -> tuple[list[str], list[list[str]]] | None:
    """Return columns and rows, base against tuned by measure and field, where gold answers are JSON objects."""
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


STAGES = ("ingest", "split", "exam", "synth", "curate", "pairs", "train", "placebo", "evaluate", "judge")

_NUM_EXAMPLES = 10


def forest_scores(arms: Sequence[ArmResult]) -> Markup:
    """Return the picture of each arm's score with its interval."""
    rows = [
        figures.Row(
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
    told = "; ".join(f"{row.label} {row.value}" for row in rows)
    return figures.forest(rows, scale, f"Score of each arm with its 95% interval: {told}")


def forest_differences(differences: Sequence[Difference], margin: float) -> Markup:
    """Return the picture of the paired differences, with the margin as a band."""
    rows = [
        figures.Row(
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
    told = "; ".join(f"{row.label} {row.value}" for row in rows)
    return figures.forest(rows, scale, f"Paired differences with intervals: {told}", 0.0, (0.0, margin))


def nll(verdict: Verdict, exam: Sequence[Question], answers: Sequence[Answer]) -> dict[str, Any] | None:
    """Return the gold answers' likelihood by question, base against tuned; None where not both answered."""
    learned = verdict.results.nll_learned or verdict.results.nll_closed_book
    if learned is None:
        return None
    asked = {q.id for q in exam if q.answerable and q.passage is None}
    if verdict.results.nll_learned is not None:
        asked &= {q.id for q in exam if q.ring == "learned"}
    found: dict[str, dict[str, float]] = {Arm.BASE: {}, Arm.TUNED: {}}
    for answer in answers:
        if answer.question in asked and answer.arm in found and math.isfinite(answer.gold_nll):
            found[answer.arm][answer.question] = answer.gold_nll
    points = [(nll, found[Arm.TUNED][q]) for q, nll in found[Arm.BASE].items() if q in found[Arm.TUNED]]
    better = sum(tuned < base for base, tuned in points)
    label = f"Gold-answer NLL by question, base against tuned: lower in {better} of {len(points)} questions"
    whole = verdict.results.nll_closed_book
    more = whole is not None and whole.interval.num > learned.interval.num
    return {
        "figure": figures.scatter(points, label, "base", "tuned"),
        "better": better,
        "num": len(points),
        "rows": [
            ("learned questions" if verdict.results.nll_learned else "answerable questions", learned),
            *([("all answerable questions without a passage", whole)] if more else []),
        ],
    }


def stages(run: RunFolder) -> list[dict[str, Any]]:
    """Each finished stage: its name, summary, duration, outputs' digests, version."""
    found = []
    for name in STAGES:
        if entry := run.stage_record(name):
            found.append({**entry, "stage": name, "summary": StageSummary.model_validate(entry["summary"])})
    return found


def funnel(stages: Sequence[dict[str, Any]]) -> Markup | None:
    """What became of the written samples: one bar for those that came in, each reason, and those kept."""
    curate = next((s["summary"] for s in stages if s["stage"] == "curate"), None)
    if curate is None:
        return None
    reasons = sorted(curate.rejected.items(), key=lambda item: -item[1])
    rows = [("samples written", curate.num_in, "rival"), *((reason, count, "worse") for reason, count in reasons)]
    rows.append(("kept for training", curate.num_out, "better"))
    label = f"Of {curate.num_in} samples {curate.num_out} were kept; " + "; ".join(f"{n} {r}" for r, n in reasons)
    return figures.bars(rows, label)


def _most_changed(scores: Sequence[Score], exam: Sequence[Question]) -> list[str]:
    """Up to ten questions that tuned gained most over base, then up to ten that it lost most; ten at least in all."""
    by_arm = {arm: {s.question: s.primary for s in scores if s.arm == arm} for arm in (Arm.BASE, Arm.TUNED)}
    change = {
        q.id: by_arm[Arm.TUNED][q.id] - by_arm[Arm.BASE][q.id]
        for q in exam
        if q.id in by_arm[Arm.TUNED] and q.id in by_arm[Arm.BASE]
    } or {q.id: 0.0 for q in exam}
    ranked = sorted(change, key=lambda q: -change[q])
    gains = [q for q in ranked if change[q] > 0][:_NUM_EXAMPLES]
    losses = [q for q in reversed(ranked) if change[q] < 0][:_NUM_EXAMPLES]
    shown = gains + losses
    return shown + [q for q in ranked if change[q] == 0][: max(0, _NUM_EXAMPLES - len(shown))]


def types(exam: Sequence[Question], scores: Sequence[Score], arms: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each type of question (ring, passage shown, answerable or not) its number and each arm's score."""
    by_type: dict[str, list[str]] = {}
    for question in exam:
        name = question.ring + (", passage shown" if question.passage is not None else "")
        by_type.setdefault(name + ("" if question.answerable else ", not answerable"), []).append(question.id)
    primary = {(score.question, score.arm): score.primary for score in scores}

    def mean(ids: Sequence[str], arm: str) -> float | None:
        found = [primary[one, arm] for one in ids if (one, arm) in primary]
        return math.fsum(found) / len(found) if found else None

    return [
        {"name": name, "num": len(ids), "scores": [mean(ids, arm) for arm in arms]}
        for name, ids in sorted(by_type.items())
    ]


def examples(
    run: RunFolder, exam: Sequence[Question], answers: Sequence[Answer], scores: Sequence[Score], arms: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the answers that changed most from base to tuned, each way, with all arms' answers beside them."""
    told = {(a.question, a.arm): a for a in answers}
    marks = {(s.question, s.arm): s.primary for s in scores}
    file = run.file(RunFile.DOCUMENTS)
    documents = {document.id: document for document in read_jsonl(file, Document)} if file.is_file() else {}
    by_id = {question.id: question for question in exam}
    return [
        {
            "question": by_id[shown],
            "document": documents.get(by_id[shown].document),
            "change": marks.get((shown, Arm.TUNED), 0.0) - marks.get((shown, Arm.BASE), 0.0),
            "answers": [(arm, told[shown, arm], marks.get((shown, arm))) for arm in arms if (shown, arm) in told],
        }
        for shown in _most_changed(scores, exam)
    ]


_NUM_RETENTION_EXAMPLES = 6


def kept_view(run: RunFolder, verdict: Verdict) -> dict[str, Any] | None:
    """Return what the page shows of the third ring; None where it was not sat."""
    kept = verdict.results.kept
    if kept is None:
        return None
    items = run.records_if_any(RunFile.RETENTION, RetentionItem)
    answers = run.records_if_any(RunFile.RETENTION_ANSWERS, RetentionAnswer)
    choices = [item for item in items if item.kind == "choice"]
    guards = [guard for guard in verdict.results.guards if guard.measure.startswith(RETENTION_PREFIX)]
    return {
        "found": kept,
        "figures": [
            {"figure": guard_figure(guard), "guard": guard, "name": guard_name(guard.measure)} for guard in guards
        ],
        "judged": [*_rows(kept, "choice", "questions"), *_rows(kept, "format", "formats")],
        "read": _rows(kept, "passage", "texts"),
        "chance": sum(1 / len(item.options) for item in choices) / len(choices) if choices else None,
        "examples": _examples(items, answers),
    }


def kept_line(verdict: Verdict) -> str:
    """Return the third ring's result in one line, or nothing where it was not sat."""
    kept = verdict.results.kept
    if kept is None:
        return ""
    told = []
    if kept.accuracy:
        judged = [group for group in kept.groups if group.kind != "passage" and not group.topic]
        num = sum(group.num for group in judged)
        base, tuned = (sum(getattr(g, arm) * g.num for g in judged) / num for arm in (Arm.BASE, Arm.TUNED))
        told.append(f"{base:.0%} → {tuned:.0%} of {num} general questions and formats right")
    if kept.cross_entropy:
        (read,) = (group for group in kept.groups if group.kind == "passage" and not group.topic)
        told.append(f"general text {read.base:.2f} → {read.tuned:.2f} nats per token")
    return f"kept, base → tuned: {'; '.join(told)}"


def guard_figure(guard: GuardResult) -> Markup:
    """Return the picture of a guard: its interval, and shaded the harm that is allowed."""
    interval, margin = guard.interval, guard.margin
    row = figures.Row(
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


def _rows(kept: RetentionResult, kind: RetentionKind, name: str) -> list[tuple[str, bool, RetentionGroup]]:
    """Return (name, whether it is the whole kind, means): the kind, then its topics."""
    return [(group.topic or name, not group.topic, group) for group in kept.groups if group.kind == kind]


def _examples(items: Sequence[RetentionItem], answers: Sequence[RetentionAnswer]) -> list[dict[str, Any]]:
    """Return format prompts that base or tuned alone has right: those lost first, then those gained."""
    told = {(answer.item, answer.arm): answer for answer in answers if answer.kind == "format"}
    both: list[dict[str, Any]] = [
        {"item": item, "base": told[item.id, Arm.BASE], "tuned": told[item.id, Arm.TUNED]}
        for item in items
        if (item.id, Arm.BASE) in told and (item.id, Arm.TUNED) in told
    ]
    lost = [pair for pair in both if pair["tuned"].value < pair["base"].value]
    gained = [pair for pair in both if pair["tuned"].value > pair["base"].value]
    shown = lost[: max(_NUM_RETENTION_EXAMPLES // 2, _NUM_RETENTION_EXAMPLES - len(gained))]
    return [*shown, *gained[: _NUM_RETENTION_EXAMPLES - len(shown)]]
