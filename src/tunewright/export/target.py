"""What an export target is: how it is written, how it is run again, and how much room it needs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunewright.export.runners import Runner
from tunewright.recipe import Recipe
from tunewright.rundir import RunFolder

Base = Literal["trained", "original"]  # the base as training saw it (quantized), or as its files have it

Write = Callable[[RunFolder, Recipe, Path, str, Base], None]  # (run, recipe, folder, dtype, base)
OpenRunner = Callable[[RunFolder, Recipe, Path, str, Base], AbstractContextManager[Runner]]


@dataclass(frozen=True)
class Target:
    """A format to export to.

    Attributes:
        write: fills an empty folder with the artifact.
        runner: opens the written folder the way other programs do, to be compared with the examined model.
        num_bytes: about how much disk the artifact and what is written on the way to it take together.
        dtypes: the types of number that it can be written in, the default first; empty where there is no choice.
    """

    write: Write
    runner: OpenRunner
    num_bytes: Callable[[RunFolder, Recipe, str], int]
    dtypes: tuple[str, ...] = ()
