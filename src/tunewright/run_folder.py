"""A run's folder: its files, records and append-only journals, and one writer at a time."""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from tunewright.errors import RunFolderError, cause_of, command, reading, shell
from tunewright.recipe import RUN_MARKER
from tunewright.records import AnyRecord, Record, Rejection, StageSummary, dump_jsonl, read_jsonl
from tunewright.storage import disk_errors, write_atomic


class RunFile(StrEnum):
    """Every file and folder of a run, by the name that it has on disk; the report lists the stages in this order."""

    RECIPE = "recipe.toml"
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
    REWARDS = "rewards.jsonl"
    ADAPTER = "adapter"
    PLACEBO = "placebo/adapter"
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
    BENCHMARKS = "benchmarks.json"
    PREVIEW = "preview.json"
    REPORT = "report.html"
    DATA_REPORT = "data.html"
    EXPORTS = "exports"
    SERVING = "serving"
    JOURNAL = "journal.jsonl"
    TEACHER_JOURNAL = "teacher.jsonl"
    STUDENT_JOURNAL = "student-answers.jsonl"
    ANSWERS_JOURNAL = "answers-journal.jsonl"
    PREVIEW_JOURNAL = "preview-journal.jsonl"
    BENCHMARKS_JOURNAL = "benchmarks-journal.jsonl"


_ELSEWHERE = "name another folder with --dir"
_REWRITE = "restore it from a copy, or delete it and run again: it is written again"


class Journal:
    """An append-only file of JSON lines; each line is on disk before ``append`` returns.

    A torn last line (a crash in mid-write) is dropped when the journal is opened; ``num_torn`` counts it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.num_torn = 0
        self.entries: list[dict[str, Any]] = []
        end = 0
        away = f"restore it from a copy, or move it away: {shell('mv', path, f'{path}.damaged')}"
        with reading("journal", path, away, RunFolderError):
            content = path.read_bytes() if path.exists() else b""
        for raw in content.splitlines(keepends=True):
            try:
                entry = json.loads(raw) if raw.endswith(b"\n") else None
            except (ValueError, RecursionError):
                entry = None
            if not isinstance(entry, dict):
                self.num_torn += 1
                break
            self.entries.append(entry)
            end += len(raw)
        if end < len(content):
            if content.count(b"\n", end) > 1:
                raise RunFolderError(
                    f"{path} is damaged in line {len(self.entries) + 1}",
                    "a line before the last is not JSON: not the result of an interrupted write",
                    f"restore the file from a copy, or move it away: {shell('mv', path, f'{path}.damaged')}",
                )
            os.truncate(path, end)

    def append(self, *entries: dict[str, Any]) -> None:
        """Add a line for each entry and wait until all are on disk; on an error none is."""
        raw = b"".join(json.dumps(e, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for e in entries)
        with disk_errors(self.path, len(raw)), self.path.open("ab") as file:
            size = file.tell()
            try:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, size)
                raise
        self.entries += entries


def _near(path: Path) -> Path | None:
    """Return the run folder beside a path that does not exist whose name is most like its name."""
    beside = path.parent.iterdir() if path.parent.is_dir() and not path.exists() else ()
    names = [sibling.name for sibling in beside if (sibling / RUN_MARKER).is_file()]
    return next((path.parent / name for name in difflib.get_close_matches(path.name, names, 1)), None)


class RunFolder:
    """One run's files. Paths are given relative to the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Open a folder for writing; make it when it does not exist.

        Raises:
            RunFolderError: the folder holds something else than a run, or cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            marker = path / RUN_MARKER
            if not marker.exists():
                strange = any(not p.name.startswith(".") for p in path.iterdir())
                if strange and not (path / RunFile.RECIPE).exists():
                    headline = f"{path} is not empty and is not a run folder"
                    raise RunFolderError(headline, f"it has no {RUN_MARKER}", _ELSEWHERE)
                write_atomic(marker, b'{"format": 1}\n')
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
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
            yield

    def file(self, name: str) -> Path:
        """Return the path of a file of this run."""
        return self.path / name

    def again(self) -> str:
        """Return the command that runs this recipe again, as far as something changed."""
        return command("run", self.file(RunFile.RECIPE), "--dir", self.path)

    def write(self, name: str, content: str | bytes) -> None:
        """Write a whole file atomically."""
        write_atomic(self.file(name), content.encode() if isinstance(content, str) else content)

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
        """Write a file of records atomically."""
        self.write(name, dump_jsonl(records))

    def read_records(self, name: str, kind: type[AnyRecord]) -> list[AnyRecord]:
        """Read a file of records."""
        return list(read_jsonl(self.file(name), kind))

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
        """Open an append-only journal of this run."""
        return Journal(self.file(name))

    def log(self, event: str, **fields: object) -> None:
        """Append an event, with the time, to the run's journal."""
        self.journal().append({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **fields})
