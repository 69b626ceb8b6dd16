"""Writing files and folders atomically, digests of files, and errors of a full disk."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunewright.errors import DiskFullError, RecipeError, shell

_NO_SPACE = re.compile(rf"os error ({errno.ENOSPC}|{errno.EDQUOT})\b|No space left on device")


@contextmanager
def disk_errors(path: Path, num_bytes: int) -> Iterator[None]:
    """Turn "no space left" into a DiskFullError with the disk and the bytes needed."""
    try:
        yield
    except Exception as error:  # safetensors wraps the operating system's error in a class of its own
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _NO_SPACE.search(str(error))
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
    """Flush everything in a folder to disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def write_atomic(path: Path, content: bytes, private: bool = False) -> None:
    """Replace a file so that a crash leaves the old or the new content; only the owner reads a ``private`` one.

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


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to ``path`` once the block ends and its files are on disk.

    A previous folder of that name is replaced; on an error it is kept and the new folder is removed. The caller holds a
    lock: the temporary names are fixed, so that the leftovers of a killed process are restored or removed first.
    """
    temporary = path.with_name(f".{path.name}.tunewright.tmp")
    old = path.with_name(f".{path.name}.tunewright.old")
    _restore(old, path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_tree(temporary)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        _restore(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _restore(old: Path, path: Path) -> None:
    """Put a folder that was moved aside back, unless its replacement exists."""
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)


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
    """Write a text to the path the user named with ``-o``; ``force`` replaces an existing file.

    Raises:
        RecipeError: the path is a folder, is an existing file (without ``force``), or cannot be written.
        DiskFullError: no space; an existing file is kept.
    """
    if path.is_dir():
        raise RecipeError(f"{path} is a folder", "", f"name a file in it: {shell('-o', path / 'FILE')}")
    if path.exists() and not force:
        raise RecipeError(
            f"{path} already exists", "it may hold your changes", "name another file with -o, or add --force"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except OSError as error:
        raise RecipeError(f"cannot write {path}", str(error), "name another file with -o") from error
