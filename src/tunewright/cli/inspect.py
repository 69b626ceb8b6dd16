"""The commands that inspect a run, and this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunewright.cli.options import allow_key_option, folder_argument, json_option, set_option, write_document


@click.command()
@folder_argument
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Show the state of each stage of a run, and the command that continues it."""
    from tunewright.commands import status
    from tunewright.run_folder import RunFolder

    if as_json:
        write_document(lambda: status.status_document(RunFolder.open(folder)))
    else:
        status.show_status(RunFolder.open(folder))


@click.command()
@folder_argument
@json_option
def report(folder: Path, as_json: bool) -> None:
    """Rewrite report.html from a finished run, and print the verdict."""
    from tunewright.commands import status
    from tunewright.run_folder import RunFolder

    if as_json:
        write_document(lambda: status.report_document(RunFolder.open(folder)))
    else:
        status.show_report(RunFolder.open(folder))


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def compare(folders: tuple[Path, ...], as_json: bool) -> None:
    """Compare finished runs with the same exam, such as one for each base model."""
    from tunewright.commands.compare import compare_document, compare_runs

    if as_json:
        write_document(lambda: compare_document(folders))
    else:
        compare_runs(folders)


@click.command()
@folder_argument
@click.option("--export", type=click.Path(path_type=Path), help="Write it to this .csv or .jsonl, for you to edit.")
@json_option
def exam(folder: Path, export: Path | None, as_json: bool) -> None:
    """Show a run's exam and check its seal; an exported and edited exam goes into a recipe as exam.file."""
    from tunewright.commands import exam
    from tunewright.run_folder import RunFolder

    if as_json and export:
        raise click.UsageError("--json and --export are two forms of the exam. Choose one.")
    if as_json:
        write_document(lambda: exam.exam_document(RunFolder.open(folder)))
        return
    opened = RunFolder.open(folder)
    if export is None:
        exam.show_exam(opened)
        return
    exam.export_exam(opened, export)
    exam.check_exam(opened)


@click.command()
@folder_argument
@click.option("--reject", metavar="ID", help="Keep this sample out of the training set.")
@click.option("--approve", metavar="ID", help="Take this sample in, whatever the quality rules say.")
@click.option("--answer", nargs=2, metavar="ID TEXT", help="Give this sample another answer.")
@click.option("--question", nargs=2, metavar="ID TEXT", help="Give this sample another question.")
@click.option("--undo", metavar="ID", help="Take back the last edit of this sample.")
@click.option("--note", default="", help="Why, for the record.")
@json_option
def inspect(folder: Path, as_json: bool, note: str, **edits: Any) -> None:
    """Summarize the training data: funnel, refusals, coverage; or edit a single sample, which the next run applies."""
    from tunewright.commands.inspect import edit_sample, inspect_document, inspect_run
    from tunewright.curation.edits import ACTIONS
    from tunewright.run_folder import RunFolder

    wanted = {name: value for name, value in edits.items() if value}
    if len(wanted) > 1 or (wanted and as_json):
        raise click.UsageError("Make one edit at a time, without --json.")
    if as_json:
        write_document(lambda: inspect_document(RunFolder.open(folder)))
        return
    run = RunFolder.open(folder)
    if not wanted:
        inspect_run(run)
    for name, value in wanted.items():
        if name in ("answer", "question"):
            edit_sample(run, "edit", value[0], **{name: value[1]}, note=note)
        else:
            edit_sample(run, ACTIONS[name], value, note=note)


@click.command()
@folder_argument
@click.argument("identifier", metavar="ID")
def trace(folder: Path, identifier: str) -> None:
    """Follow an ID (document, chunk, sample or question, or a prefix of one) to its sources and its uses."""
    from tunewright.commands.trace import show_trace
    from tunewright.run_folder import RunFolder

    show_trace(RunFolder.open(folder), identifier)


@click.command()
@folder_argument
@click.argument("files", metavar="[--read FILE...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--arms",
    nargs=2,
    default=("base", "tuned"),
    show_default=True,
    metavar="A B",
    help="The two to compare.",
)
@click.option("--read", is_flag=True, help="Unseal the marks in FILE...: downloads of the page, or comparison.csv.")
@click.option("--serve", is_flag=True, help="Also serve the page on this machine, until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of --serve (default: a free one).")
def mark(folder: Path, files: tuple[Path, ...], arms: tuple[str, str], read: bool, serve: bool, port: int) -> None:
    """Write a page for blind marking of answers, by keyboard and offline; then read the marks back."""
    from tunewright import pipeline
    from tunewright.commands import mark
    from tunewright.run_folder import RunFile, RunFolder

    if read != bool(files):
        raise click.UsageError("--read and FILE... go together. Name the files of marks after --read.")
    opened = RunFolder.open(folder)
    pipeline.require(opened, RunFile.EXAM, RunFile.ANSWERS, RunFile.SCORES)
    if read:
        mark.read_marks(opened, files, arms)
        return
    mark.write_page(opened, arms)
    if serve:
        mark.serve_page(opened, arms, port)


@click.command()
@folder_argument
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Most items of each task (default: all).")
@click.option("--shots", type=click.IntRange(0, 32), help="Worked examples before each (default: as the task says).")
def benchmark(folder: Path, tasks: tuple[str, ...], limit: int, shots: int | None) -> None:
    """Run TASKs on base and tuned: lm-eval's by name, your .jsonl or .yaml files, or agent-database."""
    from tunewright.commands.benchmark import benchmark as play
    from tunewright.public_benchmarks.tasks import Extent
    from tunewright.run_folder import RunFolder

    play(RunFolder.open(folder), tasks, Extent(limit, shots))


@click.command()
@click.option("--fetch", is_flag=True, help="Fetch the embedded model as well.")
@click.option(
    "--teacher",
    "recipe",
    metavar="RECIPE",
    type=click.Path(path_type=Path),
    help="Check a recipe's teacher and judge instead: one cheap call of each form.",
)
@set_option
@allow_key_option
@json_option
def doctor(fetch: bool, recipe: Path | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Check Python, torch, GPU, bitsandbytes (a real quantized step), disk and model cache."""
    from tunewright.commands import doctor
    from tunewright.recipe import load_recipe

    if as_json:
        checks = doctor.teacher_checks(load_recipe(recipe, assignments)) if recipe else doctor.machine_checks(fetch)
        if not write_document(lambda: doctor.doctor_document(checks))["passed"]:
            click.get_current_context().exit(1)
    elif recipe:
        doctor.examine_teacher(load_recipe(recipe, assignments))
    else:
        doctor.examine(fetch)


COMMANDS = (
    status,
    report,
    compare,
    exam,
    inspect,
    trace,
    mark,
    benchmark,
    doctor,
)
