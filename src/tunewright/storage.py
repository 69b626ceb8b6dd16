"""Files and folders written whole or not at all; digests; the linked lines of journals; files named with ``-o``."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.errors import DiskFullError, RecipeError, shell
from tunewright.operating_system import sync_folder

_DISK_FULL = re.compile(rf"os error ({errno.ENOSPC}|{errno.EDQUOT})\b|No space left on device")


@contextmanager
def disk_errors(path: Path, num_bytes: int) -> Iterator[None]:
    """Turn "no space left" into a DiskFullError with the disk and the bytes needed; 0: they are not known."""
    try:
        yield
    except Exception as error:  # safetensors wraps the operating system's error in a class of its own
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _DISK_FULL.search(str(error))
        if isinstance(error, DiskFullError) or not full:
            raise
        disk = path.parent if path.parent.exists() else Path("/")
        free = shutil.disk_usage(disk).free
        needs = (
            f"{num_bytes:,} bytes; {free:,} are free" if num_bytes else f"more than the {free:,} bytes that are free"
        )
        raise DiskFullError(
            f"no space left on the disk that holds {disk}",
            f"writing {path.name} needs {needs}; the previous version is kept",
            "free some space, then run the same command again: it resumes",
        ) from error


def make_folder(path: Path) -> None:
    """Create a folder and the missing ones above it; their names are on disk when it returns."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        with suppress(PermissionError):  # a folder that may be written and not listed, such as another user's
            sync_folder(folder.parent)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder is on disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def write_atomic(path: Path, content: bytes | Iterable[bytes], private: bool = False) -> None:
    """Replace a file so that a crash leaves the old or the new content, never half of it.

    Args:
        path: the file; missing folders are created.
        content: all of its bytes, or pieces of them, which are written one by one.
        private: only its owner may read it.

    Raises:
        DiskFullError: no space; the old content is kept.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path, len(content) if isinstance(content, bytes) else 0):
        try:
            temporary.unlink(missing_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
            with os.fdopen(handle, "wb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
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
    make_folder(path.parent)
    fresh.mkdir()
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


def leaves(path: Path, folders: Sequence[Path]) -> bool:
    """Return whether a path is a link, or lies behind one, to a target in none of the folders (given without links)."""
    target = Path(os.path.realpath(path))
    return not any(target.is_relative_to(folder) for folder in folders)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names."""
    if path.is_dir():
        total = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            total.update(f"{file.relative_to(path).as_posix()}\0{file_digest(file)}\n".encode())
        return total.hexdigest()
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


_LINK = re.compile(rb', "chain": "[0-9a-f]{32}"\}')
_LINK_BYTES = 46  # of a link at the end of a line, brace included


def _link(previous: str, body: bytes) -> str:
    return hashlib.sha256(previous.encode() + body).hexdigest()[:32]


def chained_line(entry: dict[str, Any], previous: str) -> tuple[bytes, str]:
    """Return an entry as a line of a journal, and its link: a digest over the line and the link of the line before."""
    body = json.dumps(entry, ensure_ascii=False).encode("utf-8", "surrogatepass")
    link = _link(previous, body)
    return body[:-1] + f', "chain": "{link}"}}\n'.encode(), link


