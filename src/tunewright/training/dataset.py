"""Nested parts of a training set, for a learning curve: the smaller ones lie within the larger ones."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from tunewright import console
from tunewright.models.chat_template import IGNORED, Encoded, encode, special_ids
from tunewright.recipe import Recipe
from tunewright.records import VIEW, Document, Message, PreferencePair, Rejection, Sample, SplitEntry, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.text.injection import PLANTED, injection_fault
from tunewright.training.packing import Example

TOO_LONG = "longer than max_tokens"
FORGED = "holds a control token of the template"


def _fit(
    rendered: Iterable[tuple[Example, list[str]]], tokenizer: Any, max_tokens: int
) -> tuple[list[Example], list[Rejection]]:
    """Return the examples that may be trained on, and a rejection for each of the others.

    One over ``max_tokens`` is left out whole, never cut. One whose texts hold a control token of the template is left
    out too: it could forge a turn.
    """
    examples, rejections = [], []
    control = special_ids(tokenizer)
    for example, said in rendered:
        longest = max(len(sequence.input_ids) for sequence in example.sequences)
        if any(control.intersection(ids) for ids in tokenizer(said, add_special_tokens=False)["input_ids"]):
            rejections.append(Rejection(stage="train", id=example.sample, reason=FORGED))
        elif longest > max_tokens:
            detail = f"{longest} tokens"
            rejections.append(Rejection(stage="train", id=example.sample, reason=TOO_LONG, detail=detail))
        else:
            examples.append(example)
    return examples, rejections


def encode_samples(samples: Sequence[Sample], tokenizer: Any, max_tokens: int) -> tuple[list[Example], list[Rejection]]:
    """Tokenize chats, labels on every assistant turn; return those fit for training, and a rejection for the others."""
    rendered = (
        (Example(sample.id, (encode(tokenizer, sample.messages),)), [message.content for message in sample.messages])
        for sample in samples
    )
    return _fit(rendered, tokenizer, max_tokens)


def encode_pairs(
    pairs: Sequence[PreferencePair], tokenizer: Any, max_tokens: int
) -> tuple[list[Example], list[Rejection]]:
    """Tokenize preference pairs to (chosen, rejected), labels on the last turn alone; as ``encode_samples``."""

    def render(pair: PreferencePair) -> tuple[Example, list[str]]:
        answers = [Message(role="assistant", content=text) for text in (pair.chosen, pair.rejected)]
        sequences = tuple(encode(tokenizer, (*pair.prompt, answer), last_turn_only=True) for answer in answers)
        return Example(pair.id, sequences), [message.content for message in (*pair.prompt, *answers)]

    return _fit(map(render, pairs), tokenizer, max_tokens)


def encode_texts(documents: Sequence[Document], tokenizer: Any, max_tokens: int, overlap: int) -> list[Example]:
    """Tokenize whole documents for next-token prediction, in pieces of at most ``max_tokens``.

    Every token of a document is predicted exactly once (its first one only behind a beginning-of-text token). A piece
    after a document's first begins with ``overlap`` tokens of the one before it, as context that carries no loss. A
    document begins with the tokenizer's beginning-of-text token and ends with its end-of-text token, where it has
    them. Text that spells a control token is split into ordinary tokens.
    """
    examples = []
    for document in documents:
        ids = list(tokenizer(document.text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        if not ids:
            continue
        start, end = ([n] if n is not None else [] for n in (tokenizer.bos_token_id, tokenizer.eos_token_id))
        ids = [*start, *ids, *end]
        # One token of context is the least: without it a piece's first token would be predicted by nothing.
        context = min(max(1, overlap), max_tokens // 2)
        begin = 0
        while begin < len(ids):
            low = max(0, begin - context)
            piece = ids[low : low + max_tokens]
            labels = [IGNORED] * (begin - low) + piece[begin - low :]
            examples.append(Example(f"{document.id}:{begin}", (Encoded(piece, labels, ends_supervised=True),)))
            begin = low + len(piece)
    return examples


def mix(chats: Sequence[Example], texts: Sequence[Example], text_share: float, seed: int) -> list[Example]:
    """Return all chats and as many pieces of text, drawn by the seed, as make ``text_share`` of the tokens.

    A share of 1 takes the texts alone. Where there is too little text for the share, all of it is taken.
    """
    if text_share >= 1:
        return list(texts)
    wanted = sum(example.num_tokens for example in chats) * text_share / (1 - text_share)
    drawn = list(texts)
    random.Random(hashlib.sha256(f"texts {seed}".encode()).digest()).shuffle(drawn)
    taken: list[Example] = []
    total = 0
    for example in drawn:
        if total >= wanted:
            break
        taken.append(example)
        total += example.num_tokens
    return [*chats, *taken]


_FEWEST_HELD_OUT = 4  # a mean over fewer says nothing


@dataclass(frozen=True)
class TrainingData:
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


def read_data(run: RunFolder, recipe: Recipe, tokenizer: Any) -> TrainingData:
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
    samples = run.records_if_any(RunFile.TRAIN, Sample) if recipe.needs_samples else []
    if settings.epochs and settings.text_share < 1:
        told = [sample for sample in samples if sample.task != VIEW]
        num_in += len(told)
        chats, rejections = encode_samples(told, tokenizer, settings.max_tokens)
    if settings.epochs and settings.text_share:
        side = {entry.document for entry in run.records_if_any(RunFile.SPLIT, SplitEntry) if entry.side == "train"}
        documents = [document for document in run.records_if_any(RunFile.DOCUMENTS, Document) if document.id in side]
        planted = [document for document in documents if injection_fault(f"{document.title}\n{document.text}")]
        rejections += [Rejection(stage="train", id=one.id, reason=PLANTED, detail=one.source) for one in planted]
        num_in += len(planted)
        documents = [document for document in documents if document not in planted]
        documents += [_as_text(sample) for sample in samples if sample.task == VIEW and sample.document in side]
        texts = encode_texts(documents, tokenizer, settings.max_tokens, settings.text_overlap)
    mixed = mix(chats, texts, settings.text_share, seed)
    num_in += len(mixed) - len(chats)
    if recipe.preference.wanted:
        given = run.records_if_any(RunFile.PAIRS, PreferencePair)
        num_in += len(given)
        pairs, refused = encode_pairs(given, tokenizer, settings.max_tokens)
    tokens = sum(example.num_tokens for example in mixed)
    share = 1 - sum(example.num_tokens for example in chats) / tokens if tokens else 0.0
    if texts and share < settings.text_share - 0.02:
        console.warning(
            f"raw text makes {share:.0%} of the tokens, not {settings.text_share:.0%}: there is no more of it"
        )
    return TrainingData(
        *hold_out(mixed, settings.held_out_share, seed),
        *hold_out(pairs, settings.held_out_share, seed),
        rejections,
        refused,
        num_in,
        share,
    )


_Item = TypeVar("_Item")


def nested(
    items: Sequence[_Item], percent: int, seed: int, name: Callable[[_Item], str], kind: Callable[[_Item], str]
) -> list[_Item]:
    """Return a share of the items in their order: of each kind the same share, rounded up, drawn by the seed.

    Who is drawn for a smaller share is drawn for every larger one too.
    """
    kept: set[int] = set()
    for one in dict.fromkeys(map(kind, items)):
        places = [place for place, item in enumerate(items) if kind(item) == one]
        ranked = sorted(places, key=lambda place: digest("curve", seed, name(items[place])))
        kept |= set(ranked[: math.ceil(Fraction(percent, 100) * len(ranked))])
    return [item for place, item in enumerate(items) if place in kept]


def write_subset(run: RunFolder, own: RunFolder, recipe: Recipe, percent: int) -> int:
    """Write the share of a run's training data to another folder; return its size as ``training_size`` counts it."""
    seed = recipe.seed
    if recipe.needs_samples:
        samples = run.read_records(RunFile.TRAIN, Sample)
        drawn = nested(samples, percent, seed, lambda sample: sample.id, lambda sample: sample.task)
        own.write_records(RunFile.TRAIN, drawn)
    if recipe.preference.wanted:
        pairs = run.read_records(RunFile.PAIRS, PreferencePair)
        preferred = nested(pairs, percent, seed, lambda pair: pair.id, lambda pair: pair.origin)
        own.write_records(RunFile.PAIRS, preferred)
    if recipe.training.text_share:
        entries = run.read_records(RunFile.SPLIT, SplitEntry)
        learning = [entry for entry in entries if entry.side == "train"]
        reading = nested(learning, percent, seed, lambda entry: entry.document, lambda entry: entry.side)
        own.write_records(RunFile.SPLIT, reading)
        own.write_records(RunFile.DOCUMENTS, run.read_records(RunFile.DOCUMENTS, Document))
    return training_size(own, recipe)


def training_size(run: RunFolder, recipe: Recipe) -> int:
    """Return how much a run trains on: its samples and pairs, or its documents where it learns raw text alone."""
    size = 0
    if recipe.needs_samples:
        size += len(run.read_records(RunFile.TRAIN, Sample))
    if recipe.preference.wanted:
        size += len(run.read_records(RunFile.PAIRS, PreferencePair))
    return size or sum(entry.side == "train" for entry in run.read_records(RunFile.SPLIT, SplitEntry))
