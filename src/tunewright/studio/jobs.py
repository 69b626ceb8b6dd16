"""Jobs: commands in processes of their own, a queue for each device, kept in a SQLite file beside the runs."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tunewright import operating_system
from tunewright.errors import UserError, command

STUDIO_FOLDER = ".studio"  # beside the runs: the queue, the logs, the token
DESK = "desk"  # the queue of commands that need no accelerator for long: init, plan, report, export
SERVE = "serve"  # the kind of a job that is a server
_BUSY_S = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, lane TEXT NOT NULL, arguments TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'ended')), created REAL NOT NULL, started REAL, ended REAL,
  worker INTEGER, worker_start TEXT, child INTEGER, child_start TEXT, exit_code INTEGER, how TEXT NOT NULL DEFAULT '',
  stops INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS by_lane ON jobs (lane, state, id);
CREATE INDEX IF NOT EXISTS by_subject ON jobs (subject, id);
"""


@dataclass(frozen=True)
class Job:
    """One command: what it is of, where it waits, and how it is or ended.

    ``subject`` is the key of a run or a recipe, ``lane`` the queue. ``worker`` is the process that started the command
    and writes down its end, ``child`` the command itself; each is known by its number and its start time.
    """

    id: int
    kind: str
    subject: str
    lane: str
    arguments: tuple[str, ...]
    state: str
    created: float
    started: float | None
    ended: float | None
    worker: int | None
    worker_start: str | None
    child: int | None
    child_start: str | None
    exit_code: int | None
    how: str
    stops: int

    @property
    def is_alive(self) -> bool:
        """Whether its command, or the process that will write down its end, still runs."""
        return is_process(self.worker, self.worker_start) or is_process(self.child, self.child_start)

    @property
    def is_open(self) -> bool:
        """Whether it waits, or works on its run; a server only reads it, for as long as it is wanted."""
        return self.state != "ended" and self.kind != SERVE

    @property
    def line(self) -> str:
        """The command as a terminal takes it."""
        return command(*self.arguments)

    @property
    def failed(self) -> bool:
        """Whether it ended in another way than by its end or by a stop that was asked for."""
        return self.state == "ended" and self.exit_code != 0 and not self.stops


_FIELDS = tuple(Job.__dataclass_fields__)
_SELECT = f"SELECT {', '.join(_FIELDS)} FROM jobs"


def start_time(pid: int) -> str:
    """Return when a process started, as the system counts it; "" where there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = shown.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


def is_process(pid: int | None, started: str | None) -> bool:
    """Return whether this very process still runs: a number alone may have gone to another."""
    return bool(pid and started) and start_time(pid or 0) == started


def devices() -> list[str]:
    """Return the names of this machine's GPUs as CUDA counts them, or "cpu"; no library is loaded for it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    else:
        named = sorted(path.name[6:] for path in Path("/dev").glob("nvidia[0-9]*"))
    return [f"gpu {name}" for name in named] or ["cpu"]


