"""Samples, texts and preference pairs to examples: token sequences with labels."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any

from tunewright.models.template import IGNORED, Encoded, encode, special_ids
from tunewright.records import Document, Message, PreferencePair, Rejection, Sample
from tunewright.training.batches import Example

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
