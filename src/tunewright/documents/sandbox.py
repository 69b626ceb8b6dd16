"""Files read in a capped child process, which is replaced when a file breaks it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from tunewright.documents.markup import Failure, Reading
from tunewright.documents.sandbox_worker import CRASHED, OUT_OF_MEMORY, READY
from tunewright.errors import StageError

TIMEOUT_S = 60.0  # a book of a thousand pages takes a few seconds
MEMORY_MB = 1024
_START_S = 120.0  # a cold disk and a busy machine included


def read_files(
    files: Iterable[Path], timeout_s: float = TIMEOUT_S, memory_mb: int = MEMORY_MB
) -> Iterator[tuple[Path, Reading]]:
    """Yield each file with its documents and failures, in order; a bad file never stops the others.

    Args:
        files: regular files whose extensions are in READERS.
        timeout_s: the time limit for one file.
        memory_mb: the memory limit of the child process, beyond its use at the start.

    Raises:
        StageError: the child process does not start.
    """
    child: _Child | None = None
    try:
        for file in files:
            child, reading = _read_file(child, file, timeout_s, memory_mb)
            yield file, reading
    finally:
        if child:
            child.stop()


def _read_file(child: _Child | None, file: Path, timeout_s: float, memory_mb: int) -> tuple[_Child | None, Reading]:
    """Return the child for the next file (None: start a new one) and the reading of this file."""
    while True:
        child = child or _Child(memory_mb)
        is_fresh = child.num_read == 0
        reading = child.read(file, timeout_s)
        out_of_memory = any(failure.reason == OUT_OF_MEMORY for failure in reading.failures)
        if out_of_memory or not child.is_alive():
            child.stop()
            child = None
        # In a used child, earlier files may have taken the memory: try again in a fresh one.
        if is_fresh or not out_of_memory:
            return child, reading


class _Child:
    """A running worker process."""

    def __init__(self, memory_mb: int) -> None:
        self.num_read = 0
        self._max_reply_bytes = memory_mb * 2**20
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in stop
        # -P keeps the current folder off the module path: documents may lie there, even one named json.py.
        command = [
            sys.executable,
            "-P",
            "-m",
            "tunewright.documents.sandbox_worker",
            str(memory_mb),
            str(os.getpid()),
        ]
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
                "the process that reads documents did not start",
                " ".join(last) or f"it did not answer within {_START_S:g} s",
                "check the installation: tunewright doctor",
            )

    def is_alive(self) -> bool:
        """Return whether the process can read another file."""
        return self._process.poll() is None

    def read(self, file: Path, timeout_s: float) -> Reading:
        """Return the reading of a file; after a timeout or a crash the process has ended."""
        self.num_read += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(str(file.absolute())).encode() + b"\n")
            line = self._line(time.monotonic() + timeout_s)
        except BrokenPipeError:
            line = b""
        except TimeoutError:
            self._end()
            return _failed("timed out", f"took longer than {timeout_s:g} s")
        except MemoryError:
            self._end()
            return _failed(OUT_OF_MEMORY, "the text alone is larger than the limit")
        if not line:
            code = self._process.wait()
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return _failed(CRASHED, how)
        try:
            return Reading.model_validate_json(line)
        except ValidationError as error:
            return _failed(CRASHED, f"its reply is not valid: {error.errors()[0]['msg']}")

    def _line(self, deadline: float) -> bytes:
        """Return the next line without its line end; empty if the process has ended.

        Raises:
            TimeoutError: the deadline has passed.
            MemoryError: the line is longer than the process's memory limit.
        """
        assert self._process.stdout is not None
        received = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
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


def _failed(reason: str, detail: str) -> Reading:
    return Reading(failures=(Failure(reason=reason, detail=detail),))
