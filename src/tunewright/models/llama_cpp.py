"""llama.cpp's server in a child process that never outlives its parent."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tunewright.errors import ModelError
from tunewright.models.llama_cpp_process import FULL_PRECISION, KEY

_START_TIMEOUT_S = 120.0
# llama.cpp's threads meet several times per layer. Spinning there makes a call 10 to 30 times slower as soon as another
# program wants a core; sleeping does not.
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
        context_tokens: what a prompt and its answer may have together; memory is taken for all of them at once.
        slots: how many requests it computes together.
        adapter: a LoRA in GGUF to put on the model.
        key: what requests must bring as their API key.
        full_precision: keep keys and values in fp32, not fp16.

    Raises:
        ModelError: it does not start; llama.cpp's last words are the cause.
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
    ready, _, _ = select.select([child.stdout], [], [], _START_TIMEOUT_S)
    line = child.stdout.readline().decode().strip() if ready else ""
    if line:
        return line
    log.seek(0)
    words = [text for text in log.read().decode("utf-8", "replace").splitlines() if text.strip()]
    raise ModelError(
        f"llama.cpp cannot load {file}",
        words[-1][:300] if words else f"it did not answer within {_START_TIMEOUT_S:.0f} s",
        "check llama.cpp on this machine: tunewright doctor",
    )
