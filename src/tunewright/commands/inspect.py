"""The body of the command inspect: it writes data.html and prints its short form, or edits a single sample."""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping
from typing import Any

from tunewright import console
from tunewright.commands.json_documents import InspectDocument, RejectedCount, TaskCount
from tunewright.curation.edits import Action, decisions, new_edit, read_edits
from tunewright.errors import RunFolderError, UserError, command, is_text
from tunewright.html.render import count
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Rejection, Sample
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


def edit_sample(
    run: RunFolder,
    action: Action,
    identifier: str,
    question: str | None = None,
    answer: str | None = None,
    note: str = "",
) -> None:
    """Append an edit to edits.jsonl, which the next ``run`` applies; the files of the run stay as they are.

    Args:
        run: a run folder with samples.
        action: "undo" takes back the last edit of the sample.
        identifier: of the sample, or its first characters.
        question: of "edit", its new text; None: unchanged.
        answer: of "edit", its new text; None: unchanged.
        note: why.

    Raises:
        RunFolderError: no sample, or more than one, has this identifier; or there is nothing to undo.
        UserError: a text is not UTF-8.
    """
    if not all(map(is_text, filter(None, (question, answer, note)))):
        raise UserError(
            "the text of the edit has bytes that are no text", "it is not UTF-8", "set your terminal to UTF-8"
        )
    sample = _sample_named(run, identifier)
    made = decisions(read_edits(run.journal_entries(RunFile.EDITS)))
    subject = sample
    if action == "undo":
        if sample not in made:
            raise RunFolderError(
                f"no edit of sample {sample} is in force", "", "see the samples: tunewright inspect DIR"
            )
        subject = made[sample].last.id
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    edit = new_edit(action, subject, getpass.getuser(), now, question, answer, note)
    run.journal(RunFile.EDITS).append(edit.model_dump(exclude_defaults=True))
    after = decisions(read_edits(run.journal_entries(RunFile.EDITS))).get(sample)
    console.line(f"sample {sample}: {after.state if after else 'as it was written'}")
    console.line(f"apply it: {run.again() if run.file(RunFile.RECIPE).exists() else command('run', 'RECIPE')}")


def _sample_named(run: RunFolder, identifier: str) -> str:
    written = [*run.records_if_any(RunFile.SAMPLES, Sample), *run.records_if_any(RunFile.TRAIN, Sample)]
    rejected = [r.id for r in run.records_if_any(RunFile.REJECTED, Rejection) if r.stage == "curate"]
    known = dict.fromkeys([*(sample.id for sample in written), *rejected])
    matches = [identifier] if identifier in known else [name for name in known if name.startswith(identifier)]
    if len(matches) != 1:
        raise RunFolderError(
            f"{len(matches) or 'no'} samples have an identifier that starts with {identifier!r}",
            ", ".join(matches[:5]),
            f"use an identifier from {run.file(RunFile.SAMPLES)} or {run.file(RunFile.TRAIN)}",
        )
    return matches[0]
