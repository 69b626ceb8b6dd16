"""The commands: one short function each. Paths and verbs are flags; knobs live in the recipe."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from tunewright import __version__

_DIR_HELP = "Run folder (default: runs/RECIPE-NAME)."
_COMPARE_HELP = "Let another run's adapter (or an adapter's or a model's folder, or a hub name) sit the exam too."
_INTERRUPTED = 130

# OpenMP threads meet thousands of times per training step. Long spinning there makes a step thirty times slower as
# soon as another program wants a core; a short spin costs nothing. Read when torch is loaded, so set before.
_SPIN = ("GOMP_SPINCOUNT", "1000")

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
folder_option = click.option("--dir", "folder", type=click.Path(path_type=Path), help=_DIR_HELP)
set_option = click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a setting.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def commands() -> None:
    """Documents in, fine-tuned adapter and an honest verdict out: was the fine-tune worth it?

    \b
    Start here:
      tunewright demo                        the whole path on 24 abstracts, a few minutes without a GPU
      tunewright init DOCS -o recipe.toml    a recipe for your own documents
      tunewright run recipe.toml             documents to verdict; run it again to go on after any stop
    """  # noqa: D301 (click reads \b)


def _default_folder(recipe: Path, folder: Path | None) -> Path:
    return folder or Path("runs") / recipe.stem


def _run(
    recipe: Path, folder: Path | None, until: str, assignments: tuple[str, ...] = (), others: tuple[str, ...] = ()
) -> None:
    from tunewright import outcome, pipeline
    from tunewright.recipe import load_recipe

    run = pipeline.run(load_recipe(recipe, assignments).comparing(others), _default_folder(recipe, folder), until)
    outcome.show(run, until)


@commands.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=Path("demo"), help="Run folder.")
def demo(folder: Path) -> None:
    """Run the whole path on the examples: 24 open-access abstracts and the embedded model."""
    from tunewright import outcome, pipeline
    from tunewright.fitting import demo_recipe

    run = pipeline.run(demo_recipe(), folder)
    outcome.show(run, "report")


@commands.command()
@click.argument("documents", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "output", type=click.Path(path_type=Path), default=Path("recipe.toml"), help="Where to write it.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(documents: tuple[Path, ...], output: Path, force: bool) -> None:
    """Write an annotated recipe fitted to DOCUMENTS and to this machine."""
    from tunewright.fitting import write_recipe

    write_recipe(documents, output, force)


@commands.command("import-config")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "output", type=click.Path(path_type=Path), help="Where to write it (default: stdout).")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def import_config(file: Path, output: Path | None, force: bool) -> None:
    """Turn an Axolotl, LLaMA-Factory or Unsloth configuration into a recipe; list what has no counterpart."""
    from tunewright.elsewhere.import_config import import_config as write_imported

    write_imported(file, output, force)


@commands.command()
@recipe_argument
@folder_option
@set_option
@click.option("--prove", is_flag=True, help="Load the model and take real steps, for exact memory and time.")
def plan(recipe: Path, folder: Path | None, assignments: tuple[str, ...], prove: bool) -> None:
    """Say what each stage will do: calls, tokens, memory and time; and what is fresh."""
    from tunewright.planning import prove_plan, show_plan
    from tunewright.recipe import load_recipe

    show_plan(load_recipe(recipe, assignments), _default_folder(recipe, folder))
    if prove:
        prove_plan(load_recipe(recipe, assignments), _default_folder(recipe, folder))


@commands.command()
@recipe_argument
@folder_option
@set_option
@click.option("--print", "shown", is_flag=True, help="Write it to stdout.")
@click.option("-o", "output", type=click.Path(path_type=Path), help="Write it to this file.")
@click.option(
    "--for", "scheduler", type=click.Choice(["skypilot", "slurm", "notebook"]), default="skypilot", show_default=True
)
@click.option("--gpu", default="", metavar="NAME[:COUNT]", help="GPU to ask for (default: the smallest that will do).")
def launch(recipe: Path, folder: Path | None, shown: bool, output: Path | None, **asked: Any) -> None:
    """Write the file that runs RECIPE on a rented or a shared machine; nothing is started."""
    from tunewright.elsewhere import launch as elsewhere

    if shown == (output is not None):
        raise click.UsageError("launch starts nothing by itself. Add --print to see the file, or -o FILE to keep it.")
    elsewhere.launch(recipe, _default_folder(recipe, folder), output=output, **asked)


@commands.command()
@recipe_argument
@folder_option
@click.option("--until", default="report", metavar="STAGE", help="Last stage to run.")
@set_option
def run(recipe: Path, folder: Path | None, until: str, assignments: tuple[str, ...]) -> None:
    """Run every stage that is not fresh; after any stop, the same command goes on."""
    _run(recipe, folder, until, assignments)


def _stage_command(name: str, text: str) -> click.Command:
    def command(recipe: Path, folder: Path | None, assignments: tuple[str, ...]) -> None:
        _run(recipe, folder, name, assignments)

    return click.command(name, help=text)(recipe_argument(folder_option(set_option(command))))


for _name, _text in (
    ("ingest", "Read the documents and cut them into chunks."),
    ("synth", "Write and seal the exam, then the training samples."),
    ("curate", "Verify, deduplicate and decontaminate the training samples."),
    ("train", "Train the adapter."),
):
    commands.add_command(_stage_command(_name, _text))


@commands.command()
@recipe_argument
@folder_option
@set_option
@click.option("--compare", "others", multiple=True, metavar="RUN", help=_COMPARE_HELP)
def evaluate(recipe: Path, folder: Path | None, assignments: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Let every arm sit the exam and give the verdict."""
    _run(recipe, folder, "evaluate", assignments, others)


