"""The memory budget of a training: what fits on the device, and of that, what is fastest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tunewright.models.hardware import Shape
from tunewright.recipe import Recipe

SPARE = 0.08  # share of the memory that a plan leaves free
LEVELS = 3  # kept of a layer beyond its input: what attention needs, what the MLP needs, the inputs of products
EVERYTHING = 2**30  # as a count of levels: all of them, however many layers there are

_BITS = {"nf4-double": 4.127, "nf4": 4.5, "int8": 8.0, "none": 16.0}  # per weight, block scales included
_STATE_BYTES = {"adamw": 8.0, "adamw-8bit": 2.1, "paged-adamw-8bit": 2.1}  # two moments per trained weight
_CONTEXT_BYTES = 0.6e9  # what the driver and the matrix libraries take for themselves
HEAD_BYTES = 2**29  # of logits that the fast path holds at once
_SMALL_ROW = 512
_GPU_ROWS = (16384, 8192, 4096, 2048, 1024, 512)
# Costs beside the products, in operations that a GPU could do meanwhile; measured on an H200 (docs/performance.md).
_UNPACKING = 400.0  # per weight and row, to unpack it once
_LAUNCHES = 2e11  # per layer and row
_PRODUCTS_AGAIN = 0.01  # share of a layer's work to make the inputs of its products again


@dataclass(frozen=True)
class Choice:
    """How a step is computed: none of it changes the result beyond rounding.

    Attributes:
        tokens: most tokens of a packed row.
        kept: levels of activations kept beyond the layers' inputs, counted over all layers, the lowest level first;
            0 recomputes everything, LEVELS times the layers nothing.
        cached: whether a 16-bit copy of the base is kept beside the quantized one.
        why: the reason, for people.
    """

    tokens: int
    kept: int
    cached: bool = False
    why: str = ""


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted bytes at the peak of a training step."""

    base: float
    trained: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All terms, and what the driver takes."""
        return self.base + self.trained + self.activations + self.logits + _CONTEXT_BYTES


def levels_of(layers: int, kept: int) -> list[int]:
    """Return how many layers keep each level."""
    return [max(0, min(layers, kept - level * layers)) for level in range(LEVELS)]


def _level_values(shape: Shape) -> tuple[int, int, int]:
    """Return the values per token that one layer keeps at each level."""
    attention = 2 * (shape.query + shape.key_value) + shape.hidden
    return attention, 2 * shape.intermediate, 2 * shape.hidden + shape.intermediate


def predict_memory(recipe: Recipe, shape: Shape, choice: Choice, fast: bool) -> MemoryEstimate:
    """Return the predicted peak of a step with packed rows of that many tokens, all of them supervised.

    Args:
        recipe: its method, rank, optimizer and quantization.
        shape: of the base.
        choice: how the step is computed.
        fast: whether by the fast path, whose layers keep only what they need.
    """
    settings, tokens = recipe.training, choice.tokens
    full = settings.method == "full"
    weights = shape.block_weights + shape.vocabulary_weights
    adapter = shape.adapter_weights(settings.rank)
    base = shape.block_weights * _BITS[recipe.model.quantization] / 8 + shape.vocabulary_weights * 2
    trained = (weights if full else adapter) * ((4 if full else 8) + _STATE_BYTES[settings.optimizer])
    if not fast:
        # Per layer and token, 16 bit: what autograd keeps of two norms (in 32 bit), seven linear layers, attention
        # with its keys and values repeated per query head, and the gated MLP.
        layer = 14 * shape.hidden + 8 * shape.query + 8 * shape.intermediate
        values = layer * shape.layers if choice.kept else 2 * shape.hidden * shape.layers + layer
        return MemoryEstimate(
            4 * weights if full else base, trained, float(values * tokens), 14.0 * shape.vocabulary * tokens
        )
    per_weight = 2 * choice.cached + recipe.model.fp8
    copies = shape.block_weights * per_weight + (0 if choice.cached else 2 * max(shape.linear_weights))
    live = 2 * (shape.query + shape.key_value) + 6 * shape.hidden + 3 * shape.intermediate
    levels = zip(levels_of(shape.layers, choice.kept), _level_values(shape), strict=True)
    values = shape.layers * shape.hidden + sum(count * size for count, size in levels) + live
    # A head that new tokens are trained in is not computed in chunks.
    whole = bool(recipe.model.added_tokens)
    logits = 14.0 * shape.vocabulary * tokens if whole else min(2.0 * shape.vocabulary * tokens, HEAD_BYTES)
    logits += 6.0 * shape.hidden * tokens
    return MemoryEstimate(base + copies, trained + 3.0 * adapter, 2.0 * values * tokens, logits)


def step_cost(shape: Shape, choice: Choice) -> float:
    """Return the operations of the fast path per token, with what is done again and what is no product."""
    into, out, up, down = shape.linear_weights
    per_layer = into + out + up + down
    attention, mlp, products = (shape.layers - count for count in levels_of(shape.layers, choice.kept))
    again = attention * 2.0 * (into + out) + mlp * 2.0 * up + products * _PRODUCTS_AGAIN * 4 * per_layer
    passes = 2 + again / (2.0 * shape.layers * per_layer)
    unpacking = 0.0 if choice.cached else passes * _UNPACKING * shape.block_weights
    return shape.flops_per_token(False, False) + again + (unpacking + _LAUNCHES * shape.layers) / choice.tokens


def choose(recipe: Recipe, shape: Shape | None, free: float, fast: bool, gpu: bool) -> Choice:
    """Return how to compute a step, for what the recipe leaves open: of what fits, the fastest.

    Args:
        recipe: its own values win.
        shape: of the base, or None where it is not known.
        free: bytes of memory that may be taken, on a GPU or of the host.
        fast: whether the fast path is taken.
        gpu: whether it is a GPU's.
    """
    settings = recipe.training
    wanted, on = settings.micro_batch_tokens, settings.activation_checkpointing == "on"
    kept = 0 if on else EVERYTHING
    if shape is None:
        return Choice(wanted or _SMALL_ROW, kept, why="the base's shape is not known")
    if not gpu:
        cached = fast and 4 * shape.block_weights <= free / 2
        beside = "; its 32-bit weights fit beside it" if cached else ""
        return Choice(wanted or _SMALL_ROW, kept, cached, f"a CPU gains nothing from larger rows{beside}")
    room = free * (1 - SPARE)
    tried = _candidates(recipe, shape, fast)
    fitting = [one for one in tried if predict_memory(recipe, shape, one, fast).total <= room]
    if not fitting:
        smallest = Choice(wanted or _smallest_row(recipe), kept if settings.activation_checkpointing == "off" else 0)
        return replace(smallest, why="predicted not to fit; it gives way when memory runs out")
    best = min(fitting, key=lambda one: step_cost(shape, one)) if fast else fitting[0]
    taken = predict_memory(recipe, shape, best, fast).total
    return replace(best, why=f"predicted to take {taken / 2**30:.1f} of {free / 2**30:.1f} GiB")


def _smallest_row(recipe: Recipe) -> int:
    return max(_GPU_ROWS[-1], min(recipe.training.max_tokens, _GPU_ROWS[0]))


def _candidates(recipe: Recipe, shape: Shape, fast: bool) -> Iterator[Choice]:
    """Yield what may be tried; without the fast path in the order of preference."""
    settings = recipe.training
    switch, most = settings.activation_checkpointing, settings.batch_size * settings.max_tokens
    rows = [row for row in _GPU_ROWS if row >= settings.max_tokens and row < 2 * most] or [_smallest_row(recipe)]
    rows = [settings.micro_batch_tokens] if settings.micro_batch_tokens else rows
    all_kept = LEVELS * shape.layers
    if not fast:
        for kept in {"auto": (EVERYTHING, 0), "on": (0,), "off": (EVERYTHING,)}[switch]:
            yield from (Choice(row, kept) for row in rows)
        return
    for row in rows:
        for cached in (True, False):
            for kept in {"auto": range(all_kept, -1, -1), "on": (0,), "off": (all_kept,)}[switch]:
                yield Choice(row, kept, cached)


def describe_choice(choice: Choice, layers: int) -> str:
    """Return a choice in words: what is at once on the device, and what is kept there."""
    levels = levels_of(layers, choice.kept)
    if choice.kept <= 0:
        again = "on"
    elif choice.kept >= 2 * layers:  # the last level saves element-wise work alone
        again = "off"
    else:
        again = f"on for attention in {layers - levels[0]} and for the MLP in {layers - levels[1]} of {layers} layers"
    copy = "; a full copy of the base is kept" if choice.cached else ""
    return f"{choice.tokens:,} tokens at once, activation checkpointing {again}{copy}"
