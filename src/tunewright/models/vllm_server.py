"""vLLM's server as a child process on the loopback: for a local teacher and for ``serve``, where it is installed."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tunewright import console, operating_system
from tunewright.errors import StageError, shell
from tunewright.models.loading import compute_dtype

_START_TIMEOUT_S = 1200.0  # it first compiles and captures graphs
_END_TIMEOUT_S = 20.0


def vllm_missing() -> str:
    """Return why vLLM cannot run on this machine; empty where it can."""
    import torch

    if shutil.which("vllm") is None:
        return "vLLM is not installed"
    return "" if torch.cuda.is_available() else "there is no CUDA device"


def base_arguments(folder: Path, name: str, quantization: str, compute: str = "auto") -> list[str]:
    """Return the command line that serves a base under a name, in the types that tunewright computes it in."""
    arguments = [str(folder), "--served-model-name", name]
    arguments += ["--quantization", "bitsandbytes"] if quantization != "none" else []
    return [*arguments, "--dtype", str(compute_dtype("cuda:0", compute)).removeprefix("torch.")]


@contextmanager
def vllm_server(arguments: Sequence[str], hint: str) -> Iterator[tuple[str, str]]:
    """Run ``vllm serve`` on a free port while the block lasts; yield its address (http://host:port) and its key.

    Args:
        arguments: of the command line, behind "serve".
        hint: what to type where it does not start.

    Raises:
        StageError: it does not start; its last line of output is the cause.
    """
    key = secrets.token_hex(16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The base's file may have penalties and limits for all requests.
    words = ["vllm", "serve", *arguments, "--generation-config", "vllm", "--host", "127.0.0.1", "--port", str(port)]
    console.line("starting " + shell(*words))
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "tunewright.models.child_process", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_API_KEY": key},
            **operating_system.own_session(),  # Ctrl-C is for us; the child is ended below
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _await(child, address, log, hint)
            yield address, key
        finally:
            operating_system.end_session(child, _END_TIMEOUT_S)


def _await(child: subprocess.Popen[Any], address: str, log: IO[bytes], hint: str) -> None:
    """Wait until the server reports that it is healthy."""
    import urllib3

    deadline = time.monotonic() + _START_TIMEOUT_S
    while child.poll() is None and time.monotonic() < deadline:
        try:
            if urllib3.request("GET", f"{address}/health", timeout=5.0, retries=False).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.2)
    log.seek(0)
    lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    cause = lines[-1][:300] if lines else f"no output within {_START_TIMEOUT_S:.0f} s"
    raise StageError("vLLM does not start", cause, hint)
