"""A run's folder: its files, records and append-only journals, and one writer at a time."""

from __future__ import annotations

import difflib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from tunewright import console, operating_system
from tunewright.errors import RunFolderError, cause_of, command, reading, shell, special_file
from tunewright.recipe import RUN_MARKER
from tunewright.records import AnyRecord, Record, Rejection, StageSummary, jsonl_lines, read_jsonl
from tunewright.storage import (
    ChainedLines,
    chained_line,
    disk_errors,
    file_digest,
    first_changed_line,
    line_digests,
    make_folder,
    read_chain,
    read_noted_chain,
    write_atomic,
)


class RunFile(StrEnum):
    """Every file and folder of a run, by the name that it has on disk; the report lists the stages in this order."""

    RECIPE = "recipe.toml"
    FETCHED = "fetched"
    DOCUMENTS = "documents.jsonl"
    CHUNKS = "chunks.jsonl"
    SPLIT = "split.jsonl"
    HELD_OUT = "held-out.jsonl"
    EXAM = "exam.jsonl"
    RETENTION = "kept.jsonl"
    SEAL = "seal.json"
    SAMPLES = "samples.jsonl"
    TRAIN = "train.jsonl"
    PAIRS = "pairs.jsonl"
    REJECTED = "rejected.jsonl"
    EDITS = "edits.jsonl"
    REWARDS = "rewards.jsonl"
    ADAPTER = "adapter"
    PLACEBO = "placebo/adapter"
    SEEDS = "more-seeds"
    METRICS = "metrics.jsonl"
    PLAN = "plan.json"
    CHECKPOINTS = "checkpoints"
    ANSWERS = "answers.jsonl"
    RETENTION_ANSWERS = "kept-answers.jsonl"
    SCORES = "scores.jsonl"
    RULE = "rule.json"
    RULE_HISTORY = "rules.jsonl"
    VERDICT = "verdict.json"
    COMPARISON = "comparison.csv"
    JUDGMENTS = "judgments.jsonl"
    JUDGE = "judge.json"
    MARKING_PLAN = "marking.json"
    MARKING_PAGE = "marking.html"
    MARKING_KEY = "marking.key.json"
    MARKS = "marks.jsonl"
    CURVE = "curve.json"
    ROUNDS = "rounds.json"
    DEVELOPMENT = "development.jsonl"
    FOCUS = "focus.jsonl"
    BENCHMARKS = "benchmarks.json"
    PREVIEW = "preview.json"
    VECTORS = "vectors.safetensors"
    REPORT = "report.html"
    DATA_REPORT = "data.html"
    EXPORTS = "exports"
    SERVING = "serving"
    JOURNAL = "journal.jsonl"
    TEACHER_JOURNAL = "teacher.jsonl"
    STUDENT_JOURNAL = "student-answers.jsonl"
    ANSWERS_JOURNAL = "answers-journal.jsonl"
    PREVIEW_JOURNAL = "preview-journal.jsonl"
    DEVELOPMENT_JOURNAL = "development-journal.jsonl"
    BENCHMARKS_JOURNAL = "benchmarks-journal.jsonl"
    FILES = "files.jsonl"


def further_adapters(num_seeds: int) -> dict[str, str]:
    """Return the adapters of the seeds after the first, as arms: each arm's name with its folder in the run."""
    return {f"tuned-seed-{number}": f"{RunFile.SEEDS}/{number}/adapter" for number in range(2, num_seeds + 1)}


JOURNALS = (
    RunFile.JOURNAL,
    RunFile.TEACHER_JOURNAL,
    RunFile.STUDENT_JOURNAL,
    RunFile.ANSWERS_JOURNAL,
    RunFile.PREVIEW_JOURNAL,
    RunFile.DEVELOPMENT_JOURNAL,
    RunFile.BENCHMARKS_JOURNAL,
    RunFile.RULE_HISTORY,
    RunFile.EDITS,
)
_ALL_LINKED = {"num_old": 0, "num_lines": 0}
_MARKER = b'{"format": 1}\n'
_ELSEWHERE = "name another folder with --dir"
_REWRITE = "restore it from a copy, or delete it and run again: it is written again"


