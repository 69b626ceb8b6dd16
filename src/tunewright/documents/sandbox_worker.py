"""The child process that reads files: limited in memory, silent, and ended with its parent.

Protocol: ``READY`` once, then for each line of standard input (a path as JSON) one line of standard output (a
Reading as JSON). Started by tunewright.documents.sandbox; the arguments are the memory limit in MB and the parent's
process id.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path

from tunewright.documents.markup import Failure, Reading, single_line
from tunewright.documents.readers import READERS
from tunewright.errors import DocumentError

READY = b"ready"
OUT_OF_MEMORY = "too much memory"
CRASHED = "crashed the reader"

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def _used_bytes() -> int:
    """Return the size of this process's address space; 0 if the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _lower_limit(kind: int, limit: int) -> None:
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        limit = min(limit, ceiling)
    resource.setrlimit(kind, (limit, limit))


def _confine(memory_mb: int, parent: int) -> None:
    """Limit the memory, forbid core dumps, and end this process when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    _lower_limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        _lower_limit(resource.RLIMIT_AS, memory_mb * 2**20 + _used_bytes())
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before the line above
        sys.exit(0)


def read_file(path: Path) -> Reading:
    """Return the documents and failures of one file; every error becomes a Failure."""
    try:
        if path.stat().st_size == 0:
            return Reading(failures=(Failure(reason="empty file"),))
        items = READERS[path.suffix.lower()](path) or [Failure(reason="no rows")]
        return Reading(
            documents=tuple(item for item in items if not isinstance(item, Failure)),
            failures=tuple(item for item in items if isinstance(item, Failure)),
        )
    except MemoryError:
        return Reading(failures=(Failure(reason=OUT_OF_MEMORY),))
    except OSError as error:
        return Reading(failures=(Failure(reason="unreadable", detail=error.strerror or str(error)),))
    except DocumentError as error:
        return Reading(failures=(Failure(reason="unreadable", detail=f"{error.headline} ({error.cause})"),))
    except Exception as error:  # an error in the reader itself must not end the run
        detail = single_line(f"{type(error).__name__}: {error}")[:200]
        return Reading(failures=(Failure(reason=CRASHED, detail=detail),))


def _encode(reading: Reading) -> bytes:
    try:
        return reading.model_dump_json(exclude_defaults=True).encode() + b"\n"
    except MemoryError:
        return _encode(Reading(failures=(Failure(reason=OUT_OF_MEMORY),)))


def main(memory_mb: int, parent: int) -> None:
    """Read the files named on standard input until it ends."""
    protocol = os.fdopen(os.dup(1), "wb", buffering=0)
    _confine(memory_mb, parent)
    # From here on, output and warnings of libraries reach neither the protocol nor the screen.
    logging.disable()
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    protocol.write(READY + b"\n")
    for line in sys.stdin.buffer:
        reply = memoryview(_encode(read_file(Path(json.loads(line)))))
        while reply:  # an unbuffered write may be partial
            reply = reply[protocol.write(reply) or 0 :]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
