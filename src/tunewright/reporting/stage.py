"""The stage report: it reads the run's records and writes report.html and data.html."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from tunewright.annotation.plan import answer_pairs_digest, pairs
from tunewright.annotation.summary import MarkingSummary
from tunewright.errors import RunFolderError, cause_of, command
from tunewright.evaluation.judge import JudgeSummary, Judgment
from tunewright.evaluation.results import Results
from tunewright.evaluation.seal import seal_faults
from tunewright.evaluation.stage import read_seal_state
from tunewright.evaluation.verdict import Verdict
from tunewright.html.render import render
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import (
    Answer,
    AnyRecord,
    Chunk,
    Document,
    Mark,
    Question,
    Rejection,
    RetentionAnswer,
    RetentionItem,
    Sample,
    Score,
    SplitEntry,
    StageSummary,
)
from tunewright.reporting.benchmarks import BenchmarkResults
from tunewright.reporting.data_report import DataRecords, data_page, data_view
from tunewright.reporting.data_statistics import teacher_use
from tunewright.reporting.learning_curve import LearningCurve, is_current
from tunewright.reporting.opinions import Opinions, disagreement, judge_trial
from tunewright.reporting.report import ReportRecords, invalid_page, report_view
from tunewright.reporting.training import parse_metrics, plan_views
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import file_digest

_NEEDED = (RunFile.EXAM, RunFile.ANSWERS, RunFile.SCORES, RunFile.VERDICT)


def report(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write report.html and data.html from the run folder's files: no network, no script, everything escaped.

    Where the seal is broken, the page shows INVALID and the changes, and no score.

    Raises:
        RunFolderError: exam, answers, scores or verdict are missing, or a file is damaged.
    """
    for name in _NEEDED:
        if not run.file(name).is_file():
            raise RunFolderError(f"{run.path} has no {name} yet", "a report needs a finished exam", run.again())
    verdict = _read_verdict(run)
    title = title_of(run)
    if faults := seal_faults(read_seal_state(run), recipe):
        run.write(RunFile.REPORT, invalid_page(title, faults))
        if not run.file(RunFile.DATA_REPORT).is_file():
            run.write(RunFile.DATA_REPORT, data_page(title, data_view(read_data(run, read_stages(run)), recipe)))
        return StageSummary(num_in=0, num_out=0, figures={"verdict": "INVALID", "seal_faults": len(faults)})
    records = _read_report(run, recipe, verdict)
    view = report_view(records)
    page = render("report.html", view)
    run.write(RunFile.REPORT, page)
    run.write(RunFile.DATA_REPORT, data_page(title, records.samples))
    return StageSummary(
        num_in=len(records.answers),
        num_out=len(records.answers),
        figures={"sections left out": len(view["absent"]), "bytes": len(page.encode())},
    )


def title_of(run: RunFolder) -> str:
    """Return the name of a run, as its pages show it."""
    return run.path.resolve().name


def _read_report(run: RunFolder, recipe: Recipe, verdict: Verdict) -> ReportRecords:
    stages = read_stages(run)
    data = read_data(run, stages)
    exam, answers = run.read_records(RunFile.EXAM, Question), run.read_records(RunFile.ANSWERS, Answer)
    recipe_file, curve_file = run.file(RunFile.RECIPE), run.file(RunFile.CURVE)
    # The digest of a large adapter takes time: only what is compared with it needs it.
    needs_adapter = curve_file.is_file() or run.file(RunFile.BENCHMARKS).is_file()
    adapter = file_digest(run.file(RunFile.ADAPTER)) if needs_adapter else ""
    return ReportRecords(
        title=data.title,
        recipe=recipe,
        recipe_text=recipe_file.read_text(encoding="utf-8") if recipe_file.is_file() else dump_recipe(recipe),
        verdict=verdict,
        exam=exam,
        answers=answers,
        scores=run.read_records(RunFile.SCORES, Score),
        documents=data.documents,
        retention_items=run.records_if_any(RunFile.RETENTION, RetentionItem),
        retention_answers=run.records_if_any(RunFile.RETENTION_ANSWERS, RetentionAnswer),
        stages=stages,
        metrics=read_metrics_rows(run),
        plans=read_plans(run),
        samples=data_view(data, recipe),
        teacher_use=data.teacher_use or {},
        seal=run.read_json(RunFile.SEAL) if run.file(RunFile.SEAL).is_file() else None,
        changes=[str(change) for change in run.changes()],
        uncovered=run.uncovered(),
        curve=_read_curve(run, verdict.results, adapter),
        has_curve=curve_file.is_file(),
        benchmarks=_read_benchmarks(run, adapter),
        opinions=_opinions(run, verdict.results, exam, answers),
    )


def _read_verdict(run: RunFolder) -> Verdict:
    return run.read_record(RunFile.VERDICT, Verdict)


def read_stages(run: RunFolder) -> list[dict[str, Any]]:
    """Return the records of the finished stages but the report's, in the order in which their outputs are made."""
    records = []
    for path in run.file("stages").glob("*.json"):
        record = run.stage_record(path.stem)
        if "summary" in record and path.stem != "report":
            summary = StageSummary.model_validate(record["summary"])  # as stage_record checked
            records.append({**record, "stage": path.stem, "summary": summary})
    return sorted(records, key=_stage_position)


_POSITIONS = {str(file): position for position, file in enumerate(RunFile)}


