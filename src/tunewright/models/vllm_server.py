"""vLLM's server as a child process on the loopback: for a local teacher and for ``serve``, where it is installed."""

from __future__ import annotations

import os
import re
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
from tunewright.errors import StageError, TunewrightError, shell
from tunewright.models.loading import compute_dtype

_START_TIMEOUT_S = 1200.0  # it first compiles and captures graphs
_END_TIMEOUT_S = 20.0
# The base's generation_config.json may have penalties and limits for all requests; a context longer than the memory has
# room for is cut (vLLM 0.14 or newer), where vLLM would not start.
_ALWAYS = ("--generation-config", "vllm", "--max-model-len", "auto")
_PROCESS = re.compile(r"\([^)]+ pid=\d+\) (?:[A-Z]+ [\d-]+ [\d:]+ \[[^]]*\] ?)?")  # before a line of its log
_NO_BITSANDBYTES = "Unknown quantization method: bitsandbytes"  # 0.24 had it, 0.28 leaves it to a package
_ERROR = re.compile(r"[\w.]*(?:Error|Exception): ")


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
        StageError: it does not start, or no longer answers when the block fails; its first error is the cause.
    """
    key = secrets.token_hex(16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["vllm", "serve", *arguments, *_ALWAYS, "--host", "127.0.0.1", "--port", str(port)]
    console.line("starting " + shell(*words))
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "tunewright.models.child_process", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1"},  # nothing leaves this machine
            **operating_system.own_session(),  # Ctrl-C is for us; the child is ended below
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _await(child, address, log, hint)
            try:
                yield address, key
            except TunewrightError as error:
                if _is_healthy(address):
                    raise
                again = "run the same command again: all answers so far are kept"
                raise StageError("vLLM has ended", _cause(log), again) from error
        finally:
            operating_system.end_session(child, _END_TIMEOUT_S)


def _await(child: subprocess.Popen[Any], address: str, log: IO[bytes], hint: str) -> None:
    """Wait until the server reports that it is healthy."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while child.poll() is None and time.monotonic() < deadline:
        if _is_healthy(address):
            return
        time.sleep(0.2)
    cause = _cause(log) or f"no output within {_START_TIMEOUT_S:.0f} s"
    if _NO_BITSANDBYTES in cause:
        cause = "it cannot quantize by bitsandbytes: pip install vllm-bnb-plugin where vLLM is installed"
    raise StageError("vLLM does not start", cause, hint)


def _is_healthy(address: str) -> bool:
    import urllib3

    try:
        return urllib3.request("GET", f"{address}/health", timeout=5.0, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _cause(log: IO[bytes]) -> str:
    """Return the first error in the output, which later ones only refer to; without any, the last line."""
    log.seek(0)
    lines = [_PROCESS.sub("", line, count=1) for line in log.read().decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line.strip()]
    first = next((number for number, line in enumerate(lines) if _ERROR.match(line)), len(lines) - 1)
    message = lines[first : first + 1]
    for line in lines[first + 1 :]:
        if not line.startswith(" "):  # an error's message goes on indented
            break
        message.append(line.strip())
    return " ".join(message)[:300]


def served_context(address: str, key: str) -> int:
    """Return the most tokens of prompt and answer together that a running server takes."""
    import urllib3

    headers = {"Authorization": f"Bearer {key}"}
    reply = urllib3.request("GET", f"{address}/v1/models", headers=headers, timeout=30.0, retries=False)
    return max(int(model["max_model_len"] or 0) for model in reply.json()["data"])
