"""The end of a run: results, verdict, files; and the status of a run folder."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright import console, pipeline
from tunewright.commands.json_documents import ReportDocument, StageStatus, StatusDocument
from tunewright.errors import RunFolderError, command
from tunewright.recipe import load_recipe
from tunewright.run_folder import RunFile, RunFolder

_FILES = (RunFile.REPORT, RunFile.DATA_REPORT, RunFile.COMPARISON, RunFile.ADAPTER)


def show(run: RunFolder, until: str) -> None:
    """Print the verdict with its table and the paths of the results, or where a shorter run ended."""
    if until not in ("evaluate", "report") or not run.file(RunFile.VERDICT).exists():
        console.line(f"done up to {until}; the files are in {run.path}")
        return
    if faults := broken(run):
        console.heading("verdict: INVALID")
        console.line("  The seal is broken: this run is no longer what its verdict was given on.")
        for fault in faults:
            console.line(f"  {fault}")
        console.line(f"\n  {RunFile.REPORT.ljust(16)}{run.file(RunFile.REPORT).absolute()}")
        return
    from tunewright.evaluation.extra_arms import compared_table
    from tunewright.evaluation.recovery import recovery_sentences
    from tunewright.evaluation.rule import RULE_VERSION
    from tunewright.evaluation.verdict import Verdict
    from tunewright.reporting.report import summary_table
    from tunewright.reporting.sections import retention_line, structured_table

    verdict = run.read_record(RunFile.VERDICT, Verdict)
    columns, rows = summary_table(verdict)
    console.table("", columns, rows)
    if fields := structured_table(verdict):
        console.table("", *fields)
    if retention := retention_line(verdict.results):
        console.line(retention)
    if verdict.results.recovery:
        console.line(recovery_sentences(verdict.results.recovery)[1])
    if others := compared_table(verdict):
        console.table("exploratory, with Holm's correction; no part of the verdict", *others)
    console.heading(f"verdict: {verdict.name}")
    if verdict.rule["version"] != RULE_VERSION:
        console.line(
            f"  Version {verdict.rule['version']} of the rule gave this verdict; version {RULE_VERSION} is current."
        )
    for sentence in verdict.why:
        console.line(f"  {sentence}")
    console.line()
    for name in _FILES:
        if run.file(name).exists():
            console.line(f"  {name.ljust(16)}{run.file(name).absolute()}")


def report_document(run: RunFolder) -> ReportDocument:
    """Rewrite the report; return the verdict and the files.

    Raises:
        RunFolderError: see ``show_report``.
    """
    _refuse(run, _rewrite_report(run))
    return _report(run)


def read_report(run: RunFolder) -> ReportDocument:
    """Return the verdict and the files; write nothing.

    Raises:
        RunFolderError: see ``show_report``.
    """
    pipeline.require(run, RunFile.RECIPE, RunFile.VERDICT)
    _refuse(run, broken(run))
    pipeline.require_untouched(run)
    return _report(run)


def _report(run: RunFolder) -> ReportDocument:
    from tunewright.evaluation.verdict import Verdict

    return ReportDocument(
        folder=str(run.path),
        verdict=run.read_record(RunFile.VERDICT, Verdict),
        files={str(name): str(run.file(name).absolute()) for name in _FILES if run.file(name).exists()},
        no_digests=tuple(run.uncovered()),
    )


def broken(run: RunFolder) -> list[str]:
    """Return what differs from the sealed run, a sentence each."""
    from tunewright.evaluation.seal import seal_faults
    from tunewright.evaluation.stage import read_seal_state

    return seal_faults(read_seal_state(run), load_recipe(run.file(RunFile.RECIPE)))


def show_report(run: RunFolder) -> None:
    """Rewrite the report and print the verdict.

    Raises:
        RunFolderError: the seal is broken (the report then says INVALID), or another file is not as its stage left it.
    """
    faults = _rewrite_report(run)
    show(run, "report")
    _refuse(run, faults)


def _rewrite_report(run: RunFolder) -> list[str]:
    """Rewrite the report; return what differs from the sealed run."""
    pipeline.require(run, RunFile.RECIPE, RunFile.VERDICT)
    pipeline.warn_of_changes(run)
    if unknown := run.uncovered():
        console.line(f"no digests were noted of {', '.join(unknown)}: a change of these files would not be seen", "dim")
    faults = broken(run)
    if not faults:
        pipeline.require_untouched(run)
    run.file(RunFile.REPORT).unlink(missing_ok=True)  # rewritten even if all that it depends on is unchanged
    pipeline.run(load_recipe(run.file(RunFile.RECIPE)), run.path, only=("report",))
    return faults


def _refuse(run: RunFolder, faults: Sequence[str]) -> None:
    if faults:
        raise RunFolderError(
            f"the seal of {run.path} is broken",
            "; ".join(faults),
            f"undo the change, or rebuild it: {run.again()}",
        )


def show_status(run: RunFolder) -> None:
    """Print each stage's state, and the command that continues the run."""
    states, rows = _states(run), []
    for state in states:
        summary = pipeline.summary_line(state.summary) if state.summary else ""
        took = f"{state.duration_s:.1f} s" if state.summary else ""
        rows.append((state.stage.name, state.state, took, summary if summary and state.state == "fresh" else state.why))
    console.table(str(run.path), ("stage", "state", "took", "what"), rows)
    if checkpoint := _checkpoint(run, states):
        console.line(f"training can continue from checkpoint {checkpoint}")
    if following := _next(run, states):
        console.line(f"continue with: {following}")


def status_document(run: RunFolder) -> StatusDocument:
    """Return each stage's state, and how the run continues."""
    states = _states(run)
    verdict = run.json_if_any(RunFile.VERDICT).get("name")
    return StatusDocument(
        folder=str(run.path),
        stages=tuple(
            StageStatus(
                stage=state.stage.name,
                state=state.state,
                why=state.why,
                duration_s=state.duration_s,
                summary=state.summary,
            )
            for state in states
        ),
        finished=all(state.state == "fresh" for state in states),
        busy=run.is_locked(),
        checkpoint=_checkpoint(run, states),
        verdict=verdict,
        next=_next(run, states),
    )


def _states(run: RunFolder) -> list[pipeline.StageState]:
    recipe = load_recipe(run.file(RunFile.RECIPE)) if run.file(RunFile.RECIPE).exists() else None
    return list(pipeline.states(run, recipe))


def _checkpoint(run: RunFolder, states: Sequence[pipeline.StageState]) -> str | None:
    """Return the newest checkpoint of a training that is not finished."""
    partial = sorted(run.file(RunFile.CHECKPOINTS).glob("*/step-*"), key=lambda path: path.stat().st_mtime)
    if partial and any(state.stage.name == "train" and state.state != "fresh" for state in states):
        return f"{partial[-1].parent.name}/{partial[-1].name}"
    return None


def _next(run: RunFolder, states: Sequence[pipeline.StageState]) -> str | None:
    """Return the command that continues the run; None when it is finished."""
    if all(state.state == "fresh" for state in states):
        return None
    return run.again() if run.file(RunFile.RECIPE).exists() else command("run", "RECIPE", "--dir", run.path)
