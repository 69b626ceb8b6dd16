"""The recipe's student: its tokenizer and base, loaded alike for training, exam and chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright import console
from tunewright.errors import RecipeError
from tunewright.models.base_folder import original_of
from tunewright.models.chat_template import load_tokenizer
from tunewright.models.experts import num_experts
from tunewright.models.families import shape_of
from tunewright.models.loading import compute_dtype, load_base
from tunewright.models.source import config_at_hand, identity, locate, read_config
from tunewright.models.stored_quantization import stored_nf4
from tunewright.recipe import Recipe
from tunewright.settings import EMBEDDED

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the values that vLLM's --max-lora-rank takes


def vllm_obstacle(recipe: Recipe) -> str:
    """Return why vLLM cannot load what this recipe trains; empty if it can."""
    if recipe.model.added_tokens:
        return "vLLM loads no base with added tokens"
    if recipe.training.method == "dora":
        return "vLLM loads no DoRA"
    folder = config_at_hand(recipe.model.base, recipe.folder)
    if recipe.training.targets == ("all-linear",) and folder and num_experts(shape_of(read_config(folder))):
        return "vLLM loads no adapter of experts in peft's form"
    if recipe.training.method != "full" and not lora_rank(recipe.training.rank):
        return f"vLLM loads no rank above {_RANKS[-1]}"
    return ""


def lora_rank(rank: int) -> int:
    """Return vLLM's --max-lora-rank for an adapter of this rank; 0 if the rank is too large."""
    return next((allowed for allowed in _RANKS if allowed >= rank), 0)


def with_stored_quantization(recipe: Recipe) -> Recipe:
    """Return the recipe with the quantization of a base whose files are already quantized, where the base is at hand.

    Such a base is trained as it is, whatever ``model.quantization`` states.

    Raises:
        RecipeError: the recipe trains all weights, or spreads the base: both need an unquantized one.
    """
    if recipe.model.base == EMBEDDED or (folder := config_at_hand(recipe.model.base, recipe.folder)) is None:
        return recipe
    stored = stored_nf4(read_config(folder))
    if not stored:
        return recipe
    if recipe.training.method == "full" or recipe.model.sharded:
        key = 'training.method = "full"' if recipe.training.method == "full" else "model.sharded"
        original = original_of(folder, read_config(folder), recipe.model.base) or "the model that it was made from"
        raise RecipeError(f"{key} needs an unquantized base", f"{recipe.model.base} is in NF4", f"name {original}")
    if stored == recipe.model.quantization:
        return recipe
    console.line(f"{recipe.model.base} is already quantized by bitsandbytes: model.quantization is {stored!r}")
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"quantization": stored})})


def student_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """Load the tokenizer with the recipe's added tokens; its prompts ask for reasoning where the recipe keeps it."""
    folder = locate(recipe.model.base, recipe.folder)
    return load_tokenizer(folder, recipe.model.added_tokens, recipe.training.reasoning == "keep")


def context_tokens(recipe: Recipe) -> int:
    """Return the most tokens of prompt and answer together that the base was made for; very many if it states none."""
    shape = shape_of(read_config(locate(recipe.model.base, recipe.folder)))
    return int(shape.get("max_position_embeddings") or shape.get("n_positions") or 1 << 30)


def student_base(
    recipe: Recipe, device: str, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """Load the frozen base for this tokenizer.

    Args:
        recipe: names the base and its quantization.
        device: "cpu" or "cuda:0".
        tokenizer: the embedding grows to its size if the recipe adds tokens.
        dtype: of the unquantized weights; None takes the type to compute in.
    """
    dtype = dtype or compute_dtype(device, recipe.model.compute)
    num_tokens = len(tokenizer) if recipe.model.added_tokens else 0
    folder = locate(recipe.model.base, recipe.folder)
    return load_base(folder, recipe.model.quantization, device, dtype, num_tokens)


def student_identity(recipe: Recipe, device: str) -> str:
    """Return the identity of the base's numbers: its files, quantization, type to compute in, and added tokens."""
    dtype = str(compute_dtype(device, recipe.model.compute)).removeprefix("torch.")
    added = " ".join(recipe.model.added_tokens)
    return f"{identity(recipe.model.base, recipe.folder)} {recipe.model.quantization} {dtype} {added}".rstrip()
