"""The runs of a folder, by keys that are no paths; and the state of each from its files, read as they are."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.recipe import RUN_MARKER
from tunewright.run_folder import RunFile
from tunewright.studio.jobs import STUDIO_FOLDER, Job

_BASE = re.compile(r'^\[model\]\n(?:[^\[\n].*\n|\n)*?base *= *"([^"\n]*)"', re.MULTILINE)
_DURATION = re.compile(rb'"duration_s": ?(\d+(?:\.\d+)?)')
_DEPTH = 3
_MOST_ENTRIES = 20_000
_MOST_BYTES = 8 << 20  # of a JSON file that a page reads
_SKIPPED = {STUDIO_FOLDER, "uploads", "node_modules", "__pycache__"}
_STAGES, _LOCK = "stages", ".lock"


@dataclass(frozen=True)
class KnownRun:
    """A run of the folder: its key in addresses, its name for people, and its folder."""

    key: str
    name: str
    path: Path


@dataclass(frozen=True)
class RunSummary:
    """A row of the home page.

    ``score`` and ``interval`` are the tuned model's, ``base`` the base's; ``dollars`` is 0 where no call has a price.
    ``state`` is "running", "queued", "finished", "failed", "stopped" or "unfinished", ``what`` says more.
    """

    run: KnownRun
    state: str
    what: str
    verdict: str
    score: float | None
    interval: tuple[float, float] | None
    base: float | None
    seconds: float
    calls: int
    dollars: float
    changed: float
    base_model: str


def known_runs(folder: Path) -> dict[str, KnownRun]:
    """Return the runs in a folder and in its subfolders by their keys; links are not followed."""
    runs = (KnownRun(key_of(name), name, path) for name, path in _run_folders(folder))
    return {run.key: run for run in sorted(runs, key=lambda run: run.name)}


def key_of(name: str) -> str:
    """Return the key of a run or a recipe in addresses."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:12]


def _run_folders(folder: Path) -> Iterator[tuple[str, Path]]:
    waiting, num_entries = [(folder, 0)], 0
    while waiting:
        current, depth = waiting.pop()
        if (current / RUN_MARKER).is_file():
            yield (current.relative_to(folder).as_posix() if current != folder else folder.resolve().name), current
            continue
        with suppress(OSError), os.scandir(current) as entries:
            for entry in entries:
                num_entries += 1
                inside = depth < _DEPTH and num_entries < _MOST_ENTRIES and not entry.name.startswith(".")
                if inside and entry.name not in _SKIPPED and entry.is_dir(follow_symlinks=False):
                    waiting.append((current / entry.name, depth + 1))


def regular_file(run: KnownRun, name: str) -> Path | None:
    """Return the path of a file of a run, by a name of ours; None where it is missing, a link or no file."""
    path = run.path / name
    with suppress(OSError):
        folders_are_own = path.parent == run.path or not path.parent.is_symlink()
        if folders_are_own and stat.S_ISREG(path.lstat().st_mode):
            return path
    return None


def json_of(run: KnownRun, name: str) -> dict[str, Any]:
    """Return a JSON object of a run; empty where it is missing, damaged or too large to show."""
    path = regular_file(run, name)
    with suppress(OSError, ValueError, RecursionError):
        if path is not None and path.stat().st_size <= _MOST_BYTES:
            content = json.loads(path.read_bytes())
            return content if isinstance(content, dict) else {}
    return {}


def stamp(*paths: Path) -> tuple[tuple[int, int], ...]:
    """Return what changes when one of these files is written: times and sizes."""
    stamps = []
    for path in paths:
        try:
            info = path.stat()
            stamps.append((info.st_mtime_ns, info.st_size))
        except OSError:
            stamps.append((0, -1))
    return tuple(stamps)


def lines_from(path: Path, start: int, most_bytes: int = _MOST_BYTES) -> tuple[list[bytes], int]:
    """Return the whole lines of a file from a byte on, and where the next begins."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read(most_bytes)
    except OSError:
        return [], start
    end = content.rfind(b"\n") + 1
    return content[:end].splitlines(), start + end


@dataclass
class Summaries:
    """The rows of the home page; a run whose files have not changed is not read again."""

    _rows: dict[str, tuple[object, RunSummary]] = field(default_factory=dict)

    def of(self, run: KnownRun, job: Job | None) -> RunSummary:
        """Return a run's row; ``job`` is its latest."""
        path = run.path
        current = (
            stamp(path / RunFile.VERDICT, path / _STAGES, path / RunFile.JOURNAL, path / RunFile.TEACHER_JOURNAL),
            job,
            _is_locked(path),
        )
        known = self._rows.get(run.key)
        if known is None or known[0] != current:
            known = self._rows[run.key] = current, _summary(run, job)
        return known[1]