class Journal:
    """An append-only file of JSON lines; each line is on disk before ``append`` returns.

    Each line ends in a link, a digest over the line and the link before it. A line that does not fit its link is left
    out and named in ``changed``. A torn last line (a crash in mid-write) is dropped when the journal is opened;
    ``num_torn`` counts it. Several processes may append.

    Args:
        path: of the file.
        noted: what a run's folder noted of it; None: nothing.
    """

    def __init__(self, path: Path, noted: Mapping[str, Any] | None = None) -> None:
        make_folder(path.parent)
        self.path = path
        self._noted = noted
        away = f"restore it from a copy, or move it away: {shell('mv', path, f'{path}.damaged')}"
        with reading("journal", path, away, RunFolderError):
            content = path.read_bytes() if path.exists() else b""
        chain = self._read(content)
        self.entries = chain.entries
        self.changed = chain.changed
        self.num_torn = int(chain.torn)
        if chain.torn:
            with path.open("r+b") as file:
                operating_system.lock(file)  # else another process may be writing that line
                self._read(file.read())
                file.truncate(self._end)

    def _read(self, content: bytes) -> ChainedLines:
        chain = read_noted_chain(content, self._noted)
        if chain.not_json:
            raise RunFolderError(
                f"{self.path} is damaged in line {chain.not_json}",
                "a line before the last is not JSON: not the result of an interrupted write",
                f"restore the file from a copy, or move it away: {shell('mv', self.path, f'{self.path}.damaged')}",
            )
        self._end, self._head = chain.size, chain.head
        return chain

    def append(self, *entries: dict[str, Any]) -> None:
        """Add a line for each entry and wait until all are on disk; on an error none is."""
        is_new = not self.path.exists()
        with self.path.open("a+b") as file:
            operating_system.lock(file)
            if file.seek(0, os.SEEK_END) != self._end:  # another process has written, or was killed in mid-write
                file.seek(0)
                self._read(file.read())
                file.truncate(self._end)
            raw, head = b"", self._head
            for entry in entries:
                line, head = chained_line(entry, head)
                raw += line
            with disk_errors(self.path, len(raw)):
                try:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self.path, self._end)
                    raise
        if is_new:  # else a crash could leave the lines on disk and no name that leads to them
            operating_system.sync_folder(self.path.parent)
        self._end, self._head = self._end + len(raw), head
        self.entries += entries


class Change(NamedTuple):
    """A file of a run that is not as it was written; ``line`` is the first such line, 0 where it is not known."""

    file: str
    what: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}{f' line {self.line}' if self.line else ''} {self.what}"


_CHANGED = "is not as it was written"


def _journal_changes(name: str, content: bytes, noted: Mapping[str, Any] | None) -> list[Change]:
    """Return the lines of a journal that are changed, cut off or missing."""
    chain = read_noted_chain(content, noted)
    changes = [
        Change(name, _CHANGED if a == b else f"to {b}: at least one is not as it was written", a)
        for a, b in chain.changed
    ]
    if chain.not_json:
        changes.append(Change(name, _CHANGED, chain.not_json))
    if chain.torn:
        changes.append(Change(name, "is cut off", len(chain.links) + 1))
    elif noted and len(chain.links) < noted["num_lines"]:
        changes.append(Change(name, "and those after it are missing", len(chain.links) + 1))
    return changes


def _near(path: Path) -> Path | None:
    """Return the run folder beside a path that does not exist whose name is most like its name."""
    beside = path.parent.iterdir() if path.parent.is_dir() and not path.exists() else ()
    names = [sibling.name for sibling in beside if (sibling / RUN_MARKER).is_file()]
    return next((path.parent / name for name in difflib.get_close_matches(path.name, names, 1)), None)


