"""The view of report.html: the verdict, its evidence, and what was not measured, from the records of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.environment import __version__
from tunewright.evaluation.extra_arms import compared_table
from tunewright.evaluation.recovery import recovery_sentences
from tunewright.evaluation.results import guard_name
from tunewright.evaluation.rule import RULE_VERSION
from tunewright.evaluation.verdict import NO_JUDGE, NO_MARKS, Verdict
from tunewright.html.render import render
from tunewright.recipe import Recipe
from tunewright.records import Answer, Document, Question, RetentionAnswer, RetentionItem, Score, StageSummary
from tunewright.reporting import learning_curve, sections, training
from tunewright.reporting.benchmarks import BenchmarkResults, benchmark_table, extent_label
from tunewright.reporting.learning_curve import LearningCurve
from tunewright.reporting.opinions import Opinions
from tunewright.statistics.intervals import number, percent, spread

_TONES = {
    "SHIP": "good",
    "SHIP WITH RAG": "good",
    "USE RAG": "other",
    "PROMPT INSTEAD": "other",
    "NOT PROVEN": "open",
    "WORSE": "bad",
    "INVALID": "bad",
}


@dataclass(frozen=True)
class ReportRecords:
    """The records of a run that the report rests on; None or empty for a file that the run does not have.

    Attributes:
        title: name of the run.
        recipe_text: the content of recipe.toml.
        stages: records of the finished stages, in order.
        metrics: rows of metrics.jsonl.
        plans: views of plan.json by phase.
        samples: view of the data report.
        teacher_use: as ``data_statistics.teacher_use`` returns it.
        seal: the sealed digests.
        changes: the files that are not as they were written, a sentence each.
        uncovered: the files of which no digest was noted.
        curve: the learning curve, where it is of this exam and adapter.
        has_curve: whether there is a curve.json at all.
        benchmarks: results of public benchmarks, where they are of this adapter.
    """

    title: str
    recipe: Recipe
    recipe_text: str
    verdict: Verdict
    exam: Sequence[Question]
    answers: Sequence[Answer]
    scores: Sequence[Score]
    documents: Sequence[Document]
    retention_items: Sequence[RetentionItem]
    retention_answers: Sequence[RetentionAnswer]
    stages: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]
    plans: Mapping[str, Any] | None
    samples: Mapping[str, Any] | None
    teacher_use: Mapping[str, Mapping[str, float]]
    seal: Mapping[str, Any] | None
    changes: Sequence[str]
    uncovered: Sequence[str]
    curve: LearningCurve | None
    has_curve: bool
    benchmarks: BenchmarkResults | None
    opinions: Opinions


def summary_table(verdict: Verdict) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows for the terminal: each arm with its scores and gold-answer NLL."""
    rings = sorted({ring for arm in verdict.results.arms for ring in arm.rings})
    columns = ["arm", "score", "95% interval", *rings, "declines rightly / wrongly", "gold NLL"]
    return columns, [
        [
            arm.arm,
            number(arm.primary.mean),
            spread(arm.primary),
            *(number(arm.rings[ring].mean) if ring in arm.rings else "–" for ring in rings),
            " / ".join(percent(arm.metrics.get(name)) for name in ("refusal_recall", "false_refusal")),
            number(arm.gold_nll),
        ]
        for arm in verdict.results.arms
    ]


def _optional_parts(records: ReportRecords) -> tuple[dict[str, Any], list[str]]:
    """Return the parts that a run may lack, and a label for each that this run lacks."""
    summaries: dict[str, StageSummary] = {stage["stage"]: stage["summary"] for stage in records.stages}
    curate = summaries.get("curate")
    parts = {
        "nll": sections.nll(records.verdict, records.exam, records.answers),
        "training": training.training_phases(records.metrics),
        "plans": records.plans,
        "funnel": None if curate is None else sections.funnel_figure(curate),
        "samples": records.samples,
        "stages": records.stages or None,
        "seal": records.seal,
        "changes": records.changes,
        "uncovered": records.uncovered,
        "curve": None if records.curve is None else learning_curve.curve_view(records.curve),
    }
    labels = {
        "nll": "gold-answer likelihood: base and tuned did not both answer a closed-book question",
        "training": "training loss: no metrics.jsonl in the run folder",
        "plans": "accuracy of the training's memory and time plan: no plan.json in the run folder",
        "funnel": "the data funnel: no curate stage in the run folder",
        "samples": "what the training data holds: no samples in the run folder",
        "stages": "time and digests of the stages: none in the run folder",
        "seal": "the exam's seal: no seal.json in the run folder",
        "curve": learning_curve.absence_label(records.has_curve),
    }
    return parts, [labels[name] for name, part in parts.items() if part is None]


def report_view(records: ReportRecords) -> dict[str, Any]:
    """Return everything that the page shows; a part that the run lacks is None and has a label under ``absent``."""
    verdict, opinions = records.verdict, records.opinions
    arms = [arm.arm for arm in verdict.results.arms]
    parts, absent = _optional_parts(records)
    measured = {label for label, view in ((NO_MARKS, opinions.marked), (NO_JUDGE, opinions.judged)) if view}
    train = next((stage["summary"] for stage in records.stages if stage["stage"] == "train"), None)
    durations_s = {stage["stage"]: float(stage["duration_s"]) for stage in records.stages if "duration_s" in stage}
    benchmarks = records.benchmarks
    return {
        **parts,
        "absent": absent,
        "judged": opinions.judged,
        "marked": opinions.marked,
        "disagreement": opinions.disagreement,
        "not_measured": [item for item in verdict.not_measured if item not in measured],
        "retention": sections.retention_view(verdict.results, records.retention_items, records.retention_answers),
        "advice": training.advice(train),
        "guard_name": guard_name,
        "rule_version": RULE_VERSION,
        "title": records.title,
        "version": __version__,
        "verdict": verdict,
        "tone": _TONES[verdict.name],
        "scores_figure": sections.forest_scores(verdict.results.arms),
        "differences_figure": sections.forest_differences(verdict.results.differences, verdict.rule["margin"]),
        "structured": sections.structured_table(verdict),
        "measures": [d.measure for d in verdict.results.structured if ":" not in d.measure],  # of labels, not of fields
        "benchmarks": (extent_label(benchmarks), *benchmark_table(benchmarks)) if benchmarks else None,
        "recovery": recovery_sentences(verdict.results.recovery) if verdict.results.recovery else [],
        "reading_and_retrieval": sections.reading_and_retrieval(records.exam, records.scores),
        "short": any(question.kind == "short" for question in records.exam),
        "types": sections.scores_by_type(records.exam, records.scores, arms),
        "costs": training.costs(verdict.results, durations_s, records.metrics, records.teacher_use),
        "compared": compared_table(verdict),
        "rings": sorted({ring for arm in verdict.results.arms for ring in arm.rings}),
        "examples": sections.answer_examples(records.exam, records.answers, records.scores, records.documents, arms),
        "recipe": records.recipe,
        "recipe_text": records.recipe_text,
    }


def invalid_page(title: str, faults: Sequence[str]) -> str:
    """Return the page of a run whose seal is broken: INVALID, what was changed, and no score."""
    return render("invalid.html", {"title": title, "version": __version__, "faults": faults})