def _summary(run: KnownRun, job: Job | None) -> RunSummary:
    verdict = json_of(run, RunFile.VERDICT)
    stages = _stage_times(run)
    state, what = state_of(run, job, verdict, stages)
    arms = {arm["arm"]: arm["primary"] for arm in _arms(verdict)}
    tuned, base = arms.get("tuned", {}), arms.get("base", {})
    calls, dollars = _teacher_use(run)
    return RunSummary(
        run=run,
        state=state,
        what=what,
        verdict=str(verdict.get("name", "")),
        score=tuned.get("mean"),
        interval=(tuned["low"], tuned["high"]) if {"low", "high"} <= tuned.keys() else None,
        base=base.get("mean"),
        seconds=sum(seconds for seconds, _ in stages.values()),
        calls=calls,
        dollars=dollars,
        changed=max((changed for _, changed in stages.values()), default=run.path.stat().st_mtime),
        base_model=_base_model(run),
    )


def _arms(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        return [arm for arm in verdict["results"]["arms"] if isinstance(arm["primary"], dict) and "arm" in arm]
    except (KeyError, TypeError):
        return []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _base_model(run: KnownRun) -> str:
    """Return the base that the recipe names; a search for its line, since 200 recipes take seconds to parse."""
    path = regular_file(run, RunFile.RECIPE)
    with suppress(OSError):
        if path is not None and path.stat().st_size <= _MOST_BYTES:
            match = _BASE.search(path.read_text(encoding="utf-8", errors="replace"))
            return match[1] if match else ""
    return ""


def finished_stages(run: KnownRun) -> dict[str, dict[str, Any]]:
    """Return the records of the finished stages by name; ``_changed`` is when each was written."""
    records = {}
    with suppress(OSError):
        for entry in os.scandir(run.path / _STAGES):
            if entry.name.endswith(".json") and entry.is_file(follow_symlinks=False):
                record = json_of(run, f"{_STAGES}/{entry.name}")
                if record:
                    records[entry.name.removesuffix(".json")] = {**record, "_changed": entry.stat().st_mtime}
    return records


def _stage_times(run: KnownRun) -> dict[str, tuple[float, float]]:
    """Return (seconds that it took, when it was written) of each finished stage, without parsing its whole record."""
    times = {}
    with suppress(OSError), os.scandir(run.path / _STAGES) as entries:
        for entry in entries:
            if entry.name.endswith(".json") and entry.is_file(follow_symlinks=False):
                info = entry.stat()
                raw = Path(entry.path).read_bytes() if info.st_size <= _MOST_BYTES else b""
                match = _DURATION.search(raw)
                times[entry.name.removesuffix(".json")] = (float(match[1]) if match else 0.0, info.st_mtime)
    return times


def _teacher_use(run: KnownRun) -> tuple[int, float]:
    """Return the number of calls on record, and the dollars that they cost."""
    path = regular_file(run, RunFile.TEACHER_JOURNAL)
    calls, dollars, start = 0, 0.0, 0
    while path is not None:
        lines, end = lines_from(path, start)
        if end == start:
            break
        start = end
        for line in lines:
            calls += 1
            if b'"cost"' in line:
                with suppress(ValueError, AttributeError, TypeError):
                    dollars += _number(json.loads(line).get("cost"))
    return calls, dollars


def running_stage(run: KnownRun) -> str:
    """Return the stage that started last and has not finished; "" if there is none."""
    path = regular_file(run, RunFile.JOURNAL)
    if path is None:
        return ""
    lines, _ = lines_from(path, max(0, path.stat().st_size - 4000))
    for line in reversed(lines):
        with suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("event") in ("start", "finish"):
                return str(entry.get("stage", "")) if entry["event"] == "start" else ""
    return ""


def state_of(
    run: KnownRun, job: Job | None, verdict: Mapping[str, Any], stages: Mapping[str, object]
) -> tuple[str, str]:
    """Return the state of a run, and a few words on it."""
    stage = running_stage(run)
    if job and job.state != "ended":
        return job.state, stage if job.state == "running" else f"waits for the {job.lane}"
    if pid := _is_locked(run.path):
        return "running", f"{stage or 'started'} (process {pid}, from a terminal)"
    if job and job.failed and job.kind == "run":
        return "failed", job.how
    if verdict and "report" in stages:
        return "finished", ""
    if job and job.stops:
        return "stopped", f"in {stage}" if stage else job.how
    return "unfinished", f"stopped in {stage}" if stage else f"{len(stages)} stages are done"


def _is_locked(path: Path) -> int:
    """Return the process that works on a run, by the system's own list of locks; 0 where none does."""
    try:
        inode = (path / _LOCK).stat().st_ino
        held = _locks()
    except OSError:
        return 0
    return held.get(inode, 0)


_known_locks: list[tuple[float, dict[int, int]]] = []


def _locks() -> dict[int, int]:
    """Return the processes that hold a lock, by the file's inode, as they were within the last half second."""
    if not _known_locks or time.monotonic() - _known_locks[0][0] > 0.5:
        _known_locks[:] = [(time.monotonic(), _read_locks())]
    return _known_locks[0][1]


def _read_locks() -> dict[int, int]:
    """Return the processes that hold a lock, by inode; to take the lock, only to see, would disturb a run."""
    with suppress(OSError):
        rows = (line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines())
        return {int(row[5].rpartition(":")[2]): int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK"}
    return {}
