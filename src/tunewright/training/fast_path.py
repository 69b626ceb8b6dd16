"""Which way a model is computed in training: the fast path, or the plain one through transformers and peft."""

from __future__ import annotations

from typing import Any

from tunewright import console
from tunewright.errors import RecipeError
from tunewright.models.families import FAMILIES
from tunewright.models.source import locate, read_config
from tunewright.recipe import Recipe
from tunewright.training.step_plan import FAST


def plain_path_reason(recipe: Recipe) -> str:
    """Return why the plain path will be taken as far as the recipe tells, or nothing for the fast one."""
    training, model = recipe.training, recipe.model
    if training.kernels == "off":
        return "training.kernels is off"
    if training.method not in ("lora", "rslora"):
        return f"the fast path trains plain LoRA, not {training.method}"
    if training.dropout:
        return "LoRA dropout draws a mask for each layer (training.dropout = 0 takes the fast path)"
    if model.quantization == "int8":
        return "products with an int8 base are not plain products of an unpacked weight"
    if model.sharded:
        return "the base is spread over several GPUs"
    config = read_config(locate(model.base, recipe.folder))
    kind = str(config.get("model_type", ""))
    if kind not in FAMILIES or not FAMILIES[kind].like_llama:
        return f"models of the kind {kind!r} have layers of their own"
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window is not None and window < training.max_tokens:
        return f"attention looks back {window} tokens, less far than training.max_tokens ({training.max_tokens})"
    if config.get("hidden_act", "silu") != "silu":
        return f"the MLP uses {config['hidden_act']}, not SiLU"
    return "attention_dropout is not 0" if config.get("attention_dropout") else ""


def take_fast_path(recipe: Recipe, model: Any, device: str) -> None:
    """Give the model a fast decoder where it can have one; otherwise say why not.

    Raises:
        RecipeError: model.fp8 is on, and the model or the device cannot do it.
    """
    why = plain_path_reason(recipe)
    if not why:
        from tunewright.training.kernels.decoder import FastDecoder, why_not

        why = why_not(model)
        if not why:
            decoder = FastDecoder(model)
            if recipe.model.fp8:
                _use_eight_bits(decoder, device)
            setattr(model, FAST, decoder)
            return
    if recipe.model.fp8:
        raise RecipeError("model.fp8 needs the fast path", why, "set model.fp8 = false")
    console.line(f"the plain path is taken, which is slower: {why}")


def _use_eight_bits(decoder: Any, device: str) -> None:
    from tunewright.training.kernels.linear import supports_eight_bits

    if not supports_eight_bits(device):
        raise RecipeError(
            "model.fp8 needs a GPU with 8-bit floating point",
            "these are Hopper and later ones, such as H100 and H200",
            "set model.fp8 = false",
        )
    decoder.use_eight_bits()
