"""Batches of answers: each is answered once by its weights and journaled before it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright import console
from tunewright.errors import RunFolderError, StageError, reading, shell
from tunewright.models.chat_template import end_ids
from tunewright.models.loading import pick_device
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.run_folder import Journal

BATCH_SIZE = {"cpu": 48, "cuda": 128}

Outputs = list[dict[str, Any]]


@dataclass(frozen=True)
class AnswerBatch:
    """Questions or items that the same weights answer together.

    Attributes:
        weights: the weights that answer.
        keys: one for each answer: a digest of all that it depends on.
        answer: (model, tokens that end an answer) -> an output for each key, JSON-able.
    """

    weights: ModelWeights
    keys: tuple[str, ...]
    answer: Callable[[Any, Sequence[int]], Outputs]


def batch_size() -> int:
    """Return the number of answers that this machine's device generates at once."""
    return BATCH_SIZE[pick_device().partition(":")[0]]


def _in_order(planned: Sequence[AnswerBatch]) -> list[AnswerBatch]:
    """Return the batches model by model, so that each is loaded once, and bases before their adapters."""
    models = list(dict.fromkeys(batch.weights.loaded_as for batch in planned))
    return sorted(planned, key=lambda b: (models.index(b.weights.loaded_as), b.weights.adapter is not None))


def require_finite(outputs: Iterable[dict[str, Any]]) -> None:
    """Refuse likelihoods that overflowed: without them, the rest would look better than it is.

    Raises:
        StageError: one is not finite; nothing of its batch is journaled.
    """
    values = (output.get(name) for output in outputs for name in ("gold_nll", "contrast_nll", "option_nlls", "nll"))
    flat = (number for value in values for number in (value if isinstance(value, list | tuple) else [value]))
    if not all(number is None or math.isfinite(number) for number in flat):
        raise StageError(
            "the likelihood of an answer is not a finite number",
            "the model overflows in its compute type, or its training diverged",
            'check the loss in metrics.jsonl; if it is finite, compute in 32 bits: --set model.compute="fp32"',
        )


def answer_again(journal: Journal) -> str:
    """Return the hint for a damaged journal of answers."""
    move = shell("mv", journal.path, f"{journal.path}.damaged")
    return f"restore it from a copy, or move it away, and all are given again: {move}"


def answer_all(journal: Journal, planned: Sequence[AnswerBatch], pool: ModelPool) -> dict[str, Any]:
    """Return all outputs by key: those in the journal, and those of the missing batches, answered now.

    Raises:
        StageError: a likelihood overflowed.
    """
    answered: dict[str, Any] = {}
    with reading("answers", journal.path, answer_again(journal), RunFolderError):
        for entry in journal.entries:
            answered |= entry.get("outputs", {})  # a line of another kind holds no answers: they are generated again
    missing = [batch for batch in _in_order(planned) if any(key not in answered for key in batch.keys)]
    if not missing:
        return answered
    with console.progress("answers", sum(len(batch.keys) for batch in missing)) as bar:
        for batch in missing:
            with pool.holding(batch.weights) as model:
                ends = end_ids(pool.tokenizer(batch.weights), model)
                outputs = dict(zip(batch.keys, batch.answer(model, ends), strict=True))
            require_finite(outputs.values())
            journal.append({"outputs": outputs})
            answered |= outputs
            bar.advance(len(batch.keys))
    return answered