@dataclass
class ChainedLines:
    """What a journal holds, each line checked against its link.

    Attributes:
        entries: of the lines that are as they were written, in order.
        changed: (first, last) line numbers where a line is not as it was written.
        num_old: lines at the start that have no link: an earlier version wrote them.
        not_json: number of an old line that is not JSON; 0: none.
        links: of each line.
        size: bytes up to the end of the last whole line.
        torn: whether bytes follow it: an interrupted write.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    changed: list[tuple[int, int]] = field(default_factory=list)
    num_old: int = 0
    not_json: int = 0
    links: list[str] = field(default_factory=list)
    size: int = 0
    torn: bool = False

    @property
    def head(self) -> str:
        """The last link; "" of an empty journal."""
        return self.links[-1] if self.links else ""


def read_chain(content: bytes, most_old: int | None = None) -> ChainedLines:
    """Return the lines of a journal.

    A line counts as changed where its link is not the digest of what stands there. Of a changed line, both the link
    that it holds and the one that it should hold are tried for the next line, so that the next line is not blamed.

    Args:
        content: of the file.
        most_old: how many lines at the start may lack a link; None: any number.
    """
    *lines, rest = content.split(b"\n")
    result = ChainedLines(size=len(content) - len(rest), torn=bool(rest))
    before, all_old = [""], hashlib.sha256()
    for number, raw in enumerate(lines, 1):
        body, held = raw[:-_LINK_BYTES] + b"}", raw[-_LINK_BYTES:]
        has_link, link = bool(_LINK.fullmatch(held)), held[-34:-2].decode("latin-1")
        fits = [_link(previous, body) == link for previous in before] if has_link else []
        after_old = number == result.num_old + 1
        if any(fits):
            if after_old and number > 1 and not fits[0]:  # the line before had a link, which is no longer readable
                result.entries.pop()
                result.num_old -= 1
                result.changed.append((number - 1, number - 1))
            result.entries.append({name: value for name, value in json.loads(raw).items() if name != "chain"})
            before = [link]
        elif not has_link and after_old and (most_old is None or number <= most_old):
            all_old.update(raw + b"\n")
            result.num_old += 1
            entry = _json_object(raw)
            result.not_json = result.not_json or (0 if entry is not None else number)
            result.entries.append(entry or {})
            before = [all_old.hexdigest()[:32], *(_link(previous, body) for previous in before[:2])]
        else:
            result.changed.append((1 if after_old else number, number))
            before = [link, *(_link(previous, body) for previous in before)][:4]
        result.links.append(before[0])
    if result.not_json == len(lines) > 0:  # the end of an old journal: an interrupted write
        result.entries.pop()
        result.links.pop()
        result.torn, result.not_json = True, 0
        result.num_old, result.size = result.num_old - 1, result.size - len(lines[-1]) - 1
    return result


def read_noted_chain(content: bytes, noted: Mapping[str, Any] | None) -> ChainedLines:
    """Return the lines of a journal, compared with what was noted of it: lines, old lines, and the last link.

    Where all links fit, but the last noted link is another, the lines up to there were written by someone else.
    """
    if noted is None:
        return read_chain(content)
    chain = read_chain(content, noted["num_old"])
    num = noted["num_lines"]
    if not chain.changed and 0 < num <= len(chain.links) and chain.links[num - 1] != noted["head"]:
        chain.changed, chain.entries = [(1, num)], chain.entries[num:]
    return chain


_TEXT_SUFFIXES = (".jsonl", ".json", ".toml", ".csv", ".html", ".md")
_MOST_LINES = 20_000  # whose digests are noted: enough to find the changed line of a usual file
_LINE_DIGEST = 4  # hexadecimal digits: they locate a change, the digest of the whole file finds it


def line_digests(path: Path) -> str:
    """Return the short digests of a text file's lines, joined; "" for other files and very long ones."""
    if path.suffix not in _TEXT_SUFFIXES:
        return ""
    digests: list[str] = []
    line = b"\n"
    with path.open("rb") as file:
        for line in file:
            if len(digests) == _MOST_LINES:
                return ""
            digests.append(hashlib.sha256(line.removesuffix(b"\n")).hexdigest()[:_LINE_DIGEST])
    if line.endswith(b"\n"):  # what follows the last line end counts as a line
        digests.append(hashlib.sha256(b"").hexdigest()[:_LINE_DIGEST])
    return "".join(digests) if len(digests) <= _MOST_LINES else ""


def first_changed_line(path: Path, noted: str) -> int:
    """Return the number of the first line whose digest is not the noted one; 0 where no lines were noted."""
    now = line_digests(path) if noted else ""
    for start in range(0, max(len(now), len(noted)), _LINE_DIGEST):
        if now[start : start + _LINE_DIGEST] != noted[start : start + _LINE_DIGEST]:
            return start // _LINE_DIGEST + 1
    return 0


def _json_object(raw: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


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
