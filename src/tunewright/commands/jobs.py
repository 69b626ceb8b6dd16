"""Commands in child processes: short ones awaited, long ones started and polled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunewright import operating_system
from tunewright.errors import UserError

_MAX_LINES = 20  # of a job's messages that a poll returns
_MAX_TAIL_BYTES = 20_000


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "tunewright", *words]


def _environment() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}


def document_of(words: Sequence[str]) -> dict[str, Any]:
    """Return the JSON document that a command writes to stdout: its own, or that of its error."""
    command = _command([words[0], "--json", *words[1:]])
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=_environment(), check=False
    )
    try:
        document: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        raise UserError(
            f"tunewright {words[0]} ended with {result.returncode} and without a document",
            " ".join(result.stderr.split("\n")[-3:]).strip(),
            "check the installation: tunewright doctor",
        ) from None
    return document


@dataclass
class Job:
    """A command in a child process that is polled; it continues when this process ends.

    Attributes:
        words: of the command line, without the program.
        messages: the file with what it writes to stderr.
        output: the file with what it writes to stdout.
    """

    identity: str
    words: tuple[str, ...]
    messages: Path
    output: Path
    process: subprocess.Popen[bytes]
    start: float = field(default_factory=time.time)
    end: float | None = None

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs."""
        code = self.process.poll()
        if code is not None and self.end is None:
            self.end = time.time()
        return code

    @property
    def state(self) -> Literal["running", "done", "failed", "stopped"]:
        """In a word."""
        code = self.exit_code
        if code is None:
            return "running"
        return "done" if code == 0 else "stopped" if code in (130, -signal.SIGINT) else "failed"

    def last_messages(self) -> list[str]:
        """Return the last lines that it wrote to stderr."""
        with self.messages.open("rb") as file:
            file.seek(max(0, self.messages.stat().st_size - _MAX_TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-_MAX_LINES:]

    def document(self) -> dict[str, Any] | None:
        """Return the document that it wrote to stdout; None without a whole one."""
        try:
            content = json.loads(self.output.read_text(encoding="utf-8"))
        except ValueError:
            return None
        return content if isinstance(content, dict) else None


class Jobs:
    """The jobs that this process started: one at a time, since each may fill the memory of the device."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def start(self, words: Sequence[str]) -> Job:
        """Start a command.

        Raises:
            UserError: another job is running.
        """
        if running := next((job for job in self._jobs.values() if job.exit_code is None), None):
            raise UserError(
                f"job {running.identity} is still running",
                f"tunewright {' '.join(running.words)}",
                "poll it until it ends, or stop it",
            )
        folder = Path(tempfile.mkdtemp(prefix="tunewright-job-"))
        messages, output = folder / "messages.txt", folder / "output.json"
        with messages.open("wb") as errors, output.open("wb") as out:
            # A session of its own: Ctrl-C in this terminal, or the end of this process, does not end hours of work.
            process = subprocess.Popen(
                _command(words),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=_environment(),
                **operating_system.own_session(),
            )
        job = Job(str(len(self._jobs) + 1), tuple(words), messages, output, process)
        self._jobs[job.identity] = job
        return job

    def __getitem__(self, identity: str) -> Job:
        """Return a job.

        Raises:
            UserError: there is none of this name.
        """
        if identity not in self._jobs:
            known = ", ".join(self._jobs) or "none has been started"
            hint = "what an earlier server started goes by its run folder: ask for its status"
            raise UserError(f"there is no job {identity!r}", f"jobs of this server: {known}", hint)
        return self._jobs[identity]

    def stop(self, identity: str) -> Job:
        """Interrupt a job as Ctrl-C would, so that its finished work is kept; return it.

        Raises:
            UserError: there is none of this name.
        """
        job = self[identity]
        if job.exit_code is None:
            operating_system.interrupt(job.process.pid)
        return job
