"""Documents in, fine-tuned adapter and an honest verdict out: was the fine-tune worth it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewright.environment import __version__ as __version__

if TYPE_CHECKING:
    from tunewright.pipeline import run
    from tunewright.recipe import Recipe, load_recipe
    from tunewright.run_folder import RunFolder

__all__ = ["Recipe", "RunFolder", "load_recipe", "open_run", "run"]

_HOMES = {
    "Recipe": "tunewright.recipe",
    "RunFolder": "tunewright.run_folder",
    "load_recipe": "tunewright.recipe",
    "run": "tunewright.pipeline",
}


def open_run(path: str) -> RunFolder:
    """Open a finished or unfinished run folder for reading."""
    from pathlib import Path

    from tunewright.run_folder import RunFolder

    return RunFolder.open(Path(path))


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that ``import tunewright`` stays light."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tunewright' has no attribute {name!r}")
