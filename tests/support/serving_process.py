"""``tunewright serve`` as its user starts it: a process, the address that it prints, and its end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
MAIN = "from tunewright.cli import main; import sys; main(sys.argv[1:])"
WITH_CUDA = "import torch; torch.cuda.is_available = lambda: True; "  # as far as the choice of the engine asks


def command(run: Path, *arguments: str, cuda: bool = False) -> list[str]:
    return [sys.executable, "-c", (WITH_CUDA if cuda else "") + MAIN, "serve", str(run), "--port", "0", *arguments]


def refused(run: Path, *arguments: str, cuda: bool = False, **environment: str) -> tuple[int, str]:
    """Return the exit code and stderr of a server that does not start and prints no address."""
    done = subprocess.run(
        command(run, *arguments, cuda=cuda),
        capture_output=True,
        text=True,
        timeout=300,
        env={**ENVIRONMENT, **environment},
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@contextmanager
def served(
    run: Path, *arguments: str, cuda: bool = False, **environment: str
) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start the server; yield its address and process; end it as Ctrl-C does."""
    process = subprocess.Popen(
        command(run, *arguments, cuda=cuda),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **environment},
    )
    try:
        assert select.select([process.stdout], [], [], 300)[0]
        address = process.stdout.readline().strip()
        assert address, process.stderr.read()
        yield address, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def children(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these started."""
    output = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in output] + [grand for child in output for grand in children(int(child))]


def all_gone(pids: list[int], within_s: float = 30) -> bool:
    """Return whether the processes end in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(_runs(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
