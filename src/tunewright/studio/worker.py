"""The worker of one queue, in a session of its own: it starts each command, and writes down how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tunewright import operating_system
from tunewright.studio.jobs import Job, Jobs

_COLUMNS = "140"  # of the tables that a command prints


def work(folder: Path, lane: str) -> None:
    """Run the jobs of a queue, one after the other, until it is empty."""
    # Whoever started this process may ignore Ctrl-C, and a command would inherit that and could not be stopped.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    jobs = Jobs(folder)
    while (job := jobs.claim(lane)) is not None:
        jobs.note_end(job.id, _run(jobs, job, lane))


def _run(jobs: Jobs, job: Job, lane: str) -> int:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": _COLUMNS, "PYTHONUNBUFFERED": "1"}
    if lane.startswith("gpu "):
        environment["CUDA_VISIBLE_DEVICES"] = lane.removeprefix("gpu ")
    with jobs.log_path(job.id).open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "tunewright", *job.arguments],
            cwd=jobs.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **operating_system.own_session(),
        )
    if jobs.note_child(job.id, child.pid):
        operating_system.interrupt(child.pid)
    return child.wait()


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2])
