"""The body of the command inspect: it writes data.html and prints its short form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright import console
from tunewright.commands.json_documents import InspectDocument, RejectedCount, TaskCount
from tunewright.errors import RunFolderError, command
from tunewright.html.render import count
from tunewright.recipe import Recipe, load_recipe
from tunewright.reporting.data_report import data_page, data_view, funnel_rows, measure_rows
from tunewright.reporting.stage import read_data, read_stages
from tunewright.run_folder import RunFile, RunFolder


def inspect_run(run: RunFolder) -> None:
    """Write data.html and print its short form.

    Raises:
        RunFolderError: there are no samples yet, or a file is damaged.
    """
    view = _write_page(run)
    _print_funnel(view)
    state = "kept" if view["curated"] else "written"
    console.table(f"of the {count(view['num_samples'])} samples {state}", ("measure", "value"), measure_rows(view))
    for text in view["missing"]:
        console.line(f"not shown: {text}")
    console.line(f"the full data report: {run.file(RunFile.DATA_REPORT).absolute()}")


def inspect_document(run: RunFolder) -> InspectDocument:
    """Write data.html; return its short form for programs.

    Raises:
        RunFolderError: there are no samples yet, or a file is damaged.
    """
    view = _write_page(run)
    return InspectDocument(
        folder=str(run.path),
        curated=view["curated"],
        num_samples=view["num_samples"],
        tasks=tuple(
            TaskCount(
                task=row.task,
                tried=row.tried,
                rejected=sum(row.rejected.values()),
                kept=row.kept,
                unaccounted=row.unaccounted,
            )
            for row in view["funnel"]
        ),
        rejected=tuple(RejectedCount(reason=reason, stage=stage, samples=num) for (stage, reason), num in _drops(view)),
        measures={name: value for name, value in measure_rows(view)},
        not_shown=tuple(view["missing"]),
        data_report=str(run.file(RunFile.DATA_REPORT).absolute()),
    )


def _write_page(run: RunFolder) -> dict[str, Any]:
    """Write data.html; return its view."""
    recipe_file = run.file(RunFile.RECIPE)
    data = read_data(run, read_stages(run))
    view = data_view(data, load_recipe(recipe_file) if recipe_file.is_file() else Recipe())
    if view is None:
        raise RunFolderError(
            f"{run.path} has no samples yet",
            "neither samples.jsonl nor train.jsonl holds any",
            f"write some: {command('run', 'RECIPE', '--dir', run.path, '--until', 'synth')}",
        )
    run.write(RunFile.DATA_REPORT, data_page(data.title, view))
    run.note()
    return view


def _drops(view: Mapping[str, Any]) -> list[tuple[tuple[str, str], int]]:
    """Return ((stage, reason), samples), the most frequent first."""
    return sorted(view["total"].rejected.items(), key=lambda item: (-item[1], item[0]))


def _print_funnel(view: Mapping[str, Any]) -> None:
    console.table("samples by task", ("task", "tried", "rejected", "kept", "yield"), funnel_rows(view))
    if drops := _drops(view):
        rows = [[reason, stage, count(num)] for (stage, reason), num in drops]
        console.table("rejected", ("reason", "stage", "samples"), rows)
    for row in view["funnel"]:
        if row.unaccounted:
            console.warning(f"{row.task}: {row.unaccounted} samples unaccounted for; are the files of different runs?")
