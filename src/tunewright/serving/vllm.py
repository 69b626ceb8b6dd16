"""The engine vLLM: base and adapter as they are, in a child process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tunewright.models.adapter_files import check_adapter
from tunewright.models.loading import compute_dtype, is_full
from tunewright.models.source import locate
from tunewright.models.student import lora_rank, vllm_obstacle
from tunewright.models.vllm_server import base_arguments, served_context, vllm_missing, vllm_server
from tunewright.recipe import Recipe
from tunewright.serving.engine import Completions
from tunewright.settings import Arm


def why_not(recipe: Recipe) -> str:
    """Return why vLLM does not serve this run; empty where it does."""
    if lacking := vllm_missing() or vllm_obstacle(recipe):
        return lacking
    if recipe.model.quantization == "int8":
        return "vLLM does not compute the base in LLM.int8 as the exam did"
    return ""


def command(recipe: Recipe, adapter: Path) -> list[str]:
    """Return the words behind "serve": the base in the evaluation's types, the adapter under the name "tuned"."""
    if is_full(adapter):
        dtype = str(compute_dtype("cuda:0", recipe.model.compute)).removeprefix("torch.")
        return [str(adapter), "--served-model-name", Arm.TUNED, "--dtype", dtype]
    folder = locate(recipe.model.base, recipe.folder)
    tuned = json.dumps({"name": Arm.TUNED, "path": str(adapter)})  # a path in the form NAME=PATH may have no comma
    lora = ["--enable-lora", "--lora-modules", tuned]
    lora += ["--max-lora-rank", str(lora_rank(recipe.training.rank))]
    return [*base_arguments(folder, Arm.BASE, recipe.model.quantization, recipe.model.compute), *lora]


@contextmanager
def vllm_engine(recipe: Recipe, adapter: Path, end_ids: Sequence[int]) -> Iterator[Completions]:
    """Serve base and adapter on a free port of the loopback while the block lasts.

    Raises:
        StageError: vLLM does not start; its first error is the cause.
    """
    if not is_full(adapter):
        check_adapter(adapter)
    hint = "serve it with llama.cpp instead: --engine llama.cpp"
    with vllm_server(command(recipe, adapter.resolve()), hint) as (address, key):
        extra = {"stop_token_ids": list(end_ids)}
        yield Completions("vLLM", address, key, served_context(address, key), extra)
