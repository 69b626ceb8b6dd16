"""Faults of the disk below a folder, in this process: it fills up, it is read-only, or the process is gone."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FIRST, _BOTH = ("mkdir", "unlink", "rmdir", "truncate", "chmod"), ("rename", "replace", "link", "symlink")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Crash(BaseException):
    """Stands for a kill: no handler of the program catches it, and nothing is written after it."""


def _inside(folder: Path, path: object) -> bool:
    try:
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        return Path(os.fsdecode(path)).absolute().is_relative_to(folder)  # type: ignore[arg-type]
    except (OSError, TypeError, ValueError):
        return False


@contextmanager
def watched(folder: Path, before: Callable[[str, object], None]) -> Iterator[None]:
    """Call ``before(operation, path)`` ahead of each operation that changes something below a folder."""
    originals: list[tuple[Any, str, Any]] = []

    def patch(module: Any, name: str, positions: tuple[int, ...], is_change: Callable[..., bool]) -> None:
        original = getattr(module, name)
        originals.append((module, name, original))

        def operation(*arguments: Any, **named: Any) -> Any:
            changed = [arguments[at] for at in positions if at < len(arguments) and _inside(folder, arguments[at])]
            if changed and is_change(*arguments, **named):
                before(name, changed[0])
            return original(*arguments, **named)

        setattr(module, name, operation)

    for name in _FIRST:
        patch(os, name, (0,), lambda *a, **n: True)
    for name in _BOTH:
        patch(os, name, (0, 1), lambda *a, **n: True)
    patch(os, "fsync", (0,), lambda *a, **n: True)
    patch(os, "open", (0,), lambda path, flags, *a, **n: bool(flags & _WRITES))
    patch(io, "open", (0,), lambda path, mode="r", *a, **n: any(letter in mode for letter in "wxa+"))
    try:
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make every change below a folder fail as on a file system that is mounted read-only."""

    def refuse(operation: str, path: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path if isinstance(path, str) else str(path))

    with watched(folder, refuse):
        yield


@contextmanager
def disk_of(folder: Path, free_bytes: int) -> Iterator[None]:
    """Make flushes below a folder fail once more than so many bytes were written there."""
    sizes: dict[int, int] = {}
    used = 0

    def count(operation: str, path: object) -> None:
        nonlocal used
        if operation == "fsync" and isinstance(path, int):
            status = os.fstat(path)
            used += max(0, status.st_size - sizes.get(status.st_ino, 0))
            sizes[status.st_ino] = status.st_size
            if used > free_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for file in folder.rglob("*"):
        sizes[file.stat().st_ino] = file.stat().st_size
    with watched(folder, count):
        yield


@contextmanager
def killed_at(folder: Path, number: int) -> Iterator[None]:
    """Crash at the n-th change below a folder, from 1; no change comes through after it."""
    left = number

    def crash(operation: str, path: object) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Crash(f"{operation} {path}")

    with watched(folder, crash):
        yield
