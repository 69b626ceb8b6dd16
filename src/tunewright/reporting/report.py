"""The report: one self-contained HTML file with the verdict, its evidence, and what was not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunewright.environment import __version__
from tunewright.errors import RunFolderError, command
from tunewright.evaluation.extra_arms import compared_table
from tunewright.evaluation.results import guard_name
from tunewright.evaluation.seal import seal_faults
from tunewright.evaluation.stage import read_seal_state
from tunewright.evaluation.verdict import NO_JUDGE, NO_MARKS, Verdict
from tunewright.html.render import render
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import Answer, AnyRecord, Question, Score, StageSummary
from tunewright.reporting import sections as parts
from tunewright.reporting.benchmarks import RESULTS, BenchmarkResults, benchmark_table, extent_told
from tunewright.reporting.data_report import PAGE, data_view, write_page
from tunewright.reporting.learning_curve import curve_absence, curve_view
from tunewright.reporting.opinions import opinions
from tunewright.reporting.sections import kept_view, structured_table
from tunewright.reporting.training import advice, costs, plans, training
from tunewright.run_folder import RunFile, RunFolder
from tunewright.statistics.intervals import number, percent, spread
from tunewright.storage import file_digest

REPORT = RunFile.REPORT
_NEEDED = (RunFile.EXAM, RunFile.ANSWERS, RunFile.SCORES, RunFile.VERDICT)
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


def _required(run: RunFolder, name: str) -> Path:
    path = run.file(name)
    if not path.is_file():
        raise RunFolderError(f"{run.path} has no {name} yet", "a report needs a finished exam", run.again())
    return path


def _verdict(run: RunFolder) -> Verdict:
    path = _required(run, RunFile.VERDICT)
    try:
        return Verdict.model_validate(run.read_json(RunFile.VERDICT))
    except ValidationError as error:
        raise RunFolderError(
            f"{path} is not a verdict", str(error.errors()[0]["msg"]), "delete it and evaluate again"
        ) from error


def _records(run: RunFolder, name: str, kind: type[AnyRecord]) -> list[AnyRecord]:
    _required(run, name)
    return run.read_records(name, kind)


def _seal(run: RunFolder) -> dict[str, Any] | None:
    """The sealed digests; ``report`` has refused a run that is not as sealed."""
    return run.read_json(RunFile.SEAL) if run.file(RunFile.SEAL).is_file() else None


def _benchmarks(run: RunFolder) -> tuple[str, list[str], list[list[str]]] | None:
    """How much of the public benchmarks base and tuned played, if any, and the table."""
    if not run.file(RESULTS).is_file():
        return None
    try:
        found = BenchmarkResults.model_validate(run.read_json(RESULTS))
        return (
            (extent_told(found), *benchmark_table(found))
            if found.adapter == file_digest(run.file(RunFile.ADAPTER))
            else None
        )
    except ValidationError as error:
        hint = f"delete it, then: {command('benchmark', run.path, 'TASK...')}"
        raise RunFolderError(f"{run.file(RESULTS)} is damaged", str(error.errors()[0]["msg"]), hint) from error


def _view(run: RunFolder, recipe: Recipe) -> dict[str, Any]:
    """Everything that the page shows; a part whose files are missing is None and named under ``absent``."""
    verdict = _verdict(run)
    exam = _records(run, RunFile.EXAM, Question)
    answers = _records(run, RunFile.ANSWERS, Answer)
    scores = _records(run, RunFile.SCORES, Score)
    stages = parts.stages(run)
    arms = [arm.arm for arm in verdict.results.arms]
    found = {
        "nll": parts.nll(verdict, exam, answers),
        "training": training(run),
        "plans": plans(run),
        "funnel": parts.funnel(stages),
        "samples": data_view(run, recipe),
        "stages": stages or None,
        "seal": _seal(run),
        "curve": curve_view(run, verdict),
    }
    labels = {
        "nll": "gold-answer likelihood: base and tuned did not both answer a closed-book question",
        "training": "training loss: no metrics.jsonl in the run folder",
        "plans": "how well the training's memory and time were planned: no plan.json in the run folder",
        "funnel": "the data funnel: no curate stage in the run folder",
        "samples": "what the training data holds: no samples in the run folder",
        "stages": "time and digests of the stages: none in the run folder",
        "seal": "the exam's seal: no seal.json in the run folder",
        "curve": curve_absence(run),
    }
    said = opinions(run, verdict.results)
    measured = {name for name, there in ((NO_MARKS, said["marked"]), (NO_JUDGE, said["judged"])) if there}
    recipe_file = run.file(RunFile.RECIPE)
    return {
        **found,
        **said,
        "not_measured": [item for item in verdict.not_measured if item not in measured],
        "kept": kept_view(run, verdict),
        "advice": advice(next((stage["summary"] for stage in stages if stage["stage"] == "train"), None)),
        "guard_name": guard_name,
        "title": run.path.resolve().name,
        "version": __version__,
        "verdict": verdict,
        "tone": _TONES[verdict.name],
        "scores_figure": parts.forest_scores(verdict.results.arms),
        "differences_figure": parts.forest_differences(verdict.results.differences, verdict.rule["margin"]),
        "structured": structured_table(verdict),
        "benchmarks": _benchmarks(run),
        "types": parts.types(exam, scores, arms),
        "costs": costs(run, verdict.results, stages),
        "compared": compared_table(verdict),
        "rings": sorted({ring for arm in verdict.results.arms for ring in arm.rings}),
        "examples": parts.examples(run, exam, answers, scores, arms),
        "recipe": recipe,
        "recipe_text": recipe_file.read_text(encoding="utf-8") if recipe_file.is_file() else dump_recipe(recipe),
        "absent": [labels[name] for name, part in found.items() if part is None],
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
    if faults := seal_faults(read_seal_state(run), recipe):
        page = render("invalid.html", {"title": run.path.resolve().name, "version": __version__, "faults": faults})
        run.write(REPORT, page)
        if not run.file(PAGE).is_file():
            write_page(run, data_view(run, recipe))
        return StageSummary(num_in=0, num_out=0, figures={"verdict": "INVALID", "seal_faults": len(faults)})
    view = _view(run, recipe)
    page = render("report.html", view)
    run.write(REPORT, page)
    write_page(run, view["samples"])
    return StageSummary(
        num_in=view["num_answers"],
        num_out=view["num_answers"],
        figures={"sections left out": len(view["absent"]), "bytes": len(page.encode())},
    )
