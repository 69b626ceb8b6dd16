"""What vLLM loads of a tuned model, and the rank that it is started with."""

from __future__ import annotations

from tunewright.recipe import Recipe

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the values that --max-lora-rank takes


def unloadable(recipe: Recipe) -> str:
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
