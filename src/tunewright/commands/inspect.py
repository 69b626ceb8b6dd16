"""The body of the command inspect: it writes data.html and prints its short form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright import console
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
    _print_funnel(view)
    state = "kept" if view["curated"] else "written"
    console.table(f"of the {count(view['num_samples'])} samples {state}", ("measure", "value"), measure_rows(view))
    for text in view["missing"]:
        console.line(f"not shown: {text}")
    console.line(f"the full data report: {run.file(RunFile.DATA_REPORT).absolute()}")


def _print_funnel(view: Mapping[str, Any]) -> None:
    console.table("samples by task", ("task", "tried", "rejected", "kept", "yield"), funnel_rows(view))
    drops = sorted(view["total"].rejected.items(), key=lambda item: (-item[1], item[0]))
    if drops:
        rows = [[reason, stage, count(num)] for (stage, reason), num in drops]
        console.table("rejected", ("reason", "stage", "samples"), rows)
    for row in view["funnel"]:
        if row.unaccounted:
            console.warning(f"{row.task}: {row.unaccounted} samples unaccounted for; are the files of different runs?")
