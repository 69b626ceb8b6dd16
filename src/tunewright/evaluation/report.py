"""The report: one self-contained HTML file with the verdict, its evidence, and what was not measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tunewright import __version__
from tunewright.errors import RunFolderError
from tunewright.evaluation import figures
from tunewright.evaluation.data_report import PAGE, write_page
from tunewright.evaluation.data_view import data_view
from tunewright.evaluation.page import render
from tunewright.evaluation.results import BASE, TUNED, ArmResult, Difference
from tunewright.evaluation.seal import seal_faults
from tunewright.evaluation.structured import structured_table
from tunewright.evaluation.training_log import advice, plans, training
from tunewright.evaluation.verdict import Verdict
from tunewright.evaluation.wording import number, signed, spread
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import Answer, AnyRecord, Document, Question, Score, StageSummary, read_jsonl
from tunewright.rundir import RunFolder, file_digest

if TYPE_CHECKING:
    from markupsafe import Markup

REPORT = "report.html"
STAGES = ("ingest", "split", "exam", "synth", "curate", "train", "evaluate")

_NEEDED = ("exam.jsonl", "answers.jsonl", "scores.jsonl", "verdict.json")
_NUM_EXAMPLES = 10
_TONES = {
    "SHIP": "good",
    "SHIP WITH RAG": "good",
    "USE RAG": "other",
    "PROMPT INSTEAD": "other",
    "NOT PROVEN": "open",
    "WORSE": "bad",
    "INVALID": "bad",
}


def summary_table(verdict: Verdict) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows for the terminal: each arm with its scores and gold-answer NLL."""
    rings = sorted({ring for arm in verdict.results.arms for ring in arm.rings})
    columns = ["arm", "score", "95% interval", *rings, "refusal right", "gold NLL"]
    return columns, [
        [
            arm.arm,
            number(arm.primary.mean),
            spread(arm.primary),
            *(number(arm.rings[ring].mean) if ring in arm.rings else "–" for ring in rings),
            f"{arm.metrics.get('refusal_right', 0):.0%}",
            number(arm.gold_nll),
        ]
        for arm in verdict.results.arms
    ]


def _required(run: RunFolder, name: str) -> Path:
    path = run.file(name)
    if not path.is_file():
        raise RunFolderError(
            f"{run.path} has no {name} yet", "a report needs a finished exam", "tunewright evaluate RECIPE"
        )
    return path


def _verdict(run: RunFolder) -> Verdict:
    path = _required(run, "verdict.json")
    try:
        return Verdict.model_validate(run.read_json("verdict.json"))
    except ValidationError as error:
        raise RunFolderError(
            f"{path} is not a verdict", str(error.errors()[0]["msg"]), "delete it and evaluate again"
        ) from error


def _records(run: RunFolder, name: str, kind: type[AnyRecord]) -> list[AnyRecord]:
    _required(run, name)
    return run.read_records(name, kind)


def _forest_scores(arms: Sequence[ArmResult]) -> Markup:
    rows = [
        figures.Row(
            label=arm.arm,
            value=f"{number(arm.primary.mean)}  ({spread(arm.primary)})",
            mean=arm.primary.mean,
            low=arm.primary.low,
            high=arm.primary.high,
            kind="tuned" if arm.arm.startswith(TUNED) else "rival",
        )
        for arm in arms
    ]
    scale = figures.Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
    told = "; ".join(f"{row.label} {row.value}" for row in rows)
    return figures.forest(rows, scale, f"Score of each arm with its 95% interval: {told}")


def _forest_differences(differences: Sequence[Difference], margin: float) -> Markup:
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


def _nll(verdict: Verdict, exam: Sequence[Question], answers: Sequence[Answer]) -> dict[str, Any] | None:
    learned = verdict.results.nll_learned or verdict.results.nll_closed_book
    if learned is None:
        return None
    asked = {q.id for q in exam if q.answerable and q.passage is None}
    if verdict.results.nll_learned is not None:
        asked &= {q.id for q in exam if q.ring == "learned"}
    found: dict[str, dict[str, float]] = {BASE: {}, TUNED: {}}
    for answer in answers:
        if answer.question in asked and answer.arm in found and math.isfinite(answer.gold_nll):
            found[answer.arm][answer.question] = answer.gold_nll
    points = [(nll, found[TUNED][q]) for q, nll in found[BASE].items() if q in found[TUNED]]
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


def _stages(run: RunFolder) -> list[dict[str, Any]]:
    """Each finished stage: its name, summary, duration, outputs' digests, version."""
    found = []
    for name in STAGES:
        if not run.file(f"stages/{name}.json").is_file():
            continue
        entry = run.read_json(f"stages/{name}.json")
        found.append({**entry, "stage": name, "summary": StageSummary.model_validate(entry["summary"])})
    return found


