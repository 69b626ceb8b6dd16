"""The commands that build a run: recipe, plan, stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunewright.cli.options import (
    allow_key_option,
    default_folder,
    folder_option,
    json_option,
    recipe_argument,
    set_option,
    write_document,
)

_COMPARE_HELP = "Also evaluate another run's adapter, an adapter's or a model's folder, or a hub name."


def _run(
    recipe: Path, folder: Path | None, until: str, assignments: tuple[str, ...] = (), others: tuple[str, ...] = ()
) -> None:
    from tunewright import pipeline
    from tunewright.commands import status
    from tunewright.recipe import load_recipe

    run = pipeline.run(load_recipe(recipe, assignments).comparing(others), default_folder(recipe, folder), until)
    status.show(run, until)


@click.command()
@click.argument("name", type=click.Choice(["triage", "papers"]), default="triage")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Run folder (default: demo, demo-papers).")
def demo(name: str, folder: Path | None) -> None:
    """Run a demo: triage (labeled reports to JSON, five minutes) or papers (24 abstracts, longer)."""
    from tunewright import pipeline
    from tunewright.commands import status
    from tunewright.commands.init import DEMOS

    default = Path("demo" if name == "triage" else f"demo-{name}")
    status.show(pipeline.run(DEMOS[name](), folder or default), "report")


@click.command()
@click.argument("documents", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "output", type=click.Path(path_type=Path), default=Path("recipe.toml"), help="Where to write it.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--full", is_flag=True, help="Write every setting, not only the ten that matter first.")
@click.option("--exam", type=click.Path(path_type=Path), help="Your own exam; without it, one is written or held out.")
def init(documents: tuple[Path, ...], output: Path, force: bool, full: bool, exam: Path | None) -> None:
    """Write an annotated recipe fitted to DOCUMENTS (texts, or files of chats) and to this machine."""
    from tunewright.commands.init import write_recipe

    write_recipe(documents, output, force, full, exam)


@click.command("import-config")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "output", type=click.Path(path_type=Path), help="Where to write it (default: stdout).")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def import_config(file: Path, output: Path | None, force: bool) -> None:
    """Turn an Axolotl, LLaMA-Factory or Unsloth configuration into a recipe; list what has no counterpart."""
    from tunewright.importers.import_config import import_config as write_imported

    write_imported(file, output, force)


@click.command()
@recipe_argument
@folder_option
@set_option
@allow_key_option
@click.option("--prove", is_flag=True, help="Load the model and take real steps, for exact memory and time.")
@json_option
def plan(recipe: Path, folder: Path | None, assignments: tuple[str, ...], prove: bool, as_json: bool) -> None:
    """Show what each stage will do: calls, tokens, memory and time; and what is fresh."""
    from tunewright.commands.plan import plan_document, prove_plan, show_plan
    from tunewright.recipe import load_recipe

    if as_json:
        write_document(lambda: plan_document(load_recipe(recipe, assignments), default_folder(recipe, folder), prove))
        return
    show_plan(load_recipe(recipe, assignments), default_folder(recipe, folder))
    if prove:
        prove_plan(load_recipe(recipe, assignments), default_folder(recipe, folder))


@click.command()
@recipe_argument
@folder_option
@set_option
@allow_key_option
@json_option
def preview(recipe: Path, folder: Path | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Answer questions beside the exam without any training: what can a fine-tune bring at most?"""
    from tunewright.commands import preview
    from tunewright.recipe import load_recipe

    loaded, chosen = load_recipe(recipe, assignments), default_folder(recipe, folder)
    if as_json:
        write_document(lambda: preview.preview_document(loaded, chosen))
    else:
        preview.preview(loaded, chosen)


@click.command()
@recipe_argument
@folder_option
@set_option
@allow_key_option
@click.option("--print", "shown", is_flag=True, help="Write it to stdout.")
@click.option("-o", "output", type=click.Path(path_type=Path), help="Write it to this file.")
@click.option(
    "--for", "scheduler", type=click.Choice(["skypilot", "slurm", "notebook"]), default="skypilot", show_default=True
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--gpu", default="", metavar="NAME[:COUNT]", help="GPU to request (default: the smallest that suffices).")
@click.option("--image", default="", metavar="NAME", help="Container image with tunewright to run in.")
def launch(recipe: Path, folder: Path | None, shown: bool, output: Path | None, **options: Any) -> None:
    """Write a file that runs RECIPE on a rented or shared machine; nothing is started."""
    from tunewright.launchers import launch as launcher

    if shown == (output is not None):
        raise click.UsageError("launch starts nothing by itself. Add --print to see the file, or -o FILE to keep it.")
    launcher.launch(recipe, default_folder(recipe, folder), output=output, **options)


@click.command()
@recipe_argument
@folder_option
@click.option("--until", default="report", metavar="STAGE", help="Last stage to run: ingest, exam, synth, curate ...")
@set_option
@allow_key_option
def run(recipe: Path, folder: Path | None, until: str, assignments: tuple[str, ...]) -> None:
    """Run every stage that is not fresh; after any stop, the same command continues."""
    _run(recipe, folder, until, assignments)


@click.command()
@recipe_argument
@folder_option
@set_option
@allow_key_option
def train(recipe: Path, folder: Path | None, assignments: tuple[str, ...]) -> None:
    """Run up to the trained adapter."""
    _run(recipe, folder, "train", assignments)


@click.command()
@recipe_argument
@folder_option
@set_option
@allow_key_option
@click.option("--compare", "others", multiple=True, metavar="RUN", help=_COMPARE_HELP)
def evaluate(recipe: Path, folder: Path | None, assignments: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Run up to the verdict: every arm answers the exam."""
    _run(recipe, folder, "evaluate", assignments, others)


@click.command()
@recipe_argument
@folder_option
@set_option
@allow_key_option
def curve(recipe: Path, folder: Path | None, assignments: tuple[str, ...]) -> None:
    """Also train on 25 and 50 % of the data, and estimate what twice the data would bring."""
    from tunewright.commands.learning_curve import draw_curve
    from tunewright.recipe import load_recipe

    draw_curve(load_recipe(recipe, assignments), default_folder(recipe, folder))


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@allow_key_option
def improve(run_folder: Path) -> None:
    """Ask about what a finished run answers wrongly or never reaches, and train on; the exam is answered at the end."""
    from tunewright.commands.improve import improve as improve_run

    improve_run(run_folder)


COMMANDS = (
    demo,
    init,
    import_config,
    plan,
    preview,
    run,
    train,
    evaluate,
    curve,
    improve,
    launch,
)