class Jobs:
    """The queue of a folder. Several processes may use it at once; each call is one transaction.

    Args:
        folder: that holds the runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / STUDIO_FOLDER
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        try:
            (self.home / "logs").mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection:
                connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"cannot keep the queue of jobs in {self.home}", str(error), "name a folder that you may write to"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.home / "jobs.sqlite", timeout=_BUSY_S, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def _read(self, where: str, *values: object) -> list[Job]:
        with closing(self._connect()) as connection:
            return _jobs(connection, where, *values)

    def log_path(self, job: int) -> Path:
        """Return the file that holds what a job prints."""
        return self.home / "logs" / f"{job}.log"

    def add(self, kind: str, subject: str, lane: str, arguments: Sequence[str]) -> int:
        """Put a command at the end of a queue, and see to it that the queue moves; return the job's number."""
        with self._change() as connection:
            cursor = connection.execute(
                "INSERT INTO jobs (kind, subject, lane, arguments, state, created) VALUES (?, ?, ?, ?, 'queued', ?)",
                (kind, subject, lane, json.dumps(list(arguments)), time.time()),
            )
        self.move()
        return int(cursor.lastrowid or 0)

    def get(self, job: int) -> Job | None:
        """Return a job, or None."""
        return next(iter(self._read("WHERE id = ?", job)), None)

    def of(self, subject: str, most: int = 20) -> list[Job]:
        """Return the latest jobs of a run or a recipe, the newest first."""
        return self._read("WHERE subject = ? ORDER BY id DESC LIMIT ?", subject, most)

    def latest(self, most: int = 50) -> list[Job]:
        """Return the latest jobs of all, the newest first."""
        return self._read("ORDER BY id DESC LIMIT ?", most)

    def open_jobs(self) -> list[Job]:
        """Return the jobs that wait or run, in their order."""
        return self._read("WHERE state != 'ended' ORDER BY id")

    def move(self) -> None:
        """Write down the jobs that died, and start a worker for each queue that waits without one."""
        self._workers = {lane: worker for lane, worker in self._workers.items() if worker.poll() is None}
        for job in self.open_jobs():
            if job.state == "running" and not job.is_alive:
                self._bury(job)
        waiting = self.open_jobs()
        busy = {job.lane for job in waiting if job.state == "running"} | self._workers.keys()
        for lane in dict.fromkeys(job.lane for job in waiting if job.lane not in busy):
            words = [sys.executable, "-m", "tunewright.studio.worker", str(self.folder), lane]
            with (self.home / "logs" / "workers.log").open("ab") as log:
                self._workers[lane] = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **operating_system.own_session()
                )

    def _bury(self, job: Job) -> None:
        with self._change() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'ended', ended = ?, how = ? WHERE id = ? AND state = 'running'",
                (time.time(), _last_words(self.log_path(job.id), None), job.id),
            )

    def claim(self, lane: str) -> Job | None:
        """Make this process the worker of the next job of a queue; None where it is empty or has another worker."""
        with self._change() as connection:
            if any(job.is_alive for job in _jobs(connection, "WHERE lane = ? AND state = 'running'", lane)):
                return None
            waiting = _jobs(connection, "WHERE lane = ? AND state = 'queued' ORDER BY id LIMIT 1", lane)
            if not waiting:
                return None
            own = (time.time(), os.getpid(), start_time(os.getpid()), waiting[0].id)
            connection.execute(
                "UPDATE jobs SET state = 'running', started = ?, worker = ?, worker_start = ? WHERE id = ?", own
            )
            return waiting[0]

    def note_child(self, job: int, child: int) -> bool:
        """Write down the process of a job's command; return whether it was stopped in the meantime."""
        with self._change() as connection:
            connection.execute(
                "UPDATE jobs SET child = ?, child_start = ? WHERE id = ?", (child, start_time(child), job)
            )
            return bool(_jobs(connection, "WHERE id = ?", job)[0].stops)

    def note_end(self, job: int, exit_code: int) -> None:
        """Write down how a job's command ended."""
        how = _last_words(self.log_path(job), exit_code)
        with self._change() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'ended', ended = ?, exit_code = ?, how = ? WHERE id = ?",
                (time.time(), exit_code, how, job),
            )

    def stop(self, job: int) -> None:
        """Take a job from its queue, or stop its command as Ctrl-C does: it keeps its finished work."""
        with self._change() as connection:
            connection.execute("UPDATE jobs SET stops = stops + 1 WHERE id = ? AND state != 'ended'", (job,))
            connection.execute(
                "UPDATE jobs SET state = 'ended', ended = ?, how = 'taken from the queue' "
                "WHERE id = ? AND state = 'queued'",
                (time.time(), job),
            )
        current = self.get(job)
        if current and current.state == "running" and is_process(current.child, current.child_start):
            operating_system.interrupt(current.child or 0)


def _jobs(connection: sqlite3.Connection, where: str, *values: object) -> list[Job]:
    rows = (dict(zip(_FIELDS, row, strict=True)) for row in connection.execute(f"{_SELECT} {where}", values))
    return [Job(**{**row, "arguments": tuple(json.loads(row["arguments"]))}) for row in rows]


_HEADLINE = re.compile(r"^error: (.+)$", re.MULTILINE)
_INTERRUPTED = (130, -signal.SIGINT)  # the latter before Python listens
_TAIL_BYTES = 8000


def _last_words(log: Path, exit_code: int | None) -> str:
    """Return how a command ended: its exit code in words, or what its last lines say."""
    if exit_code == 0:
        return "finished"
    if exit_code in _INTERRUPTED:
        return "stopped; finished work is kept"
    from tunewright.console import without_secrets

    headlines = _HEADLINE.findall(without_secrets(log_tail(log, _TAIL_BYTES)))
    if exit_code is None and not headlines:
        return "ended without a word: it was killed, or the machine went down; finished work is kept"
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-exit_code).name}; finished work is kept"
    return headlines[-1] if headlines else f"failed with exit code {exit_code}"


def log_tail(log: Path, most_bytes: int) -> str:
    """Return the last lines of a log; nothing where there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            tail = file.read()
    except OSError:
        return ""
    text = tail.decode("utf-8", "replace")
    return text if size <= most_bytes else text.partition("\n")[2]
