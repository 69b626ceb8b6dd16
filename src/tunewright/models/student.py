"""The recipe's student: its tokenizer and base as training, the exam and chat all load them."""

from __future__ import annotations

from typing import Any

from tunewright.models.chat_template import load_tokenizer
from tunewright.models.loading import compute_dtype, load_base
from tunewright.models.source import identity, locate
from tunewright.recipe import Recipe

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the values that --max-lora-rank takes


def vllm_obstacle(recipe: Recipe) -> str:
    """Return why vLLM does not load what this recipe trains; empty where it does."""
    if recipe.model.added_tokens:
        return "vLLM loads no base with added tokens"
    if recipe.training.method == "dora":
        return "vLLM loads no DoRA"
    if recipe.training.method != "full" and not lora_rank(recipe.training.rank):
        return f"vLLM loads no rank above {_RANKS[-1]}"
    return ""


def lora_rank(rank: int) -> int:
    """Return the --max-lora-rank for an adapter of this rank, 0 where there is none."""
    return next((taken for taken in _RANKS if taken >= rank), 0)


def student_tokenizer(recipe: Recipe) -> Any:
    """Load the tokenizer, with the recipe's added tokens."""
    return load_tokenizer(locate(recipe.model.base, recipe.folder), recipe.model.added_tokens)


def student_base(recipe: Recipe, device: str, tokenizer: Any, dtype: Any = None) -> Any:
    """Load the frozen base for this tokenizer.

    Args:
        recipe: names the base and its quantization.
        device: "cpu" or "cuda:0".
        tokenizer: the embedding grows to its size where tokens were added.
        dtype: of the weights that are not quantized; what is computed in when None.
    """
    dtype = dtype or compute_dtype(device, recipe.model.compute)
    num_tokens = len(tokenizer) if recipe.model.added_tokens else 0
    folder = locate(recipe.model.base, recipe.folder)
    return load_base(folder, recipe.model.quantization, device, dtype, num_tokens)


def student_identity(recipe: Recipe, device: str) -> str:
    """Return what names the base's numbers as they are computed here."""
    dtype = str(compute_dtype(device, recipe.model.compute)).removeprefix("torch.")
    added = " ".join(recipe.model.added_tokens)
    return f"{identity(recipe.model.base, recipe.folder)} {recipe.model.quantization} {dtype} {added}".rstrip()
