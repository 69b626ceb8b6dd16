"""The embedded teacher: llama.cpp's server in a child process that never outlives its parent."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tunewright.errors import TeacherError
from tunewright.teacher.server import FULL_PRECISION, KEY

_START_TIMEOUT_S = 120.0
# llama.cpp's threads meet several times per layer. Spinning there makes a call 10 to 30 times slower as soon as another
# program wants a core; sleeping does not.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}


@contextmanager
def serve(
    gguf: Path, slots: int = 1, adapter: Path | None = None, key: str = "", full_precision: bool = False
) -> Iterator[str]:
    """Start the server on a free port of the loopback; yield its address (http://host:port).

    ``slots``: how many requests it computes together; ``adapter``: a LoRA in GGUF to put on the model;
    ``key``: what requests must bring as their API key; ``full_precision``: keep keys and values in fp32, not fp16.

    Call it from the thread that will also end it: on Linux the child is killed when that thread ends.

    Raises:
        TeacherError: it does not start; llama.cpp's last words are the cause.
    """
    command = [sys.executable, "-P", "-m", "tunewright.teacher.server", str(gguf), str(slots)]
    command += [str(adapter)] if adapter else []
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **_ENVIRONMENT, KEY: key, FULL_PRECISION: "1" if full_precision else ""},
        )
        try:
            yield _address(child, log)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    pipe.close()


def _address(child: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """Return the address that the child prints once it is ready."""
    assert child.stdout is not None
    deadline = time.monotonic() + _START_TIMEOUT_S
    ready, _, _ = select.select([child.stdout], [], [], deadline - time.monotonic())
    line = child.stdout.readline().decode().strip() if ready else ""
    if line:
        return line
    log.seek(0)
    words = [text for text in log.read().decode("utf-8", "replace").splitlines() if text.strip()]
    raise TeacherError(
        "the embedded teacher does not start",
        words[-1][:300] if words else f"no sign of life within {_START_TIMEOUT_S:.0f} s",
        "check it with: tunewright doctor; or name another teacher: --set teacher.url=http://HOST:PORT/v1",
    )
