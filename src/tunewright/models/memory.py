"""What training takes, predicted from the shapes of the model: memory term by term, floating-point operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewright.models.families import shape_of
from tunewright.recipe import Recipe

SPARE = 0.08  # share of the memory that a plan leaves free
_BITS = {"nf4-double": 4.127, "nf4": 4.5, "int8": 8.0, "none": 16.0}  # per weight, block scales included
_STATE_BYTES = {"adamw": 8.0, "adamw-8bit": 2.1, "paged-adamw-8bit": 2.1}  # two moments per trained weight
_CONTEXT_BYTES = 0.6e9  # what the driver and the matrix libraries take for themselves
# Dense 16-bit matrix products per second, from the makers' data sheets.
_PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10": 125e12,
    "T4": 65e12,
    "V100": 112e12,
    "4090": 165e12,
    "3090": 71e12,
}


@dataclass(frozen=True)
class Shape:
    """A decoder with gated MLPs, in numbers: weights of its blocks and of embedding and head, and its widths."""

    block_weights: int
    vocabulary_weights: int
    hidden: int
    intermediate: int
    layers: int
    query: int
    key_value: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Return the shape that a model's config.json describes."""
        shape = shape_of(config)
        hidden, layers = int(shape["hidden_size"]), int(shape["num_hidden_layers"])
        heads = int(shape["num_attention_heads"])
        head_size = int(shape.get("head_dim") or hidden // heads)
        query = heads * head_size
        key_value = int(shape.get("num_key_value_heads") or heads) * head_size
        intermediate, vocabulary = int(shape["intermediate_size"]), int(shape["vocab_size"])
        block = 2 * hidden * (query + key_value) + 3 * hidden * intermediate
        tied = bool(shape.get("tie_word_embeddings") or config.get("tie_word_embeddings"))
        return cls(
            layers * block,
            vocabulary * hidden * (1 if tied else 2),
            hidden,
            intermediate,
            layers,
            query,
            key_value,
            vocabulary,
        )

    def adapter_weights(self, rank: int) -> int:
        """Return the weights of a LoRA adapter of that rank on all linear layers of the blocks."""
        attention = 2 * (self.hidden + self.query) + 2 * (self.hidden + self.key_value)
        return rank * self.layers * (attention + 3 * (self.hidden + self.intermediate))

    def flops_per_token(self, full: bool, checkpointing: bool) -> float:
        """Return the operations of one trained token, attention's scores apart (Kaplan et al. 2020, sec. 2.1).

        2 per weight forward, 2 for the gradient of the inputs, 2 more where the weights themselves are trained, and 2
        where the forward pass is computed again.
        """
        weights = self.block_weights + self.vocabulary * self.hidden
        return float(weights * (4 + 2 * full + 2 * checkpointing))


@dataclass(frozen=True)
class Memory:
    """Predicted bytes at the peak of a training step."""

    base: float
    trained: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All terms, and what the driver takes."""
        return self.base + self.trained + self.activations + self.logits + _CONTEXT_BYTES


def predict_memory(recipe: Recipe, shape: Shape, tokens: int, checkpointing: bool) -> Memory:
    """Return the predicted peak of a step with packed rows of that many tokens, all of them supervised."""
    settings = recipe.training
    full = settings.method == "full"
    weights = shape.block_weights + shape.vocabulary_weights
    base = shape.block_weights * _BITS[recipe.model.quantization] / 8 + shape.vocabulary_weights * 2
    trained = weights if full else shape.adapter_weights(settings.rank)
    # Per layer and token, 16 bit: what autograd keeps of two norms (in 32 bit), seven linear layers, attention with
    # its keys and values repeated per query head, and the gated MLP.
    layer = 14 * shape.hidden + 8 * shape.query + 8 * shape.intermediate
    kept = 2 * shape.hidden * shape.layers + layer if checkpointing else layer * shape.layers
    return Memory(
        base=4 * weights if full else base,
        trained=trained * ((4 if full else 8) + _STATE_BYTES[settings.optimizer]),
        activations=float(kept * tokens),
        logits=float(14 * shape.vocabulary * tokens),
    )


def choose_capacity(recipe: Recipe, shape: Shape | None, free_bytes: float) -> tuple[int, bool, str]:
    """Return (micro-batch tokens, activation checkpointing, why) for what the recipe leaves open.

    Args:
        recipe: its own values win.
        shape: of the base, or None where it is not known.
        free_bytes: memory of the GPU; 0 on a CPU.
    """
    settings = recipe.training
    wanted, switch = settings.micro_batch_tokens, settings.activation_checkpointing
    if not free_bytes or shape is None:
        why = "the base's shape is not known" if free_bytes else "a CPU gains nothing from larger rows"
        return wanted or _SMALL_ROW, switch == "on", why
    room = free_bytes * (1 - SPARE)
    sizes = [wanted] if wanted else [size for size in _GPU_TOKENS if size >= settings.max_tokens] or [_GPU_TOKENS[0]]
    for checkpointing in {"auto": (False, True), "on": (True,), "off": (False,)}[switch]:
        for size in sizes:
            memory = predict_memory(recipe, shape, size, checkpointing).total
            if memory <= room:
                told = f"{memory / 2**30:.1f} of {free_bytes / 2**30:.1f} GiB"
                return size, checkpointing, f"predicted to take {told}"
    return sizes[-1], switch != "off", "predicted not to fit; it gives way when memory runs out"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the device's memory is exhausted."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def peak_flops(device_name: str) -> float:
    """Return a GPU's dense 16-bit operations per second by its name; 0 where it is not known."""
    return next((flops for name, flops in _PEAK_FLOPS.items() if name in device_name), 0.0)


_SMALL_ROW = 512
_GPU_TOKENS = (8192, 4096, 2048, 1024, 512)
