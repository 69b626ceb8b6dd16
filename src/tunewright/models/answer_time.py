"""How long answers take on a CPU: a prediction from the shapes of model and prompts, before any is given."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunewright.models.hardware import Shape

# Of one processor, measured on the embedded model in bf16, with 1 to 48 answers at once behind 60 to 300 tokens. Beside
# the matrix products, a step reads every weight, starts every layer, and moves the keys and values of every answer.
_READING = 2.0  # times the products alone: attention, norms, and padding to the longest prompt
_S_PER_WEIGHT = 0.26e-9  # of a step of a batch
_S_PER_LAYER = 40e-6  # of a step of an answer
_S_PER_CACHED = 1.8e-9  # of a key or value in the cache, per step: copied as it grows, and read
_LEAST_SHARED = 8  # tokens that all prompts begin with, below which each computes its own


@dataclass(frozen=True)
class Answering:
    """The answers of an arm, in mean numbers of tokens.

    Attributes:
        num: answers.
        prompt: tokens of a prompt that the others do not share.
        shared: tokens that all prompts begin with, computed once per batch.
        written: tokens of an answer.
        longest: tokens of the longest answer of a batch.
        scored: tokens of given answers whose likelihood is computed.
    """

    num: int
    prompt: float
    shared: float
    written: float
    longest: float
    scored: float = 0.0


def answering_seconds(work: Answering, batch_size: int, shape: Shape, flops: float) -> float:
    """Return about how many processor seconds an arm's answers take, in batches of this size.

    Args:
        work: the answers.
        batch_size: answers that are given at once.
        shape: of the model.
        flops: operations of matrix products per processor second.
    """
    num_batches = math.ceil(work.num / batch_size)
    shared = work.shared if work.shared >= _LEAST_SHARED else 0.0
    per_token = 2.0 * shape.layers * sum(shape.linear_weights)
    with_head = per_token + 2.0 * shape.vocabulary * shape.hidden
    read = work.num * (work.prompt + work.shared - shared) + num_batches * shared
    written = work.num * work.written
    operations = _READING * (per_token * read + with_head * work.num * work.scored) + with_head * written
    context = work.prompt + work.shared + work.written / 2
    per_step = shape.layers * (_S_PER_LAYER + context * 2 * shape.key_value * _S_PER_CACHED)
    steps = num_batches * work.longest * with_head / 2 * _S_PER_WEIGHT
    return operations / flops + steps + written * per_step
