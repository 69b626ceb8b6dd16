"""Putting a folder under its name in one go, so that a stop at any moment leaves the old one whole.

The new folder is written beside the old one. The swap is two renames: the old one aside, the new one in. Between the
two, which takes microseconds, nothing bears the name; ``recover`` then puts the old one back, and is called before
anything is written to or read from an export.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunewright.errors import DiskFullError, RunFolderError
from tunewright.rundir import disk_errors, sync_folder

RECEIPT = "receipt.json"
_SLACK = 1.02  # headers, tokenizers and the file system's own blocks


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _fresh(target: Path) -> Path:
    return target.with_name(f".{target.name}.new")


def recover(target: Path) -> None:
    """Undo or end what a stopped export left beside ``target``."""
    aside = _aside(target)
    if aside.exists() and not target.exists():
        aside.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def require_room(target: Path, num_bytes: int) -> None:
    """Refuse before anything is written what the disk has no room for.

    Raises:
        DiskFullError: too little is free.
    """
    disk = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
    free, needed = shutil.disk_usage(disk).free, int(num_bytes * _SLACK)
    if free < needed:
        raise DiskFullError(
            f"not enough space for the export on the disk that holds {disk}",
            f"writing {target.name} needs about {needed:,} bytes; {free:,} are free; nothing was written",
            "free some space, or name a folder on another disk: -o FOLDER",
        )


def require_replaceable(target: Path) -> None:
    """Refuse to replace what is not an export.

    Raises:
        RunFolderError: there is a file, or a folder with other things in it.
    """
    if not target.exists() or (target / RECEIPT).is_file() or (target.is_dir() and not any(target.iterdir())):
        return
    raise RunFolderError(
        f"{target} is not an export and is not replaced",
        f"it has no {RECEIPT}" if target.is_dir() else "it is a file",
        "name another folder: -o FOLDER",
    )


@contextmanager
def replaced(target: Path, num_bytes: int) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its name once the block ends and all is on disk.

    Raises:
        RunFolderError: what bears the name is not an export.
        DiskFullError: no space, told before or met on the way; the old export stands.
    """
    recover(target)
    require_replaceable(target)
    fresh = _fresh(target)
    shutil.rmtree(fresh, ignore_errors=True)  # of an export that was killed
    require_room(target, num_bytes)
    with disk_errors(target, num_bytes):
        fresh.mkdir(parents=True)
        try:
            yield fresh
            _to_disk(fresh)
            if target.exists():
                target.rename(_aside(target))
            fresh.rename(target)
            sync_folder(target.parent)
        except BaseException:
            recover(target)
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    shutil.rmtree(_aside(target), ignore_errors=True)


def _to_disk(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