@commands.command()
@recipe_argument
@folder_option
@set_option
def curve(recipe: Path, folder: Path | None, assignments: tuple[str, ...]) -> None:
    """Train on 25 and 50 % of the data too, and say what twice the data would bring."""
    from tunewright.curving import draw_curve
    from tunewright.recipe import load_recipe

    draw_curve(load_recipe(recipe, assignments), _default_folder(recipe, folder))


@commands.command()
@folder_argument
def status(folder: Path) -> None:
    """Show what stands in a run folder, and what a stopped run does next."""
    from tunewright import outcome
    from tunewright.rundir import RunFolder

    outcome.show_status(RunFolder.open(folder))


@commands.command()
@folder_argument
def report(folder: Path) -> None:
    """Write report.html anew from a finished run, and print the verdict."""
    from tunewright import outcome
    from tunewright.rundir import RunFolder

    outcome.show_report(RunFolder.open(folder))


@commands.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
def table(folders: tuple[Path, ...]) -> None:
    """Put finished runs that sat the same exam side by side, such as one for each base model."""
    from tunewright.evaluation.standings import show_standings

    show_standings(folders)


@commands.command()
@folder_argument
@click.option("--export", type=click.Path(path_type=Path), help="Write it to this .csv or .jsonl, for you to edit.")
def exam(folder: Path, export: Path | None) -> None:
    """Show the exam of a run and check its seal; exported and edited, it goes into a recipe as exam.file."""
    from tunewright.evaluation import exam_view
    from tunewright.rundir import RunFolder

    opened = RunFolder.open(folder)
    if export is None:
        exam_view.show_exam(opened)
        return
    exam_view.export_exam(opened, export)
    exam_view.check_exam(opened)


@commands.command()
@folder_argument
def inspect(folder: Path) -> None:
    """Say what the training data holds: funnel, refusals, diversity, coverage; the whole in data.html."""
    from tunewright.evaluation.data_report import inspect_run
    from tunewright.rundir import RunFolder

    inspect_run(RunFolder.open(folder))