class RunFolder:
    """One run's files. Paths are given relative to the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: set[str] = set()  # since their digests were noted
        self._warned: set[str] = set()

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Open a folder for writing; make it when it does not exist.

        Raises:
            RunFolderError: the folder holds something else than a run, or cannot be written.
        """
        try:
            make_folder(path)
            marker = path / RUN_MARKER
            if not marker.exists():
                strange = any(not p.name.startswith(".") for p in path.iterdir())
                if strange and not (path / RunFile.RECIPE).exists():
                    headline = f"{path} is not empty and is not a run folder"
                    raise RunFolderError(headline, f"it has no {RUN_MARKER}", _ELSEWHERE)
                write_atomic(marker, _MARKER)
        except OSError as error:
            raise RunFolderError(f"cannot write to {path}", str(error), _ELSEWHERE) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run folder for reading.

        Raises:
            RunFolderError: there is none at this path.
        """
        if not (path / RUN_MARKER).is_file():
            cause = f"it has no {RUN_MARKER}" if path.exists() else "it does not exist"
            hint = f"make one: {command('run', 'RECIPE', '--dir', path)}"
            if path.suffix == ".toml":
                cause, hint = "it is a recipe", f"name its run folder: {Path('runs') / path.stem}, or what --dir said"
            elif near := _near(path):
                hint = f"did you mean {near}?"
            raise RunFolderError(f"{path} is not a run folder", cause, hint)
        for file in path.rglob("*"):
            if fault := special_file(file):
                raise RunFolderError(f"cannot read {file}", fault, f"remove it: {shell('rm', file)}")
        return cls(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against a second process; the lock ends with the process, however it ends.

        Raises:
            RunFolderError: another process holds it.
        """
        try:
            opened = (self.path / ".lock").open("a+")
        except OSError as error:
            raise RunFolderError(f"cannot write to {self.path}", str(error), _ELSEWHERE) from error
        with opened as file:
            try:
                operating_system.lock(file, wait=False)
            except BlockingIOError as error:
                file.seek(0)
                raise RunFolderError(
                    f"another process is working on {self.path}",
                    f"process {file.read().strip() or 'unknown'} holds its lock",
                    f"wait for it ({command('status', self.path)}), or {_ELSEWHERE}",
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                self.note()

    def is_locked(self) -> bool:
        """Return whether a process is working on the folder now."""
        lock = self.path / ".lock"
        if not lock.is_file():
            return False
        with lock.open("rb") as file:
            try:
                operating_system.lock(file, wait=False, shared=True)
            except BlockingIOError:
                return True
        return False

    def file(self, name: str) -> Path:
        """Return the path of a file of this run."""
        return self.path / name

    def again(self) -> str:
        """Return the command that runs this recipe again, as far as something changed."""
        return command("run", self.file(RunFile.RECIPE), "--dir", self.path)

    def write(self, name: str, content: str | bytes, private: bool = False) -> None:
        """Write a whole file atomically; only its owner may read a private one."""
        self.unnote(name)
        write_atomic(self.file(name), content.encode() if isinstance(content, str) else content, private)
        self._written.add(name)

    def write_json(self, name: str, content: object) -> None:
        """Write a JSON file atomically."""
        self.write(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object of this run.

        Raises:
            RunFolderError: the file is missing or damaged.
        """
        with reading("file", self.file(name), _REWRITE, RunFolderError):
            raw = self.file(name).read_bytes()
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise RunFolderError(f"{self.file(name)} is not valid JSON", cause_of(error), _REWRITE) from error
        if not isinstance(content, dict):
            raise RunFolderError(f"{self.file(name)} is not a JSON object", "", _REWRITE)
        return content

    def read_record(self, name: str, kind: type[AnyRecord]) -> AnyRecord:
        """Read a JSON file that holds one record.

        Raises:
            RunFolderError: the file is missing or damaged.
        """
        content = self.read_json(name)
        with reading(kind.__name__.lower(), self.file(name), _REWRITE, RunFolderError):
            return kind.model_validate(content)

    def json_if_any(self, name: str) -> dict[str, Any]:
        """Read a JSON object of this run; empty where the file is missing or holds none."""
        try:
            return self.read_json(name) if self.file(name).is_file() else {}
        except RunFolderError:
            return {}

    def stage_record(self, stage: str) -> dict[str, Any]:
        """Return what a stage noted when it finished; empty where that is missing or damaged."""
        record = self.json_if_any(f"stages/{stage}.json")
        try:
            StageSummary.model_validate(record.get("summary", {"num_in": 0, "num_out": 0}))
        except ValueError:
            return {}
        is_sound = all(
            isinstance(record.get(key, {}), dict) for key in ("ingredients", "outputs", "versions", "machine")
        )
        return record if is_sound else {}

    def write_records(self, name: str, records: Iterable[Record]) -> None:
        """Write a file of records atomically, one by one: they may be a generator."""
        self.unnote(name)
        write_atomic(self.file(name), jsonl_lines(records))
        self._written.add(name)

    def read_records(self, name: str, kind: type[AnyRecord]) -> list[AnyRecord]:
        """Read a file of records."""
        return list(read_jsonl(self.file(name), kind))

    def each_record(self, name: str, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
        """Yield the records of a file one by one."""
        return read_jsonl(self.file(name), kind)

    def records_if_any(self, name: str, kind: type[AnyRecord]) -> list[AnyRecord]:
        """Read a file of records; none where no stage had cause to write it."""
        return self.read_records(name, kind) if self.file(name).exists() else []

    def reject(self, stage: str, rejections: Iterable[Rejection]) -> dict[str, int]:
        """Put a stage's rejected records in place of its earlier ones; return the counts by reason."""
        others = [r for r in self.records_if_any(RunFile.REJECTED, Rejection) if r.stage != stage]
        own = list(rejections)
        self.write_records(RunFile.REJECTED, [*others, *own])
        return dict(Counter(rejection.reason for rejection in own))

    def journal(self, name: str = RunFile.JOURNAL) -> Journal:
        """Open an append-only journal of this run; warn of the lines that are not as they were written."""
        journal = Journal(self.file(name), self._noted().get(name))
        if journal.changed and name not in self._warned:
            self._warned.add(name)
            lines = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in journal.changed[:5])
            console.warning(
                f"{journal.path}: not as written, and not used: line {lines}{' …' * (len(journal.changed) > 5)}"
            )
        return journal

    def journal_entries(self, name: str) -> list[dict[str, Any]]:
        """Return the entries of a journal that another process may be writing; none where there is no such file."""
        return read_chain(self.file(name).read_bytes()).entries if self.file(name).is_file() else []

    def _noted(self) -> dict[str, dict[str, Any]]:
        """Return what was noted last of each file."""
        path = self.file(RunFile.FILES)
        entries = read_chain(path.read_bytes(), 0).entries if path.is_file() else ()
        latest = {str(entry.get("file")): entry for entry in entries}
        return {name: entry for name, entry in latest.items() if len(entry) > 1}

    def note(self, *names: str) -> None:
        """Note the digests of these files and folders and of all that was written since; ``changes`` compares them."""
        noted = self._noted()
        names = tuple(name for name in dict.fromkeys([*names, *sorted(self._written)]) if self.file(name).exists())
        files = [file for name in names for file in self._files_in(name) if file not in JOURNALS]
        entries: list[dict[str, Any]] = []
        for file in dict.fromkeys(files):
            path = self.file(file)
            lines = line_digests(path)
            entries.append({"file": file, "sha256": file_digest(path), **({"lines": lines} if lines else {})})
        for journal in JOURNALS:
            if self.file(journal).is_file():
                chain = read_noted_chain(self.file(journal).read_bytes(), noted.get(journal))
                counts = {"num_lines": len(chain.links), "num_old": chain.num_old, "head": chain.head}
                entries.append({"file": str(journal), **counts})
        if fresh := [entry for entry in entries if entry != noted.get(entry["file"])]:
            Journal(self.file(RunFile.FILES), _ALL_LINKED).append(*fresh)
        self._written.clear()

    def unnote(self, *names: str) -> None:
        """Forget the digests of files and folders that are about to be written again: a kill may leave either."""
        noted = self._noted()
        gone = [file for file in noted if any(file == name or file.startswith(f"{name}/") for name in names)]
        if gone := [file for file in gone if file not in JOURNALS]:
            Journal(self.file(RunFile.FILES), _ALL_LINKED).append(*({"file": file} for file in gone))

    def _files_in(self, name: str) -> list[str]:
        path = self.file(name)
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        return [file.relative_to(self.path).as_posix() for file in inside]

    def changes(self) -> list[Change]:
        """Return the files that are not as they were written, those of runs inside this one included."""
        path, noted = self.file(RunFile.FILES), self._noted()
        changes = _journal_changes(RunFile.FILES, path.read_bytes(), _ALL_LINKED) if path.is_file() else []
        marker = self.file(RUN_MARKER)
        if marker.is_file() and marker.read_bytes() != _MARKER:
            changes.append(Change(RUN_MARKER, _CHANGED, 1))
        for journal in JOURNALS:
            if self.file(journal).is_file():
                changes += _journal_changes(journal, self.file(journal).read_bytes(), noted.get(journal))
        for name, entry in noted.items():
            file = self.file(name)
            if not file.is_file():
                changes.append(Change(name, "is missing"))
            elif "sha256" in entry and file_digest(file) != entry["sha256"]:
                changes.append(Change(name, _CHANGED, first_changed_line(file, entry.get("lines", ""))))
        for inner in sorted({p.parent for p in self.path.rglob(str(RunFile.FILES))} - {self.path}):
            prefix = inner.relative_to(self.path).as_posix()
            changes += [change._replace(file=f"{prefix}/{change.file}") for change in RunFolder(inner).changes()]
        return changes

    def uncovered(self) -> list[str]:
        """Return the files of this run of which no digest was noted, and the journals with lines without a link."""
        noted = self._noted()
        without = (RunFile.FILES, RunFile.REPORT, RunFile.DATA_REPORT, RunFile.VECTORS)  # it has its own
        names = [str(name) for name in RunFile if name not in without]
        names += [f"stages/{path.name}" for path in sorted(self.file("stages").glob("*.json")) if path.stem != "report"]
        unknown = [name for name in names if self.file(name).is_file() and name not in noted]
        return unknown + [str(name) for name in JOURNALS if noted.get(name, {}).get("num_old")]

    def log(self, event: str, **fields: object) -> None:
        """Append an event, with the time, to the run's journal."""
        self.journal().append({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **fields})
