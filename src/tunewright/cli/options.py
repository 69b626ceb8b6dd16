"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tunewright.commands.json_documents import JsonPart

DIR_HELP = "Run folder (default: runs/RECIPE-NAME)."

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
folder_option = click.option("--dir", "folder", type=click.Path(path_type=Path), help=DIR_HELP)
set_option = click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a setting.")


json_option = click.option("--json", "as_json", is_flag=True, help="Write a JSON document to stdout instead.")


def write_document(build: Callable[[], JsonPart]) -> dict[str, Any]:
    """Write the document that a function returns to stdout, which holds nothing else; return its content."""
    from tunewright import console
    from tunewright.commands.json_documents import content

    with console.reserved_stdout():
        document = content(build())
    console.document(document)
    return document


def default_folder(recipe: Path, folder: Path | None) -> Path:
    """Return the run folder that was named, or the recipe's own."""
    return folder or Path("runs") / recipe.stem


def _allow(context: click.Context, option: click.Parameter, bindings: tuple[str, ...]) -> None:
    from tunewright.teacher.keys import allow

    for binding in bindings:
        allow(binding)


allow_key_option = click.option(
    "--allow-key",
    multiple=True,
    metavar="NAME@ORIGIN",
    callback=_allow,
    expose_value=False,
    help="Let a key go to a server; remembered.",
)
