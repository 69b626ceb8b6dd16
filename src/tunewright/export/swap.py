"""Putting a folder under its name in one go, so that a stop at any moment leaves the old one whole.

The new folder is written beside the old one. The swap is two renames: the old one aside, the new one in. Between the
two, which takes microseconds, nothing bears the name; ``put_back`` then gives it to the old one again, and is called
before an export is read. It deletes nothing: a reader holds no lock, and an exporter may be between its renames.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunewright.errors import DiskFullError, RunFolderError
from tunewright.storage import disk_errors, sync_folder, sync_tree

RECEIPT = "receipt.json"
_OLD, _NEW = ".tunewright-old", ".tunewright-new"  # names that nobody else gives: what bears them may be removed
_TRIES = 10
_SLACK = 1.02  # headers, tokenizers and the file system's own blocks


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}{_OLD}")


def _fresh(target: Path) -> Path:
    return target.with_name(f".{target.name}{_NEW}")


def put_back(target: Path) -> None:
    """Give an export its name again where a swap was stopped between its two renames."""
    aside = _aside(target)
    if (aside / RECEIPT).is_file() and not target.exists():
        with suppress(OSError):  # an exporter that was not stopped at all was faster
            aside.rename(target)


def exports_in(folder: Path) -> list[Path]:
    """Return the exports in a folder by name, those included that a stopped swap left aside."""
    for aside in folder.glob(f".*{_OLD}"):
        put_back(aside.with_name(aside.name.removeprefix(".").removesuffix(_OLD)))
    return sorted(path.parent for path in folder.glob(f"*/{RECEIPT}") if not path.parent.name.startswith("."))


def recover(target: Path) -> None:
    """Undo or end what a stopped export left beside ``target``; only for who is about to write there."""
    put_back(target)
    if target.exists() and (_aside(target) / RECEIPT).is_file():
        _discard_aside(target)


def _discard_aside(target: Path) -> None:
    """Delete the replaced export, first taking its name away: half of it must never be put back."""
    aside, fresh = _aside(target), _fresh(target)
    shutil.rmtree(fresh, ignore_errors=True)
    with suppress(OSError):
        aside.rename(fresh)
        shutil.rmtree(fresh)


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
    require_replaceable(_aside(target))
    fresh = _fresh(target)
    shutil.rmtree(fresh, ignore_errors=True)  # of an export that was killed
    require_room(target, num_bytes)
    with disk_errors(target, num_bytes):
        fresh.mkdir(parents=True)
        try:
            yield fresh
            sync_tree(fresh)
            _swap(target, fresh)
            sync_folder(target.parent)
        except BaseException:
            recover(target)
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    if _aside(target).exists():
        _discard_aside(target)


def _swap(target: Path, fresh: Path) -> None:
    """Give ``fresh`` the name; a reader that met the moment without one may have put the old export back under it."""
    for attempt in range(1, _TRIES + 1):
        if target.exists():
            target.rename(_aside(target))
        try:
            fresh.rename(target)
        except OSError as error:
            if attempt == _TRIES or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
