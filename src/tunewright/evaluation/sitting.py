"""The exam room: one loaded base answers batch by batch, every batch is journalled, and none is answered twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright import console
from tunewright.models.load import for_inference, load_adapter, pick_device
from tunewright.models.student import student_base, student_identity
from tunewright.models.template import end_ids
from tunewright.recipe import Recipe
from tunewright.rundir import RunFolder, file_digest

JOURNAL = "answers-journal.jsonl"
BATCH_SIZE = {"cpu": 48, "cuda": 128}

Outputs = list[dict[str, Any]]


@dataclass(frozen=True)
class Batch:
    """What the same weights answer together.

    Attributes:
        tuned: whether the adapter is on.
        keys: names each answer by all that it depends on.
        answer: (model, tokens that end an answer) -> an output for each key, JSON-able.
    """

    tuned: bool
    keys: tuple[str, ...]
    answer: Callable[[Any, Sequence[int]], Outputs]


def batch_size() -> int:
    """Return how many answers are worked on at once here."""
    return BATCH_SIZE[pick_device().partition(":")[0]]


def weights_names(run: RunFolder, recipe: Recipe, with_adapter: bool) -> dict[bool, str]:
    """Return what names the weights without (False) and with the adapter (True)."""
    base = student_identity(recipe, pick_device())
    return {False: base, True: f"{base} {file_digest(run.file('adapter'))}" if with_adapter else base}


def answer_all(run: RunFolder, recipe: Recipe, tokenizer: Any, planned: Sequence[Batch]) -> dict[str, Any]:
    """Return all outputs by key: from the journal where they stand there, else by answering their batch now.

    The base is loaded once, when the first batch is missing; those of the base come before those of the adapter.
    """
    journal = run.journal(JOURNAL)
    told: dict[str, Any] = {}
    for entry in journal.entries:
        told |= entry.get("outputs", {})  # a line of another kind answers nothing, and is answered anew
    missing = [batch for batch in planned if any(key not in told for key in batch.keys)]
    if not missing:
        return told
    device = pick_device()
    console.line(f"loading {recipe.model.base} on {device}")
    model = for_inference(student_base(recipe, device, tokenizer))
    ends, adapted = end_ids(tokenizer, model), False
    with console.progress("answers", sum(len(batch.keys) for batch in missing)) as bar:
        for batch in sorted(missing, key=lambda batch: batch.tuned):
            if batch.tuned and not adapted:
                model, adapted = load_adapter(model, run.file("adapter")), True
            outputs = dict(zip(batch.keys, batch.answer(model, ends), strict=True))
            journal.append({"outputs": outputs})
            told |= outputs
            bar.advance(len(batch.keys))
    return told
