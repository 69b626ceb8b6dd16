"""Files read in a capped child process, which is replaced when a file breaks it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from tunewright.documents.markup import Failure, Reading
from tunewright.documents.recognition import RecognizedPage, Recognizer, is_available
from tunewright.documents.sandbox_worker import CRASHED, OUT_OF_MEMORY
from tunewright.models.capped_process import CappedProcess, ProcessEndedError

TIMEOUT_S = 60.0  # a book of a thousand pages takes a few seconds
MEMORY_MB = 1024


def read_files(
    files: Iterable[Path], timeout_s: float = TIMEOUT_S, memory_mb: int = MEMORY_MB
) -> Iterator[tuple[Path, Reading]]:
    """Yield each file with its documents and failures, in order; a bad file never stops the others.

    Where text recognition is installed, it reads the scanned pages of a PDF, and the file is read again with them.

    Args:
        files: regular files whose extensions are in READERS.
        timeout_s: the time limit for one file.
        memory_mb: the memory limit of the child process, beyond its use at the start.

    Raises:
        StageError: the child process does not start.
    """
    child: _Child | None = None
    recognizer = Recognizer() if is_available() else None
    try:
        for file in files:
            child, reading = _read_file(child, file, timeout_s, memory_mb)
            if recognizer and (scanned := _scanned(reading)):
                recognized = recognizer.pages(file, scanned)
                child, reading = _read_file(child, file, timeout_s, memory_mb, recognized)
            yield file, reading
    finally:
        if recognizer:
            recognizer.stop()
        if child:
            child.stop()


def _scanned(reading: Reading) -> list[int]:
    """Return the numbers of the pages that text recognition may read."""
    failures = [*reading.failures, *(part for document in reading.documents for part in document.left_out)]
    return [number for failure in failures for number in failure.scanned]


def _read_file(
    child: _Child | None,
    file: Path,
    timeout_s: float,
    memory_mb: int,
    recognized: Mapping[int, RecognizedPage] = MappingProxyType({}),
) -> tuple[_Child | None, Reading]:
    """Return the child for the next file (None: start a new one) and the reading of this file."""
    while True:
        child = child or _Child(memory_mb)
        is_fresh = child.num_read == 0
        reading = child.read(file, timeout_s, recognized)
        out_of_memory = any(failure.reason == OUT_OF_MEMORY for failure in reading.failures)
        if out_of_memory or not child.is_alive():
            child.stop()
            child = None
        # In a used child, earlier files may have taken the memory: try again in a fresh one.
        if is_fresh or not out_of_memory:
            return child, reading


class _Child:
    """A worker, and how many files it has read."""

    def __init__(self, memory_mb: int) -> None:
        self.num_read = 0
        self._process = CappedProcess("tunewright.documents.sandbox_worker", memory_mb, "reads documents")
        self.is_alive, self.stop = self._process.is_alive, self._process.stop

    def read(self, file: Path, timeout_s: float, recognized: Mapping[int, RecognizedPage]) -> Reading:
        """Return the reading of a file; after a timeout or a crash the process has ended."""
        self.num_read += 1
        try:
            pages = {number: page.model_dump(mode="json") for number, page in recognized.items()}
            line = self._process.ask(json.dumps([str(file.absolute()), pages]).encode(), timeout_s)
        except TimeoutError:
            return _failed("timed out", f"took longer than {timeout_s:g} s")
        except MemoryError:
            return _failed(OUT_OF_MEMORY, "the text alone is larger than the limit")
        except ProcessEndedError as error:
            return _failed(CRASHED, str(error))
        try:
            return Reading.model_validate_json(line)
        except ValidationError as error:
            return _failed(CRASHED, f"its reply is not valid: {error.errors()[0]['msg']}")


def _failed(reason: str, detail: str) -> Reading:
    return Reading(failures=(Failure(reason=reason, detail=detail),))
