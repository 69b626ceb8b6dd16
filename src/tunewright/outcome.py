"""What a command tells at its end: the results, the verdict, where the files are; and a run folder's status."""

from __future__ import annotations

from tunewright import console, pipeline
from tunewright.recipe import load_recipe
from tunewright.rundir import RunFolder

_FILES = ("report.html", "data.html", "comparison.csv", "adapter")


def show(run: RunFolder, until: str) -> None:
    """Print the verdict with its table and the paths of the results, or where a shorter run ended."""
    if until not in ("evaluate", "report") or not run.file("verdict.json").exists():
        console.line(f"done up to {until}; the files are in {run.path}")
        return
    from tunewright.evaluation.report import structured_table, summary_table
    from tunewright.evaluation.verdict import Verdict

    verdict = Verdict.model_validate_json(run.file("verdict.json").read_text(encoding="utf-8"))
    columns, rows = summary_table(verdict)
    console.table("", columns, rows)
    if fields := structured_table(verdict):
        console.table("", *fields)
    console.heading(f"verdict: {verdict.name}")
    for sentence in verdict.why:
        console.line(f"  {sentence}")
    console.line()
    for name in _FILES:
        if run.file(name).exists():
            console.line(f"  {name.ljust(16)}{run.file(name).absolute()}")


def show_status(run: RunFolder) -> None:
    """Print each stage's state, and the command that goes on."""
    recipe = load_recipe(run.file("recipe.toml")) if run.file("recipe.toml").exists() else None
    rows = []
    for state in pipeline.states(run, recipe):
        told = pipeline.summary_line(state.summary) if state.summary else ""
        took = f"{state.duration_s:.1f} s" if state.summary else ""
        rows.append((state.stage.name, state.state, took, told if told and state.state == "fresh" else state.why))
    console.table(str(run.path), ("stage", "state", "took", "what"), rows)
    partial = sorted(run.file("checkpoints").glob("*/step-*"), key=lambda path: path.stat().st_mtime)
    if partial and any(row[0] == "train" and row[1] != "fresh" for row in rows):
        console.line(f"training can go on from checkpoint {partial[-1].parent.name}/{partial[-1].name}")
    if any(row[1] != "fresh" for row in rows):
        name = f"'{run.file('recipe.toml')}'" if recipe else "RECIPE"
        console.line(f"go on with: tunewright run {name} --dir '{run.path}'")
