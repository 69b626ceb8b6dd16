"""llama.cpp's server, started in a child process that never outlives its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tunewright import operating_system
from tunewright.errors import ModelError
from tunewright.models.llama_cpp_process import FULL_PRECISION, KEY

_START_TIMEOUT_S = 120.0
# llama.cpp's threads synchronize several times per layer. Spinning there makes a call 10 to 30 times slower as soon as
# another program needs a core; sleeping does not.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}


@contextmanager
def serve(
    gguf: Path,
    context_tokens: int,
    slots: int = 1,
    adapter: Path | None = None,
    key: str = "",
    full_precision: bool = False,
) -> Iterator[str]:
    """Start the server on a free port of the loopback; yield its address (http://host:port).

    Call it from the thread that will also end it: on Linux the child is killed when that thread ends.

    Args:
        gguf: the model.
        context_tokens: the most tokens of a prompt and its answer together; memory for all is taken at once.
        slots: number of requests that are computed together.
        adapter: a LoRA adapter in GGUF to put on the model.
        key: the API key that requests must send; empty for none.
        full_precision: keep keys and values in fp32, not fp16.

    Raises:
        ModelError: it does not start; the cause is the last line of llama.cpp's log.
    """
    numbers = [str(context_tokens), str(slots)]
    command = [sys.executable, "-P", "-m", "tunewright.models.llama_cpp_process", str(gguf), *numbers]
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
            yield _address(child, log, adapter or gguf)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    pipe.close()


def _address(child: subprocess.Popen[bytes], log: IO[bytes], file: Path) -> str:
    """Return the address that the child prints once it is ready."""
    assert child.stdout is not None
    ready = operating_system.wait_readable(child.stdout, _START_TIMEOUT_S)
    line = child.stdout.readline().decode().strip() if ready else ""
    if line:
        return line
    log.seek(0)
    lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    raise ModelError(
        f"llama.cpp cannot load {file}",
        lines[-1][:300] if lines else f"it did not answer within {_START_TIMEOUT_S:.0f} s",
        "check llama.cpp on this machine: tunewright doctor",
    )
