"""The child process that reads files: capped in memory, silent, dies with its parent.

Protocol: ``READY`` once, then for each line of standard input (a path as JSON) one line of standard output (a
Reading as JSON). Started by tunewright.documents.sandbox; the arguments are the memory cap in MB and the
parent's process id.
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

from tunewright.documents.markup import Failure, Reading, one_line
from tunewright.documents.readers import READERS
from tunewright.errors import DocumentError

READY = b"ready"
OUT_OF_MEMORY = "too much memory"
CRASHED = "crashed the reader"

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def _used_bytes() -> int:
    """Return the address space of this process, 0 where the system does not tell."""
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
    """Cap the memory, allow no core dump, and end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _lower_limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        _lower_limit(resource.RLIMIT_AS, memory_mb * 2**20 + _used_bytes())
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit(0)


def answer(path: Path) -> Reading:
    """Read one file; whatever goes wrong becomes a Failure."""
    try:
        if path.stat().st_size == 0:
            return Reading(failures=(Failure(reason="empty file"),))
        found = READERS[path.suffix.lower()](path) or [Failure(reason="no rows")]
        return Reading(
            documents=tuple(item for item in found if not isinstance(item, Failure)),
            failures=tuple(item for item in found if isinstance(item, Failure)),
        )
    except MemoryError:
        return Reading(failures=(Failure(reason=OUT_OF_MEMORY),))
    except OSError as error:
        return Reading(failures=(Failure(reason="unreadable", detail=error.strerror or str(error)),))
    except DocumentError as error:
        return Reading(failures=(Failure(reason="unreadable", detail=f"{error.headline} ({error.cause})"),))
    except Exception as error:  # a fault of the reader itself, which must not end the run
        detail = one_line(f"{type(error).__name__}: {error}")[:200]
        return Reading(failures=(Failure(reason=CRASHED, detail=detail),))


def _encode(reading: Reading) -> bytes:
    try:
        return reading.model_dump_json(exclude_defaults=True).encode() + b"\n"
    except MemoryError:
        return _encode(Reading(failures=(Failure(reason=OUT_OF_MEMORY),)))


def main(memory_mb: int, parent: int) -> None:
    """Serve until standard input ends."""
    protocol = os.fdopen(os.dup(1), "wb", buffering=0)
    _confine(memory_mb, parent)
    # What libraries print or warn from here on reaches neither the protocol nor the user's screen.
    logging.disable()
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    protocol.write(READY + b"\n")
    for line in sys.stdin.buffer:
        reply = memoryview(_encode(answer(Path(json.loads(line)))))
        while reply:  # an unbuffered write may take a part only
            reply = reply[protocol.write(reply) or 0 :]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
