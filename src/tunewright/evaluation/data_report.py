"""The data report: data.html, and its short form for the terminal."""

from __future__ import annotations

from typing import Any

from tunewright import __version__, console
from tunewright.errors import RunFolderError, command
from tunewright.evaluation.data_view import data_view
from tunewright.evaluation.page import count, render, share
from tunewright.evaluation.wording import number
from tunewright.recipe import Recipe, load_recipe
from tunewright.rundir import RunFolder

PAGE = "data.html"


def write_page(run: RunFolder, view: dict[str, Any] | None) -> None:
    """Write data.html; of a run without samples it says just that."""
    empty = {"title": run.path.resolve().name, "version": __version__, "num_samples": 0}
    run.write(PAGE, render(PAGE, view or empty))


def _funnel_rows(view: dict[str, Any]) -> list[list[str]]:
    rows = []
    for row in [*view["funnel"], view["total"]]:
        left = "–" if row.kept is None else count(row.kept)
        rejected = count(sum(row.rejected.values()))
        yielded = "–" if row.share is None else f"{row.share:.1%}"
        rows.append([row.task, count(row.tried), rejected, left, yielded])
    return rows


def _print_funnel(view: dict[str, Any]) -> None:
    console.table("samples by task", ("task", "tried", "rejected", "kept", "yield"), _funnel_rows(view))
    drops = sorted(view["total"].rejected.items(), key=lambda item: (-item[1], item[0]))
    if drops:
        rows = [[reason, stage, count(num)] for (stage, reason), num in drops]
        console.table("rejected", ("reason", "stage", "samples"), rows)
    for row in view["funnel"]:
        if row.unaccounted:
            console.warning(f"{row.task}: {row.unaccounted} samples unaccounted for; are the files of different runs?")


def measure_rows(view: dict[str, Any]) -> list[list[str]]:
    """Return (measure, value) rows: refusals, diversity, duplicates, coverage, leaks."""
    rows = [
        [name, f"{count(part)} of {count(whole)} ({share(part, whole)})"] for name, whole, part in view["refusals"].rows
    ]
    for name, found in view["diversity"]:
        rows += [
            [f"{name}: compression ratio", number(found.compression)],
            [f"{name}: distinct-1, -2, -3", ", ".join(number(value) for value in found.distinct)],
            [f"{name}: Vendi score", f"{number(found.vendi, 1)} of {count(found.num_vendi)} texts"],
            [f"{name}: runs of 4 words met elsewhere", share(found.repetition or 0.0, 1)],
        ]
    rows += [[f"dropped: {reason}", count(num)] for reason, num in sorted(view["duplicates"]["reasons"].items())]
    rows.append(["near duplicates left", share(view["duplicates"]["duplication"] or 0.0, 1)])
    if view["coverage"]:
        found = view["coverage"]
        told = f"{count(found['num_reached'])} of {count(found['num'])} ({share(found['num_reached'], found['num'])})"
        rows.append(["source sentences reached", told])
        rows.append(
            ["sections that no question reaches", f"{count(found['num_bare'])} of {count(found['num_sections'])}"]
        )
    if view["teacher"]:
        rows += [[f"teacher, per sample: {name}", number(v)] for name, v in view["teacher"]["per_sample"].items()]
    return rows + [[f"{stage}: {name.replace('_', ' ')}", str(v)] for stage, name, v in view["leaks"] + view["gains"]]


def inspect_run(run: RunFolder) -> None:
    """Write data.html and print its short form.

    Raises:
        RunFolderError: there are no samples yet, or a file is damaged.
    """
    recipe_file = run.file("recipe.toml")
    view = data_view(run, load_recipe(recipe_file) if recipe_file.is_file() else Recipe())
    if view is None:
        raise RunFolderError(
            f"{run.path} has no samples yet",
            "neither samples.jsonl nor train.jsonl holds any",
            f"write some: {command('synth', 'RECIPE', '--dir', run.path)}",
        )
    write_page(run, view)
    _print_funnel(view)
    of = "kept" if view["curated"] else "written"
    console.table(f"of the {count(view['num_samples'])} samples {of}", ("measure", "value"), measure_rows(view))
    for text in view["missing"]:
        console.line(f"not told: {text}")
    console.line(f"the whole data report: {run.file(PAGE).absolute()}")
