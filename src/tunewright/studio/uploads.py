"""What a run can be made of: uploaded files under harmless names, and the folders and files that are already there."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tunewright.errors import UserError
from tunewright.recipe import RUN_MARKER
from tunewright.studio.jobs import STUDIO_FOLDER
from tunewright.studio.runs import key_of

UPLOADS = "uploads"
_MOST_NAME_BYTES = 120
_MOST_LISTED = 300
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_HUB = re.compile(r"hub:[\w.-]+/[\w.-]+(/[\w.-]+)?(@[\w.-]+)?(:[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """A folder or a file of the studio's folder that documents or chats may be read from."""

    key: str
    name: str
    path: Path
    num_files: int
    kinds: str


def suffixes() -> frozenset[str]:
    """Return the file extensions that some reader takes."""
    from tunewright.documents.readers import READERS
    from tunewright.models.data_sources import PARQUET

    return frozenset(READERS) | {PARQUET}


def is_slug(name: str) -> bool:
    """Return whether a name may be that of a new recipe: it becomes part of paths."""
    return bool(_SLUG.fullmatch(name)) and not _RESERVED.match(name)


def hub_name(text: str) -> str:
    """Return the name of a data set of the hub, with its prefix.

    Raises:
        UserError: it is none.
    """
    name = text if text.startswith("hub:") else f"hub:{text}"
    if not _HUB.fullmatch(name) or ".." in name:
        raise UserError(f"{text} is no name of a data set", "", "write it as OWNER/NAME, or OWNER/NAME:SPLIT")
    return name


def harmless_name(name: str) -> str:
    """Return the name under which an uploaded file is stored; it keeps letters of any language, and the extension.

    Folders, drive letters and control characters of the given name are left out, so that it never leaves the folder.
    """
    base = name.replace("\\", "/").rpartition("/")[2]
    base = unicodedata.normalize("NFC", base)
    base = "".join(c if c.isalnum() or c in " ._-()[]+,=@" else "_" for c in base if unicodedata.category(c)[0] != "C")
    stem, dot, suffix = base.rstrip(" .").rpartition(".")
    stem, suffix = (stem.strip(" ."), dot + suffix) if dot else (base.strip(" ."), "")
    stem = f"_{stem}" if _RESERVED.match(stem) else stem
    room = _MOST_NAME_BYTES - len(os.fsencode(suffix))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return (stem.strip(" .") or "file") + suffix


def store(folder: Path, files: Sequence[tuple[str, BinaryIO]]) -> list[str]:
    """Write uploaded files into a new folder, whole or not at all; return their names.

    Raises:
        UserError: there is no file, or one is of a type that no reader takes.
    """
    known = suffixes()
    names: list[str] = []
    for given, _ in files:
        name = harmless_name(given)
        if Path(name).suffix.lower() not in known:
            raise UserError(
                f"{name} is of no type that can be read", "", f"readable are: {', '.join(sorted(known)[:40])}"
            )
        stem, suffix = Path(name).stem, Path(name).suffix
        taken = {other.casefold() for other in names}
        names.append(
            next(
                n for k in range(1, 10_000) if (n := name if k == 1 else f"{stem}-{k}{suffix}").casefold() not in taken
            )
        )
    if not names:
        raise UserError("no file was chosen", "", "choose files, a folder that is already there, or a data set")
    staged = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        for name, (_, content) in zip(names, files, strict=True):
            with (staged / name).open("xb") as file:
                shutil.copyfileobj(content, file)
        staged.rename(folder)
    except OSError:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return names


def sources(folder: Path) -> dict[str, Source]:
    """Return the folders and files that a run can be made of, by keys that are no paths; links are not followed."""
    known = suffixes()
    listed: dict[str, Source] = {}
    for path in _candidates(folder, 0):
        name = path.relative_to(folder).as_posix()
        files = [path] if path.is_file() else [p for p in sorted(path.rglob("*"))[:5000] if p.is_file()]
        counts = Counter(p.suffix.lower() for p in files if p.suffix.lower() in known)
        if counts and len(listed) < _MOST_LISTED:
            kinds = ", ".join(f"{num} {suffix}" for suffix, num in counts.most_common(4))
            listed[key_of(name)] = Source(key_of(name), name, path, counts.total(), kinds)
    return listed


def _candidates(folder: Path, depth: int) -> Iterator[Path]:
    with suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = folder / entry.name
            if entry.name.startswith(".") or entry.is_symlink() or entry.name in (STUDIO_FOLDER, "runs"):
                continue
            if entry.is_file() and depth <= 1 and path.suffix.lower() in suffixes():
                yield path
            elif entry.is_dir() and not (path / RUN_MARKER).exists():
                yield path
                if depth < 1:
                    yield from _candidates(path, depth + 1)
