"""The memory plan of a training: what fits on the device, and the fastest choice of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tunewright.errors import ModelError
from tunewright.models.hardware import Shape
from tunewright.recipe import Recipe

SPARE = 0.08  # share of the memory that a plan leaves free
LEVELS = 3  # of a layer's activations beyond its input: for attention, for the MLP, the inputs of products
EVERYTHING = 2**30  # number of levels that means all, for any number of layers

_BITS = {"nf4-double": 4.127, "nf4": 4.5, "int8": 8.0, "none": 16.0}  # per weight, block scales included
_STATE_BYTES = {"adamw": 8.0, "adamw-8bit": 2.1, "paged-adamw-8bit": 2.1}  # two moments per trained weight
_CONTEXT_BYTES = 0.6e9  # taken by the driver and the matrix libraries
_GAPS = 1.04  # of what is kept, with what torch reserves between: rows differ in length from step to step
HEAD_BYTES = 2**29  # of logits that the fast path holds at once
_SMALL_ROW = 512
_GPU_ROWS = (16384, 8192, 4096, 2048, 1024, 512)
# Costs beside the products, in operations that a GPU could do in the same time; measured on an H200
# (docs/performance.md).
_UNPACKING = 400.0  # per weight and row, to unpack it once
_LAUNCHES = 2e11  # per layer and row
_PRODUCTS_AGAIN = 0.01  # share of a layer's work that recomputes the inputs of its products


@dataclass(frozen=True)
class Choice:
    """How a step is computed; it changes the result by no more than rounding.

    Attributes:
        tokens: the most tokens of a packed row.
        kept: levels of activations kept beyond the layers' inputs, counted over all layers, the lowest level first;
            0 recomputes everything, LEVELS times the number of layers recomputes nothing.
        cached: whether a 16-bit copy of the base is kept beside the quantized one.
        why: the reason, for people.
    """

    tokens: int
    kept: int
    cached: bool = False
    why: str = ""


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted memory at the peak of a training step, in bytes."""

    base: float
    trained: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """The sum of all terms and the driver's own memory."""
        return self.base + self.trained + self.activations + self.logits + _CONTEXT_BYTES


def levels_of(layers: int, kept: int) -> list[int]:
    """Return for each level the number of layers that keep it."""
    return [max(0, min(layers, kept - level * layers)) for level in range(LEVELS)]


def _level_values(shape: Shape) -> tuple[int, int, int]:
    """Return the number of values per token that a layer keeps at each level."""
    after = shape.hidden * shape.after_norms
    attention = 2 * (shape.query + shape.key_value) + shape.hidden + after
    if shape.experts:  # the inputs of their products are gathered again
        return attention, 2 * shape.intermediate * shape.chosen + after, shape.hidden
    return attention, 2 * shape.intermediate + after, 2 * shape.hidden + shape.intermediate


def predict_memory(recipe: Recipe, shape: Shape, choice: Choice, fast: bool) -> MemoryEstimate:
    """Return the predicted peak of a step whose packed rows are full and all supervised.

    Args:
        recipe: its method, rank, optimizer and quantization.
        shape: of the base.
        choice: how the step is computed.
        fast: whether on the fast path, whose layers keep only what they need.
    """
    settings, tokens = recipe.training, choice.tokens
    full = settings.method == "full"
    weights = shape.block_weights + shape.vocabulary_weights
    adapter = shape.adapter_weights(settings.rank, settings.targets == ("attention",))
    base = shape.block_weights * _BITS[recipe.model.quantization] / 8 + shape.vocabulary_weights * 2
    trained = (weights if full else adapter) * ((4 if full else 8) + _STATE_BYTES[settings.optimizer])
    if not fast:
        # Bytes per layer and token: what autograd keeps of the norms (in 32 bit where they are trained), seven linear
        # layers, attention and the gated MLP.
        norms = 14 if full else 8 + 4 * shape.after_norms
        layer = norms * shape.hidden + 8 * shape.query + 8 * shape.intermediate * shape.chosen
        values = layer * shape.layers if choice.kept else 2 * shape.hidden * shape.layers + layer
        return MemoryEstimate(
            4 * weights if full else base, trained, float(values * tokens), 6.0 * shape.vocabulary * tokens
        )
    per_weight = 2 * choice.cached + recipe.model.fp8
    unpacked = 0 if choice.cached and not shape.experts else 2 * shape.largest_product
    copies = (shape.block_weights - shape.expert_weights) * per_weight + unpacked
    live = 2 * (shape.query + shape.key_value) + 6 * shape.hidden + 3 * shape.intermediate * shape.chosen
    live += 3 * shape.hidden * shape.chosen if shape.experts else 0  # rows sorted by expert
    levels = zip(levels_of(shape.layers, choice.kept), _level_values(shape), strict=True)
    held = shape.layers * shape.hidden + _GAPS * sum(count * size for count, size in levels) + live
    # A head in which new tokens are trained is not computed in chunks.
    unchunked = bool(recipe.model.added_tokens)
    logits = 14.0 * shape.vocabulary * tokens if unchunked else min(2.0 * shape.vocabulary * tokens, HEAD_BYTES)
    logits += 6.0 * shape.hidden * tokens
    return MemoryEstimate(base + copies, trained + 3.0 * adapter, 2.0 * held * tokens, logits)


