"""An index of a run's samples: where each line begins, its task, document and state; pages and filters need no more."""

from __future__ import annotations

import json
import mmap
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tunewright.curation.edits import Decision
from tunewright.run_folder import RunFile
from tunewright.studio.runs import KnownRun, stamp
from tunewright.studio.web import Cache

_HEAD = re.compile(rb'\{"id":"([^"\\]{1,80})","task":"([^"\\]{0,80})"')  # as the records are dumped
_DOCUMENT = b'"document":"'  # inside of a text, its quotes would be escaped
SAMPLES, TRAIN, REJECTED = RunFile.SAMPLES, RunFile.TRAIN, RunFile.REJECTED
STATES = ("kept", "rejected", "written", "edited", "approved")


class Entry(NamedTuple):
    """A sample: its file and byte, and what it is filtered by; ``start`` is -1 where only a rejection is on record."""

    id: str
    file: str
    start: int
    task: str
    document: str


@dataclass
class SampleIndex:
    """All samples of a run in their order: those of samples.jsonl, then the user's own.

    Attributes:
        entries: the samples.
        kept: identifiers of the training set; None before curation.
        rejections: (reason, detail) by sample, of curation.
    """

    entries: list[Entry] = field(default_factory=list)
    kept: frozenset[str] | None = None
    rejections: dict[str, tuple[str, str]] = field(default_factory=dict)

    def state(self, sample: str, made: Mapping[str, Decision]) -> str:
        """Return the state of a sample: people's decision, else what curation did with it."""
        if sample in made:
            return made[sample].state
        return self.curated(sample)

    def curated(self, sample: str) -> str:
        """Return what curation did with a sample, by the files as they are."""
        if self.kept is None:
            return "written"
        return "kept" if sample in self.kept else "rejected"

    def filtered(
        self, made: Mapping[str, Decision], task: str = "", state: str = "", reason: str = "", document: str = ""
    ) -> list[Entry]:
        """Return the entries that fit all filters; an empty filter fits everything."""
        entries = self.entries
        if task:
            entries = [entry for entry in entries if entry.task == task]
        if document:
            entries = [entry for entry in entries if entry.document == document]
        if reason:
            entries = [entry for entry in entries if self.rejections.get(entry.id, ("", ""))[0] == reason]
        if state:
            entries = [entry for entry in entries if self.state(entry.id, made) == state]
        return entries

    @cached_property
    def tasks(self) -> Counter[str]:
        """Return the samples by task."""
        return Counter(entry.task for entry in self.entries)

    @cached_property
    def reasons(self) -> Counter[str]:
        """Return the rejected samples by reason."""
        return Counter(reason for reason, _ in self.rejections.values())

    @cached_property
    def documents(self) -> Counter[str]:
        """Return the samples by document; those of none are left out."""
        return Counter(entry.document for entry in self.entries if entry.document)


def build_index(folder: Path) -> SampleIndex:
    """Read the index of a run's files; a line that is no sample is left out."""
    index = SampleIndex()
    written = list(_entries(folder, SAMPLES))
    trained = list(_entries(folder, TRAIN)) if _is_file(folder / TRAIN) else None
    known = {entry.id for entry in written}
    index.entries = written + [entry for entry in trained or () if entry.id not in known]
    known |= {entry.id for entry in index.entries}
    index.kept = None if trained is None else frozenset(entry.id for entry in trained)
    for rejection in json_lines(folder / REJECTED):
        if rejection.get("stage") == "curate" and isinstance(rejection.get("id"), str):
            sample = rejection["id"]
            index.rejections[sample] = (str(rejection.get("reason", "")), str(rejection.get("detail", "")))
            if sample not in known:
                known.add(sample)
                index.entries.append(Entry(sample, "", -1, str(rejection.get("task") or "own"), ""))
    return index


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _entries(folder: Path, name: str) -> Iterator[Entry]:
    for start, line in _lines(folder / name):
        head = _HEAD.match(line)
        if head is None:
            with suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                yield Entry(str(record["id"]), name, start, str(record["task"]), str(record.get("document") or ""))
            continue
        at = line.find(_DOCUMENT, head.end())
        document = line[at + len(_DOCUMENT) : line.find(b'"', at + len(_DOCUMENT))].decode() if at >= 0 else ""
        yield Entry(head[1].decode(), name, start, head[2].decode(), document)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (first byte, line) of a file of lines; nothing where it is missing, empty or a link."""
    if not _is_file(path) or not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start, size = 0, len(content)
        while start < size:
            end = content.find(b"\n", start)
            end = size if end < 0 else end
            if end > start:
                yield start, content[start:end]
            start = end + 1


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file of lines; what is none is left out."""
    for _, line in _lines(path):
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def line_at(folder: Path, name: str, start: int) -> dict[str, Any]:
    """Return the record that begins at a byte of a file; empty where it is no longer there."""
    path = folder / name
    with suppress(OSError, ValueError):
        if _is_file(path):
            with path.open("rb") as file:
                file.seek(start)
                record = json.loads(file.readline())
                return record if isinstance(record, dict) else {}
    return {}


def record_starts(folder: Path, name: str) -> dict[str, int]:
    """Return the first byte of each record of documents.jsonl or chunks.jsonl, by identifier."""
    pattern = re.compile(rb'\{\s*"id":\s*"([^"\\]{1,80})"')
    return {match[1].decode(): start for start, line in _lines(folder / name) if (match := pattern.match(line))}


def record_of(cache: Cache, run: KnownRun, name: str, identifier: str | None) -> dict[str, Any]:
    """Return a document, chunk or sample of a run by its identifier; empty where there is none."""
    if not identifier:
        return {}
    starts = cache.get((name, run.key, "starts"), stamp(run.path / name), lambda: record_starts(run.path, name))
    return line_at(run.path, name, starts[identifier]) if identifier in starts else {}