def _funnel(stages: Sequence[dict[str, Any]]) -> Markup | None:
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
    """Up to ten question ids: the largest gains and losses of tuned over base, half and half where possible."""
    by_arm = {arm: {s.question: s.primary for s in scores if s.arm == arm} for arm in (BASE, TUNED)}
    change = {
        q.id: by_arm[TUNED][q.id] - by_arm[BASE][q.id] for q in exam if q.id in by_arm[TUNED] and q.id in by_arm[BASE]
    } or {q.id: 0.0 for q in exam}
    ranked = sorted(change, key=lambda q: -change[q])
    gains = [q for q in ranked if change[q] > 0]
    losses = [q for q in reversed(ranked) if change[q] < 0]
    num_gains = max(_NUM_EXAMPLES // 2, _NUM_EXAMPLES - len(losses))
    shown = gains[:num_gains]
    shown += losses[: _NUM_EXAMPLES - len(shown)]
    return shown + [q for q in ranked if change[q] == 0][: _NUM_EXAMPLES - len(shown)]


def _examples(
    run: RunFolder, exam: Sequence[Question], answers: Sequence[Answer], scores: Sequence[Score], arms: Sequence[str]
) -> list[dict[str, Any]]:
    told = {(a.question, a.arm): a for a in answers}
    marks = {(s.question, s.arm): s.primary for s in scores}
    file = run.file("documents.jsonl")
    documents = {document.id: document for document in read_jsonl(file, Document)} if file.is_file() else {}
    by_id = {question.id: question for question in exam}
    return [
        {
            "question": by_id[shown],
            "document": documents.get(by_id[shown].document),
            "change": marks.get((shown, TUNED), 0.0) - marks.get((shown, BASE), 0.0),
            "answers": [(arm, told[shown, arm], marks.get((shown, arm))) for arm in arms if (shown, arm) in told],
        }
        for shown in _most_changed(scores, exam)
    ]


def _seal(run: RunFolder) -> dict[str, Any] | None:
    """The sealed digests, and whether the exam file still is the sealed one."""
    if not run.file("seal.json").is_file():
        return None
    seal = run.read_json("seal.json")
    return {"entries": seal, "intact": seal.get("exam") == file_digest(run.file("exam.jsonl"))}


def _view(run: RunFolder, recipe: Recipe) -> dict[str, Any]:
    """Everything that the page shows; a part whose files are missing is None and named under ``absent``."""
    verdict = _verdict(run)
    exam = _records(run, "exam.jsonl", Question)
    answers = _records(run, "answers.jsonl", Answer)
    scores = _records(run, "scores.jsonl", Score)
    stages = _stages(run)
    arms = [arm.arm for arm in verdict.results.arms]
    parts = {
        "nll": _nll(verdict, exam, answers),
        "training": training(run),
        "plans": plans(run),
        "funnel": _funnel(stages),
        "samples": data_view(run, recipe),
        "stages": stages or None,
        "seal": _seal(run),
    }
    labels = {
        "nll": "gold-answer likelihood: base and tuned did not both answer a closed-book question",
        "training": "training loss: no metrics.jsonl in the run folder",
        "plans": "how well the training's memory and time were planned: no plan.json in the run folder",
        "funnel": "the data funnel: no curate stage in the run folder",
        "samples": "what the training data holds: no samples in the run folder",
        "stages": "time and digests of the stages: none in the run folder",
        "seal": "the exam's seal: no seal.json in the run folder",
    }
    recipe_file = run.file("recipe.toml")
    return {
        **parts,
        "advice": advice(next((stage["summary"] for stage in stages if stage["stage"] == "train"), None)),
        "title": run.path.resolve().name,
        "version": __version__,
        "verdict": verdict,
        "tone": _TONES[verdict.name],
        "scores_figure": _forest_scores(verdict.results.arms),
        "differences_figure": _forest_differences(verdict.results.differences, verdict.rule["margin"]),
        "structured": structured_table(verdict),
        "rings": sorted({ring for arm in verdict.results.arms for ring in arm.rings}),
        "examples": _examples(run, exam, answers, scores, arms),
        "recipe": recipe,
        "recipe_text": recipe_file.read_text(encoding="utf-8") if recipe_file.is_file() else dump_recipe(recipe),
        "absent": [labels[name] for name, part in parts.items() if part is None],
        "num_answers": len(answers),
    }


def report(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write report.html and data.html from the run folder's files: no network, no script, everything escaped.

    Where the seal is broken the page says INVALID and what was changed, and no score.

    Raises:
        RunFolderError: exam, answers, scores or verdict are missing, or a file is damaged.
    """
    for name in _NEEDED:
        _required(run, name)
    _verdict(run)
    if faults := seal_faults(run, recipe):
        page = render("invalid.html", {"title": run.path.resolve().name, "version": __version__, "faults": faults})
        run.write(REPORT, page)
        if not run.file(PAGE).is_file():
            write_page(run, data_view(run, recipe))
        return StageSummary(num_in=0, num_out=0, figures={"verdict": "INVALID", "seal_faults": len(faults)})
    view = _view(run, recipe)
    page = render(REPORT, view)
    run.write(REPORT, page)
    write_page(run, view["samples"])
    return StageSummary(
        num_in=view["num_answers"],
        num_out=view["num_answers"],
        figures={"sections left out": len(view["absent"]), "bytes": len(page.encode())},
    )
