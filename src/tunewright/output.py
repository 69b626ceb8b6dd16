"""A text for the place that the user named with ``-o``."""

from __future__ import annotations

from pathlib import Path

from tunewright.durable import write_atomic
from tunewright.errors import RecipeError, shell


def write_output(path: Path, text: str, force: bool) -> None:
    """Write a whole text, and over a file that stands there only with ``force``.

    Raises:
        RecipeError: a folder or, without ``force``, a file is there already; or it cannot be written.
        DiskFullError: no space; what stood there stands.
    """
    if path.is_dir():
        raise RecipeError(f"{path} is a folder", "", f"name a file in it: {shell('-o', path / 'NAME')}")
    if path.exists() and not force:
        raise RecipeError(f"{path} exists", "it may hold your changes", "choose another name with -o, or add --force")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except OSError as error:
        raise RecipeError(f"cannot write {path}", str(error), "name another place with -o") from error