def require_room(recipe: Recipe, shape: Shape | None, free: float) -> None:
    """Refuse a training whose base and adapter alone take more memory than there is.

    Args:
        recipe: its quantization, rank, targets and optimizer.
        shape: of the base; None if unknown.
        free: available memory of the GPU in bytes.

    Raises:
        ModelError: it names the figures.
    """
    if shape is None:
        return
    memory = predict_memory(recipe, shape, Choice(_SMALL_ROW, 0), fast=True)
    needed = memory.base + memory.trained + _CONTEXT_BYTES
    if needed <= free:
        return
    base, trained = memory.base / 2**30, memory.trained / 2**30
    raise ModelError(
        f"{recipe.model.base} does not fit the GPU: it takes at least {needed / 2**30:.1f} of {free / 2**30:.1f} GiB",
        f"the base takes {base:.1f} GiB, what is trained with its optimizer {trained:.1f} GiB, before any activations",
        'use a smaller base or training.rank, training.optimizer = "adamw-8bit", or training.targets = ["attention"]',
    )


def step_cost(shape: Shape, choice: Choice) -> float:
    """Return the cost of the fast path in operations per token: products, recomputation, unpacking, launches."""
    into, out, up, down = shape.linear_weights
    per_layer = into + out + up + down
    attention, mlp, products = (shape.layers - count for count in levels_of(shape.layers, choice.kept))
    again = attention * 2.0 * (into + out) + mlp * 2.0 * up + products * _PRODUCTS_AGAIN * 4 * per_layer
    passes = 2 + again / (2.0 * shape.layers * per_layer)
    unpacked = shape.expert_weights if choice.cached else shape.block_weights
    unpacking = passes * _UNPACKING * unpacked
    return shape.flops_per_token(False, False) + again + (unpacking + _LAUNCHES * shape.layers) / choice.tokens


def choose(recipe: Recipe, shape: Shape | None, free: float, fast: bool, gpu: bool) -> Choice:
    """Return the fastest way to compute a step that fits.

    Args:
        recipe: settings that it fixes are kept.
        shape: of the base; None if unknown.
        free: available memory in bytes, of the GPU or of the host.
        fast: whether the fast path is taken.
        gpu: whether the device is a GPU.
    """
    row_tokens = recipe.training.micro_batch_tokens
    if shape is None:
        return Choice(row_tokens or _SMALL_ROW, EVERYTHING, why="the base's shape is unknown")
    if not gpu:
        cached = fast and 4 * shape.block_weights <= free / 2
        beside = "; its 32-bit weights fit beside it" if cached else ""
        return Choice(row_tokens or _SMALL_ROW, EVERYTHING, cached, f"a CPU gains nothing from larger rows{beside}")
    room = free * (1 - SPARE)
    candidates = _candidates(recipe, shape, fast)
    fitting = [choice for choice in candidates if predict_memory(recipe, shape, choice, fast).total <= room]
    if not fitting:
        smallest = Choice(row_tokens or _smallest_row(recipe), 0)
        return replace(smallest, why="predicted not to fit; it shrinks when memory runs out")
    best = min(fitting, key=lambda choice: step_cost(shape, choice)) if fast else fitting[0]
    taken = predict_memory(recipe, shape, best, fast).total
    return replace(best, why=f"predicted to take {taken / 2**30:.1f} of {free / 2**30:.1f} GiB")


def _smallest_row(recipe: Recipe) -> int:
    return max(_GPU_ROWS[-1], min(recipe.training.max_tokens, _GPU_ROWS[0]))


def _candidates(recipe: Recipe, shape: Shape, fast: bool) -> Iterator[Choice]:
    """Yield the possible choices; on the plain path in order of preference."""
    settings = recipe.training
    most = settings.batch_size * settings.max_tokens
    rows = [row for row in _GPU_ROWS if row >= settings.max_tokens and row < 2 * most] or [_smallest_row(recipe)]
    rows = [settings.micro_batch_tokens] if settings.micro_batch_tokens else rows
    all_kept = LEVELS * shape.layers
    if not fast:
        for kept in (EVERYTHING, 0):
            yield from (Choice(row, kept) for row in rows)
        return
    for row in rows:
        for cached in (True, False):
            for kept in range(all_kept, -1, -1):
                yield Choice(row, kept, cached)


def describe_choice(choice: Choice, layers: int) -> str:
    """Return a choice in words: the tokens at once, and what is kept in memory."""
    levels = levels_of(layers, choice.kept)
    if choice.kept <= 0:
        checkpointing = "on"
    elif choice.kept >= 2 * layers:  # the last level saves only element-wise work
        checkpointing = "off"
    else:
        checkpointing = (
            f"on for attention in {layers - levels[0]} and for the MLP in {layers - levels[1]} of {layers} layers"
        )
    copy = "; a full copy of the base is kept" if choice.cached else ""
    return f"{choice.tokens:,} tokens at once, activation checkpointing {checkpointing}{copy}"
