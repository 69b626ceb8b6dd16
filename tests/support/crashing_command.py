"""One command with one fault, as a process of its own: python -m support.crashing_command FAULT NUMBER FOLDER ARGUMENT ...

FAULT, with NUMBER's meaning:

- "none"
- "count": none; the number of changes below FOLDER is printed at the end
- "kill", "interrupt", "error": SIGKILL, SIGINT or an input/output error at the n-th change below FOLDER
- "clock": SIGKILL after so many milliseconds, wherever the command is
- "full": flushes fail once so many bytes were written below FOLDER
- "read-only": every change below FOLDER fails

It runs in a child of ``support.warm_process``. The processes that read documents and render templates are forked too,
with their own limits, instead of starting Python anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import tunewright.models.capped_process
from support.faults import disk_of, read_only, watched

MAX_S = 300  # a command of seconds that takes as long hangs: SIGALRM ends it


class ForkedWorker:
    """Stands for ``subprocess.Popen`` of ``python -P -m MODULE ARGUMENT ...``."""

    def __init__(self, command: list[str], stdin: int, stdout: int, stderr: IO[bytes], bufsize: int) -> None:
        lines, answers = os.pipe(), os.pipe()
        self._code: int | None = None
        self._pid = os.fork()
        if not self._pid:
            for source, target in ((lines[0], 0), (answers[1], 1), (stderr.fileno(), 2)):
                os.dup2(source, target)
            os.closerange(3, 256)
            sys.stdin = os.fdopen(0, encoding="utf-8")
            sys.argv = command[3:]
            with contextlib.suppress(BaseException):
                runpy.run_module(command[3], run_name="__main__")
            os._exit(0)
        os.close(lines[0])
        os.close(answers[1])
        self.stdin, self.stdout = os.fdopen(lines[1], "wb", buffering=0), os.fdopen(answers[0], "rb", buffering=0)

    def poll(self, flags: int = os.WNOHANG) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self._pid, flags)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self) -> int | None:
        return self.poll(0)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)


def _own_signal(number: int) -> None:
    os.kill(os.getpid(), number)


def _input_output_error() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


_ACTIONS = {
    "kill": lambda: _own_signal(signal.SIGKILL),
    "interrupt": lambda: _own_signal(signal.SIGINT),
    "error": _input_output_error,
}


@contextlib.contextmanager
def at_change(number: int, folder: Path, fault: str) -> Iterator[None]:
    """Have a fault at the n-th change below a folder."""
    count = 0

    def before(operation: str, path: object) -> None:
        nonlocal count
        count += 1
        if count == number:
            _ACTIONS[fault]()

    with watched(folder, before):
        try:
            yield
        finally:
            if fault == "count":
                print(f"changes: {count}", file=sys.stderr)


def kill_after(milliseconds: int) -> None:
    """Have a process of its own kill this one, from outside and at no chosen place."""
    parent = os.getpid()
    if not os.fork():
        time.sleep(milliseconds / 1000)
        if os.getppid() == parent:
            os.kill(parent, signal.SIGKILL)
        os._exit(0)


def _faulty(fault: str, number: int, folder: Path) -> Any:
    if fault == "clock":
        kill_after(number)
    elif fault == "full":
        return disk_of(folder, number)
    elif fault == "read-only":
        return read_only(folder)
    elif fault != "none":
        return at_change(number, folder, fault)
    return contextlib.nullcontext()


def main() -> None:
    fault, number, folder, *arguments = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
    signal.alarm(MAX_S)
    tunewright.models.capped_process.subprocess = _Subprocess  # type: ignore[attr-defined]
    sys.argv[1:] = arguments
    with _faulty(fault, int(number), Path(folder)):
        runpy.run_module("tunewright", run_name="__main__", alter_sys=True)


class _Subprocess:
    """What ``capped_process`` uses of the module ``subprocess``."""

    PIPE = -1
    Popen = ForkedWorker


if __name__ == "__main__":
    main()