@commands.command()
@folder_argument
@click.argument("identifier", metavar="ID")
def trace(folder: Path, identifier: str) -> None:
    """Follow an ID (document, chunk, sample or question; a prefix will do) to its sources and its uses."""
    from tunewright.rundir import RunFolder
    from tunewright.tracing import show_trace

    show_trace(RunFolder.open(folder), identifier)


@commands.command()
@folder_argument
@click.option("--base", is_flag=True, help="Talk to the base model.")
@click.option("--side-by-side", is_flag=True, help="Get each answer from base and tuned.")
@click.option("--prompt", help="Ask this one question and leave.")
def chat(folder: Path, base: bool, side_by_side: bool, prompt: str | None) -> None:
    """Talk to the tuned model; answers are streamed, and /help lists what else can be typed."""
    from tunewright.chatting.loop import converse
    from tunewright.rundir import RunFolder

    if base and side_by_side:
        raise click.UsageError("--base and --side-by-side exclude each other. Choose one.")
    voices = ("base", "tuned") if side_by_side else ("base",) if base else ("tuned",)
    converse(RunFolder.open(folder), voices, prompt)


@commands.command()
@folder_argument
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Most items of each task (default: all).")
@click.option("--shots", type=click.IntRange(0, 32), default=0, show_default=True, help="Worked examples before each.")
def benchmark(folder: Path, tasks: tuple[str, ...], limit: int, shots: int) -> None:
    """Let base and tuned play TASKs: lm-eval's by name, your .jsonl or .yaml files, or agent-database."""
    from tunewright.benchmarking.play import benchmark as play
    from tunewright.benchmarking.tasks import Extent
    from tunewright.rundir import RunFolder

    play(RunFolder.open(folder), tasks, Extent(limit, shots))


@commands.command()
@folder_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Any but the loopback needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option(
    "--dtype",
    type=click.Choice(["q8_0", "f16", "f32"]),
    default="q8_0",
    show_default=True,
    help="Of the GGUF, where llama.cpp serves.",
)
def serve(folder: Path, host: str, port: int, dtype: str) -> None:
    """Serve the tuned model to OpenAI's clients, once a canary has shown that it is the tuned one."""
    from tunewright.rundir import RunFolder
    from tunewright.serving import serve as serving

    serving.serve(RunFolder.open(folder), host, port, dtype)


@commands.command()
@folder_argument
@click.option("--to", "target", required=True, metavar="TARGET", help="adapter, or merged.")
@click.option("--dtype", default="", metavar="TYPE", help="Type of the weights (merged: bf16, fp16, fp32).")
@click.option(
    "--base",
    type=click.Choice(["trained", "original"]),
    default="trained",
    show_default=True,
    help="The base as training saw it, or the unquantized one.",
)
@click.option("-o", "output", type=click.Path(path_type=Path), help="Folder to write (default: DIR/exports/TARGET).")
def export(folder: Path, target: str, dtype: str, base: Any, output: Path | None) -> None:
    """Export the tuned model, with a certificate that it is what was examined."""
    from tunewright.export.certificate import show
    from tunewright.export.stage import export as write
    from tunewright.rundir import RunFolder

    show(write(RunFolder.open(folder), target, output, dtype, base))


@commands.command()
@click.argument("folder", metavar="EXPORT", type=click.Path(path_type=Path))
def verify(folder: Path) -> None:
    """Check that every file of an export is as it was written."""
    from tunewright import console
    from tunewright.export.receipt import verify as check

    console.line(f"{len(check(folder)['files'])} files of {folder} are as they were exported")


@commands.command()
@click.argument("receipt", metavar="RECEIPT", type=click.Path(path_type=Path))
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Run folder with the recipe and the data.")
def replay(receipt: Path, folder: Path | None) -> None:
    """Train again what RECEIPT names (an export, or its receipt.json), and compare the adapters."""
    from tunewright.replaying import replay as train_again

    train_again(receipt, folder)


