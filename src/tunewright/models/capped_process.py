"""A child process with limits of memory and time that answers one line after another; it ends with its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from tunewright import operating_system
from tunewright.errors import StageError

READY = b"ready"
_START_S = 120.0  # a cold disk and a busy machine included


class ProcessEndedError(Exception):
    """The process ended instead of answering; the message says how."""


class CappedProcess:
    """The parent's end of a running worker.

    Args:
        module: run with ``python -m``; it calls ``answer_lines``.
        memory_mb: the memory limit, beyond the use at the start.
        task: what the process does, for messages: "reads documents".
        cpu_s: processor time for one answer, after which the system ends the process; 0 is without a limit.

    Raises:
        StageError: it does not start.
    """

    def __init__(self, module: str, memory_mb: int, task: str, cpu_s: float = 0.0) -> None:
        self._max_reply_bytes = memory_mb * 2**20
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in stop
        # -P keeps the current folder off the module path: others' files may lie there, even one named json.py.
        command = [sys.executable, "-P", "-m", module, *map(str, (memory_mb, os.getpid(), cpu_s))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
        )
        try:
            started = self._line(time.monotonic() + _START_S) == READY
        except TimeoutError:
            started = False
        if not started:
            self._end()
            self._stderr.seek(0)
            last = self._stderr.read().decode(errors="replace").strip().splitlines()[-1:]
            self.stop()
            raise StageError(
                f"the process that {task} did not start",
                " ".join(last) or f"it did not answer within {_START_S:g} s",
                "check the installation: tunewright doctor",
            )

    def is_alive(self) -> bool:
        """Return whether the process can answer another line."""
        return self._process.poll() is None

    def ask(self, line: bytes, timeout_s: float) -> bytes:
        """Return the answer to a line; after an error other than a lack of memory the process has ended.

        Raises:
            TimeoutError: no answer in time.
            MemoryError: the answer alone is larger than the limit.
            ProcessEndedError: it ended instead.
        """
        assert self._process.stdin is not None
        try:
            rest = memoryview(line + b"\n")
            while rest:  # an unbuffered write may be partial
                rest = rest[self._process.stdin.write(rest) or 0 :]
            answer = self._line(time.monotonic() + timeout_s)
        except BrokenPipeError:
            answer = b""
        except (TimeoutError, MemoryError):
            self._end()
            raise
        if not answer:
            code = self._process.wait()
            if operating_system.ended_by_cpu_limit(code):
                raise TimeoutError
            raise ProcessEndedError(operating_system.end_in_words(code))
        return answer

    def _line(self, deadline: float) -> bytes:
        """Return the next line without its line end; empty if the process has ended."""
        assert self._process.stdout is not None
        received = bytearray()
        while not received.endswith(b"\n"):
            if not operating_system.wait_readable(self._process.stdout, deadline - time.monotonic()):
                raise TimeoutError
            piece = os.read(self._process.stdout.fileno(), 2**20)
            if not piece:
                return b""
            received += piece
            if len(received) > self._max_reply_bytes:
                raise MemoryError
        return bytes(received[:-1])

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the process and close its streams."""
        self._end()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                stream.close()


def answer_lines(arguments: Sequence[str], answer: Callable[[bytes], bytes]) -> None:
    """Answer each line of standard input with a line, in the worker, until the input ends.

    Args:
        arguments: of the command line, as ``CappedProcess`` writes it.
        answer: from a line to a line; it raises nothing.
    """
    memory_mb, parent, cpu_s = int(arguments[0]), int(arguments[1]), float(arguments[2])
    protocol = os.fdopen(os.dup(1), "wb", buffering=0)
    operating_system.confine(memory_mb * 2**20, parent)
    # From here on, output and warnings of libraries reach neither the protocol nor the screen.
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    protocol.write(READY + b"\n")
    for line in sys.stdin.buffer:
        operating_system.limit_cpu(cpu_s)
        reply = memoryview(answer(line))
        operating_system.limit_cpu(0.0)
        for part in (reply, memoryview(b"\n")):  # a copy of a large reply could exceed the memory
            while part:
                part = part[protocol.write(part) or 0 :]
