"""The engine vLLM: base and adapter as they are, in a child process."""

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
from tunewright.models.adapter_files import check_adapter
from tunewright.models.families import shape_of
from tunewright.models.loading import compute_dtype, is_full
from tunewright.models.source import locate, read_config
from tunewright.models.student import lora_rank, vllm_obstacle
from tunewright.recipe import Recipe
from tunewright.serving.engine import Completions
from tunewright.settings import Arm

_START_TIMEOUT_S = 1200.0  # it first compiles and captures graphs
_END_TIMEOUT_S = 20.0


def why_not(recipe: Recipe) -> str:
    """Return why vLLM does not serve this run; empty where it does."""
    import torch

    if shutil.which("vllm") is None:
        return "vLLM is not installed"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if lacking := vllm_obstacle(recipe):
        return lacking
    if recipe.model.quantization == "int8":
        return "vLLM does not compute the base in LLM.int8 as the exam did"
    return ""


def command(recipe: Recipe, adapter: Path, port: int) -> list[str]:
    """Return the command line: the base in the types of the evaluation, the adapter under the name "tuned"."""
    arguments = ["vllm", "serve"]
    if is_full(adapter):
        arguments += [str(adapter), "--served-model-name", Arm.TUNED]
    else:
        arguments += [str(locate(recipe.model.base, recipe.folder)), "--served-model-name", Arm.BASE]
        arguments += [
            "--enable-lora",
            "--lora-modules",
            f"tuned={adapter}",
            "--max-lora-rank",
            str(lora_rank(recipe.training.rank)),
        ]
        arguments += ["--quantization", "bitsandbytes"] if recipe.model.quantization != "none" else []
    name = str(compute_dtype("cuda:0", recipe.model.compute)).removeprefix("torch.")
    arguments += ["--generation-config", "vllm"]  # the base's file may have penalties and limits for all requests
    return [*arguments, "--dtype", name, "--host", "127.0.0.1", "--port", str(port)]


def context_tokens(recipe: Recipe, adapter: Path) -> int:
    """Return how many tokens a prompt and its answer may have together."""
    config = read_config(adapter if is_full(adapter) else locate(recipe.model.base, recipe.folder))
    return int(shape_of(config).get("max_position_embeddings") or 4096)


@contextmanager
def vllm_engine(recipe: Recipe, adapter: Path, end_ids: Sequence[int]) -> Iterator[Completions]:
    """Serve base and adapter on a free port of the loopback while the block lasts.

    Raises:
        StageError: vLLM does not start; its last line of output is the cause.
    """
    key = secrets.token_hex(16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if not is_full(adapter):
        check_adapter(adapter)
    arguments = command(recipe, adapter.resolve(), port)
    console.line("starting " + shell(*arguments))
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "tunewright.serving.child_process", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_API_KEY": key},
            **operating_system.own_session(),  # Ctrl-C is for us; the child is ended below
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _await(child, address, log)
            extra = {"stop_token_ids": list(end_ids)}
            yield Completions("vLLM", address, key, context_tokens(recipe, adapter), extra)
        finally:
            operating_system.end_session(child, _END_TIMEOUT_S)


def _await(child: subprocess.Popen[Any], address: str, log: IO[bytes]) -> None:
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
    raise StageError(
        "vLLM does not start",
        lines[-1][:300] if lines else f"no output within {_START_TIMEOUT_S:.0f} s",
        "serve it with llama.cpp instead: --engine llama.cpp",
    )