def _stage_position(record: dict[str, Any]) -> tuple[int, str]:
    """Return the position of a stage's first output in the table of run files; stages without one come last."""
    positions = [_POSITIONS[name] for name in record.get("outputs") or () if name in _POSITIONS]
    return min(positions, default=len(_POSITIONS)), record["stage"]


def read_data(run: RunFolder, stages: Sequence[dict[str, Any]]) -> DataRecords:
    """Return the records of the data report.

    Args:
        run: a run folder.
        stages: as ``read_stages`` returns them.

    Raises:
        RunFolderError: a file is damaged.
    """
    return DataRecords(
        title=title_of(run),
        documents=run.records_if_any(RunFile.DOCUMENTS, Document),
        split=run.records_if_any(RunFile.SPLIT, SplitEntry),
        chunks=run.records_if_any(RunFile.CHUNKS, Chunk),
        written=run.records_if_any(RunFile.SAMPLES, Sample),
        kept=run.read_records(RunFile.TRAIN, Sample) if run.file(RunFile.TRAIN).is_file() else None,
        rejections=run.records_if_any(RunFile.REJECTED, Rejection),
        summaries={stage["stage"]: stage["summary"] for stage in stages},
        teacher_use=_read_teacher_use(run),
        has_exam=run.file(RunFile.EXAM).is_file(),
    )


def _read_teacher_use(run: RunFolder) -> dict[str, dict[str, float]] | None:
    path = run.file(RunFile.TEACHER_JOURNAL)
    if not path.is_file():
        return None
    with path.open("rb") as lines:
        return teacher_use(lines) or None


def read_metrics_rows(run: RunFolder) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl; none without the file.

    Raises:
        RunFolderError: a line is not a training step.
    """
    path = run.file(RunFile.METRICS)
    try:
        return parse_metrics(path.read_text(encoding="utf-8")) if path.is_file() else []
    except (ValueError, TypeError, RecursionError) as error:
        raise RunFolderError(f"{path} has a line that is no training step", cause_of(error), "train again") from error


def read_plans(run: RunFolder) -> dict[str, Any] | None:
    """Return the view of each phase's plan; None without plan.json.

    Raises:
        RunFolderError: plan.json does not hold plans.
    """
    path = run.file(RunFile.PLAN)
    if not path.is_file():
        return None
    try:
        return plan_views(run.read_json(RunFile.PLAN))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise RunFolderError(f"{path} does not hold the plan of a training", cause_of(error), "train again") from error


def _read_curve(run: RunFolder, results: Results, adapter: str) -> LearningCurve | None:
    """Return the learning curve; None without curve.json, or where it is of another exam, adapter or version."""
    if not run.file(RunFile.CURVE).is_file():
        return None
    try:
        curve = LearningCurve.model_validate(run.read_json(RunFile.CURVE))
    except ValidationError:
        return None
    return curve if is_current(curve, results, file_digest(run.file(RunFile.EXAM)), adapter) else None


def _read_benchmarks(run: RunFolder, adapter: str) -> BenchmarkResults | None:
    """Return the results of public benchmarks; None without any, or where they are of another adapter."""
    hint = f"delete it, then: {command('benchmark', run.path, 'TASK...')}"
    results = _read_if_any(run, RunFile.BENCHMARKS, BenchmarkResults, hint)
    return results if results and results.adapter == adapter else None


def read_opinions(run: RunFolder, results: Results) -> Opinions:
    """Return what people and a judge said of the present answers.

    Raises:
        RunFolderError: a file is damaged.
    """
    exam, answers = run.records_if_any(RunFile.EXAM, Question), run.records_if_any(RunFile.ANSWERS, Answer)
    return _opinions(run, results, exam, answers)


def _opinions(run: RunFolder, results: Results, exam: Sequence[Question], answers: Sequence[Answer]) -> Opinions:
    """Return the opinions on these answers; those on earlier answers are left out."""
    judge = _read_if_any(run, RunFile.JUDGE, JudgeSummary, f"delete it, then: {run.again()}")
    read_again = f"read the marks again: {command('mark', run.path, '--read', 'FILE...')}"
    marking = _read_if_any(run, RunFile.MARKING_PLAN, MarkingSummary, read_again)
    if judge and not (answers and judge.answers == file_digest(run.file(RunFile.ANSWERS))):
        judge = None
    answer_pairs = pairs(exam, answers, marking.arms) if marking else []
    if marking and marking.answers != answer_pairs_digest(answer_pairs):
        marking = None
    trial = None
    if judge and marking and run.file(RunFile.JUDGMENTS).is_file() and run.file(RunFile.MARKS).is_file():
        marks = [mark for mark in run.read_records(RunFile.MARKS, Mark) if mark.answers in ("", marking.answers)]
        judgments = run.read_records(RunFile.JUDGMENTS, Judgment)
        trial = judge_trial(marking, answer_pairs, marks, judgments)
    judged = {"summary": judge, "trial": trial} if judge else None
    return Opinions(judged, marking, disagreement(marking, results))


def _read_if_any(run: RunFolder, name: str, kind: type[AnyRecord], hint: str) -> AnyRecord | None:
    path = run.file(name)
    if not path.is_file():
        return None
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunFolderError(f"{path} is damaged", _cause(error), hint) from error


def _cause(error: ValidationError) -> str:
    return str(error.errors()[0]["msg"])