@commands.command()
@folder_argument
@click.argument("files", metavar="[--read FILE...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--arms", nargs=2, default=("base", "tuned"), show_default=True, metavar="A B", help="The two to compare."
)
@click.option("--read", is_flag=True, help="Unseal the marks in FILE...: downloads of the page, or comparison.csv.")
def mark(folder: Path, files: tuple[Path, ...], arms: tuple[str, str], read: bool) -> None:
    """Write a page for marking answers blind, by keyboard and offline; then read the marks back."""
    from tunewright import pipeline
    from tunewright.evaluation import marking
    from tunewright.rundir import RunFolder

    if read != bool(files):
        raise click.UsageError("--read and FILE... go together. Name the files of marks after --read.")
    opened = RunFolder.open(folder)
    pipeline.require(opened, "exam.jsonl", "answers.jsonl", "scores.jsonl")
    if read:
        marking.read_marks(opened, files, arms)
    else:
        marking.write_page(opened, arms)


@commands.command()
@folder_argument
@click.argument("repo", metavar="REPO")
@click.option("--to", "target", default="adapter", show_default=True, help="The adapter, or an export in DIR/exports.")
@click.option("--yes", is_flag=True, help="Send it; without this, everything is only shown.")
@click.option("--private/--public", default=True, show_default=True, help="Who may read it.")
@click.option("--with-data", is_flag=True, help="Push the training set too, to REPO-data.")
def push(folder: Path, repo: str, target: str, yes: bool, private: bool, with_data: bool) -> None:
    """Put the tuned model on the hub as REPO (OWNER/NAME), with a card of what the exam said."""
    from tunewright.publishing import push as push_run
    from tunewright.rundir import RunFolder

    push_run(RunFolder.open(folder), repo, target, yes, not private, with_data)


@commands.command("verify-the-verifier")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--judge", "recipe", type=click.Path(path_type=Path), help="Measure the teacher of this recipe as a judge."
)
def verify_the_verifier(folder: Path | None, recipe: Path | None) -> None:
    """Measure how well false samples are found: on a labelled set, and on DIR's own samples."""
    from tunewright.curation import verifier

    verifier.verify_the_verifier(folder, recipe, _default_folder(recipe or Path("verifier"), None))


@commands.command()
@click.option("--fetch", is_flag=True, help="Fetch the embedded model as well.")
def doctor(fetch: bool) -> None:
    """Check Python, torch, GPU, bitsandbytes (a real quantized step), disk and model cache."""
    from tunewright.doctor import examine

    examine(fetch)


def _stop(error: BaseException) -> int:
    """Print an error; return its exit code."""
    from tunewright import console
    from tunewright.errors import TunewrightError
    from tunewright.secrecy import without_secrets

    if isinstance(error, KeyboardInterrupt):
        console.line("\ninterrupted; what was done is kept: the same command goes on from here")
        return _INTERRUPTED
    if os.environ.get("TUNEWRIGHT_TRACEBACK"):
        import traceback

        click.echo(without_secrets("".join(traceback.format_exception(error))), err=True, nl=False)
    if isinstance(error, TunewrightError):
        console.error(error)
        return error.exit_code
    console.error(
        TunewrightError(
            f"unexpected {type(error).__name__}: {error}",
            "this is a defect in tunewright; what was done is kept",
            "see where it happened: TUNEWRIGHT_TRACEBACK=1 " + " ".join(["tunewright", *sys.argv[1:]]),
        )
    )
    return 3


def main(arguments: list[str] | None = None) -> Any:
    """Run a command; the exit code is 0 done, 1 a user's error, 2 usage, 3 a failed stage, 130 interrupted."""
    os.environ.setdefault(*_SPIN)
    try:
        commands.main(args=arguments, prog_name="tunewright", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (Exception, KeyboardInterrupt, click.Abort) as error:
        sys.exit(_stop(KeyboardInterrupt() if isinstance(error, click.Abort) else error))
    sys.exit(0)
