"""A disk that loses what nobody waited for: after a crash, only flushed contents and flushed names are left.

This is the model of POSIX, stricter than file systems in use: a file holds what it held at its last fsync, and a folder
lists what it listed at its last fsync. ``crash`` writes that state into another folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

Listing = dict[str, int]  # name: inode


class LazyDisk:
    """Watches every fsync below a folder; ``at_flush`` is called before and after each."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.at_flush: Callable[[], None] = lambda: None
        self._contents: dict[int, bytes] = {}
        self._listings: dict[int, Listing] = {}
        self._open: dict[int, int] = {}  # kept open, so that no inode is used twice
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._flush)
        handle = os.open(root, os.O_RDONLY)
        self._note(handle)
        os.close(handle)

    def _flush(self, handle: int) -> None:
        inside = Path(f"/proc/self/fd/{handle}").readlink().is_relative_to(self.root)
        if inside:
            self.at_flush()
            self._note(handle)
        self._fsync(handle)
        if inside:
            self.at_flush()

    def _note(self, handle: int) -> None:
        status = os.fstat(handle)
        if status.st_ino not in self._open:
            # A copy of the handle would hold the lock of a journal for ever; one of its own does not.
            self._open[status.st_ino] = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY)
        if stat.S_ISDIR(status.st_mode):
            self._listings[status.st_ino] = {entry.name: entry.inode() for entry in os.scandir(handle)}
        else:
            self._contents[status.st_ino] = Path(f"/proc/self/fd/{handle}").read_bytes()

    def crash(self, to: Path, *, names_kept: bool = False, torn_bytes: int = 0) -> Path:
        """Write what is left after a crash now; return its folder.

        Args:
            to: the folder to write, which must not exist.
            names_kept: names reached the disk on their own, before the contents that they lead to.
            torn_bytes: so many bytes that were appended since the last flush of a file reached the disk.
        """
        self._restore(self.root.stat().st_ino, self.root, to, names_kept, torn_bytes)
        return to

    def _restore(self, inode: int, now: Path | None, to: Path, names_kept: bool, torn_bytes: int) -> None:
        to.mkdir()
        listing = self._listings.get(inode, {})
        if names_kept and now is not None and now.is_dir():
            listing = {entry.name: entry.inode() for entry in os.scandir(now)}
        for name, number in listing.items():
            path = now / name if now is not None else None
            if path is None or not path.exists() or path.stat().st_ino != number:
                path = None  # another file has that name by now, and this one is only on the disk
            is_folder = number in self._listings or (path is not None and path.is_dir())
            if is_folder:
                self._restore(number, path, to / name, names_kept, torn_bytes)
                continue
            content = self._contents.get(number, b"")
            if torn_bytes and path is not None:
                content += path.read_bytes()[len(content) :][:torn_bytes]
            (to / name).write_bytes(content)
