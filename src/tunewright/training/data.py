"""What a training reads: chats, the documents' text and preference pairs, encoded, with a share of each held out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright import console
from tunewright.injection import PLANTED, injection_fault
from tunewright.recipe import Recipe
from tunewright.records import VIEW, Document, PreferencePair, Rejection, Sample, SplitEntry
from tunewright.rundir import RunFolder
from tunewright.training.batches import Example
from tunewright.training.encoding import encode_pairs, encode_samples, encode_texts, mix

_FEWEST_HELD_OUT = 4  # a mean over fewer says nothing


@dataclass(frozen=True)
class Data:
    """Encoded examples of both phases; ``num_in`` counts what was read, rejections included."""

    examples: list[Example]
    held_out: list[Example]
    pairs: list[Example]
    held_out_pairs: list[Example]
    rejections: list[Rejection]
    pair_rejections: list[Rejection]
    num_in: int
    text_share: float


def hold_out(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Return (to train on, held out): a share drawn by the seed, none where it would be fewer than four."""
    number = round(share * len(examples))
    if number < _FEWEST_HELD_OUT:
        return list(examples), []
    order = list(range(len(examples)))
    random.Random(hashlib.sha256(f"held out {seed}".encode()).digest()).shuffle(order)
    chosen = set(order[:number])
    return (
        [example for place, example in enumerate(examples) if place not in chosen],
        [example for place, example in enumerate(examples) if place in chosen],
    )


def _as_text(view: Sample) -> Document:
    """Return a rewrite of a passage as raw text."""
    return Document(id=view.id, title="", source=view.id, text=view.answer)


def read_data(run: RunFolder, recipe: Recipe, tokenizer: Any) -> Data:
    """Encode all that the recipe trains on.

    Raw text comes from the documents of the split's training side alone, and from the rewrites of their passages.
    """
    settings, seed = recipe.training, recipe.seed
    chats: list[Example] = []
    rejections: list[Rejection] = []
    texts: list[Example] = []
    pairs: list[Example] = []
    refused: list[Rejection] = []
    num_in = 0
    # A run without synthesis has no train.jsonl of its own: one that lies there is of other settings.
    samples = run.records_if_any("train.jsonl", Sample) if recipe.needs_samples else []
    if settings.epochs and settings.text_share < 1:
        told = [sample for sample in samples if sample.task != VIEW]
        num_in += len(told)
        chats, rejections = encode_samples(told, tokenizer, settings.max_tokens)
    if settings.epochs and settings.text_share:
        side = {entry.document for entry in run.records_if_any("split.jsonl", SplitEntry) if entry.side == "train"}
        documents = [document for document in run.records_if_any("documents.jsonl", Document) if document.id in side]
        planted = [document for document in documents if injection_fault(f"{document.title}\n{document.text}")]
        rejections += [Rejection(stage="train", id=one.id, reason=PLANTED, detail=one.source) for one in planted]
        num_in += len(planted)
        documents = [document for document in documents if document not in planted]
        documents += [_as_text(sample) for sample in samples if sample.task == VIEW and sample.document in side]
        texts = encode_texts(documents, tokenizer, settings.max_tokens, settings.text_overlap)
    mixed = mix(chats, texts, settings.text_share, seed)
    num_in += len(mixed) - len(chats)
    if recipe.preference.wanted:
        given = run.records_if_any("pairs.jsonl", PreferencePair)
        num_in += len(given)
        pairs, refused = encode_pairs(given, tokenizer, settings.max_tokens)
    tokens = sum(example.num_tokens for example in mixed)
    share = 1 - sum(example.num_tokens for example in chats) / tokens if tokens else 0.0
    if texts and share < settings.text_share - 0.02:
        console.warning(
            f"raw text makes {share:.0%} of the tokens, not {settings.text_share:.0%}: there is no more of it"
        )
    return Data(
        *hold_out(mixed, settings.held_out_share, seed),
        *hold_out(pairs, settings.held_out_share, seed),
        rejections,
        refused,
        num_in,
        share,
    )
