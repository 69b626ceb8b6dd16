"""Files and folders written whole or not at all; digests; output files named with ``-o``."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunewright.errors import DiskFullError, RecipeError, shell

_DISK_FULL = re.compile(rf"os error ({errno.ENOSPC}|{errno.EDQUOT})\b|No space left on device")


@contextmanager
def disk_errors(path: Path, num_bytes: int) -> Iterator[None]:
    """Turn "no space left" into a DiskFullError with the disk and the bytes needed."""
    try:
        yield
    except Exception as error:  # safetensors wraps the operating system's error in a class of its own
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _DISK_FULL.search(str(error))
        if isinstance(error, DiskFullError) or not full:
            raise
        disk = path.parent if path.parent.exists() else Path("/")
        free = shutil.disk_usage(disk).free
        raise DiskFullError(
            f"no space left on the disk that holds {disk}",
            f"writing {path.name} needs {num_bytes:,} bytes; {free:,} are free; the previous version is kept",
            "free some space, then run the same command again: it resumes",
        ) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder is on disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def write_atomic(path: Path, content: bytes, private: bool = False) -> None:
    """Replace a file so that a crash leaves the old or the new content, never half of it.

    Args:
        path: the file; missing folders are created.
        content: all of its bytes.
        private: only its owner may read it.

    Raises:
        DiskFullError: no space; the old content is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path, len(content)):
        try:
            temporary.unlink(missing_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


_OLD, _NEW = ".tunewright.old", ".tunewright.tmp"  # suffixes that nobody else uses: such a folder may be removed
_TRIES = 10


@contextmanager
def atomic_folder(path: Path, marker: str = "") -> Iterator[Path]:
    """Yield an empty folder that takes the name ``path`` once the block ends and its files are on disk.

    The new folder is written beside the old one. The swap is two renames: the old one aside, the new one in. On an
    error the old folder stays and the new one is removed. A process that is killed between the two renames, which take
    microseconds, leaves no folder of that name: ``restore_folder`` gives it back to the old one.

    The caller holds a lock against other writers; readers need none.

    Args:
        path: the folder to write or to replace.
        marker: a file that every finished folder of this kind holds. A folder aside without it is not ours: it is
            neither restored nor removed.
    """
    recover_folder(path, marker)
    fresh = _fresh(path)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        sync_tree(fresh)
        _swap(path, fresh)
        sync_folder(path.parent)
    except BaseException:
        recover_folder(path, marker)
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if folder_aside(path).exists():
        _discard_aside(path)


def _swap(path: Path, fresh: Path) -> None:
    """Give ``fresh`` the name; a reader may have restored the old folder in the moment without one: then try again."""
    for attempt in range(1, _TRIES + 1):
        if path.exists():
            path.rename(folder_aside(path))
        try:
            fresh.rename(path)
        except OSError as error:
            if attempt == _TRIES or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return


def folder_aside(path: Path) -> Path:
    """Return the name that the old folder has during a swap."""
    return path.with_name(f".{path.name}{_OLD}")


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}{_NEW}")


def restore_folder(path: Path, marker: str = "") -> None:
    """Give a folder its name back if a swap was stopped between its two renames.

    It deletes nothing, since a reader that calls it holds no lock and a writer may be between its renames.
    """
    aside = folder_aside(path)
    if (aside / marker).exists() and not path.exists():
        with suppress(OSError):  # the writer was not stopped, and was faster
            aside.rename(path)


def restore_folders(parent: Path, marker: str = "") -> None:
    """Give every folder in ``parent`` its name back that a stopped swap left aside."""
    for aside in parent.glob(f".*{_OLD}"):
        restore_folder(aside.with_name(aside.name.removeprefix(".").removesuffix(_OLD)), marker)


def recover_folder(path: Path, marker: str = "") -> None:
    """Undo or finish a stopped swap, and remove a half-written folder; only for the process about to write there."""
    restore_folder(path, marker)
    if path.exists() and (folder_aside(path) / marker).exists():
        _discard_aside(path)
    shutil.rmtree(_fresh(path), ignore_errors=True)


def _discard_aside(path: Path) -> None:
    """Delete the replaced folder, first taking its name away: half of it must never be restored."""
    fresh = _fresh(path)
    shutil.rmtree(fresh, ignore_errors=True)
    with suppress(OSError):
        folder_aside(path).rename(fresh)
        shutil.rmtree(fresh)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names."""
    if path.is_dir():
        total = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            total.update(f"{file.relative_to(path).as_posix()}\0{file_digest(file)}\n".encode())
        return total.hexdigest()
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_output(path: Path, text: str, force: bool) -> None:
    """Write a text file; replace an existing one only with ``force``.

    Raises:
        RecipeError: the path is a folder or, without ``force``, an existing file; or it cannot be written.
        DiskFullError: no space; an existing file is kept.
    """
    if path.is_dir():
        raise RecipeError(f"{path} is a folder", "", f"name a file in it: {shell('-o', path / 'NAME')}")
    if path.exists() and not force:
        raise RecipeError(
            f"{path} already exists", "it may hold your changes", "name another file with -o, or add --force"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except OSError as error:
        raise RecipeError(f"cannot write {path}", str(error), "name another file with -o") from error
