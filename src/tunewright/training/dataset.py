"""The training set: records encoded as examples, mixed with raw text, held out, and nested subsets of the records."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from tunewright import console
from tunewright.errors import ModelError
from tunewright.models.chat_template import IGNORED, Encoded, encode, encode_turns, special_ids
from tunewright.models.student import context_tokens
from tunewright.recipe import Recipe
from tunewright.records import VIEW, Chunk, Document, Message, PreferencePair, Rejection, Sample, SplitEntry, digest
from tunewright.text.injection import PLANTED, injection_fault
from tunewright.text.reasoning import is_unfinished_reasoning
from tunewright.training.packing import Example
from tunewright.training.teacher_prompts import FORGED, with_teachers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOO_LONG = "longer than max_tokens"
CHANGED = "the chat template changes its text"
CUT_OFF = "its reasoning does not end"


@dataclass(frozen=True)
class TrainingRecords:
    """The records that a run trains on, as far as its recipe asks for them.

    Attributes:
        samples: chats, and rewrites of passages (views).
        pairs: preference pairs.
        split: the side of each document; empty without raw text.
        documents: of both sides; empty without raw text.
        chunks: the passages of the training side; empty without distillation.
    """

    samples: Sequence[Sample] = ()
    pairs: Sequence[PreferencePair] = ()
    split: Sequence[SplitEntry] = ()
    documents: Sequence[Document] = ()
    chunks: Sequence[Chunk] = ()

    @property
    def size(self) -> int:
        """Number of samples and pairs; of training documents where raw text is all that there is."""
        return len(self.samples) + len(self.pairs) or sum(entry.side == "train" for entry in self.split)


def _fit(
    rendered: Iterable[tuple[Example, list[str]]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[Example], list[Rejection]]:
    """Return the examples that are fit for training, and a rejection for each of the others.

    An example over ``max_tokens`` is left out whole, never cut. An example whose texts hold a control token of the
    template is left out too: it could forge a turn.
    """
    examples, rejections = [], []
    control = special_ids(tokenizer)
    for example, texts in rendered:
        longest = max(len(sequence.input_ids) for sequence in example.sequences)
        if any(control.intersection(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]):
            rejections.append(Rejection(stage="train", id=example.sample, reason=FORGED))
        elif longest > max_tokens:
            detail = f"{longest} tokens"
            rejections.append(Rejection(stage="train", id=example.sample, reason=TOO_LONG, detail=detail))
        else:
            examples.append(example)
    return examples, rejections


def encode_samples(
    samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[Example], list[Rejection]]:
    """Tokenize chats, with labels on each assistant turn; return those fit for training, and the rejections."""
    rendered: list[tuple[Example, list[str]]] = []
    changed: list[Rejection] = []
    cut_off = dict.fromkeys(sample.id for sample in samples if _is_cut_off(sample))
    for sample in samples:
        if sample.id in cut_off:
            continue
        try:
            example = Example(sample.id, encode_turns(tokenizer, sample.messages))
        except ModelError as error:
            changed.append(Rejection(stage="train", id=sample.id, reason=CHANGED, detail=error.cause))
        else:
            rendered.append((example, [message.content for message in sample.messages]))
    if changed and not rendered:
        raise ModelError(
            "the chat template changes an assistant turn's text in every sample",
            changed[0].detail,
            "fix the template: the loss mask would be wrong",
        )
    if changed:
        console.warning(f"{len(changed)} of {len(samples)} samples are left out: {CHANGED}, such as {changed[0].id}")
    if cut_off:
        console.warning(
            f"{len(cut_off)} of {len(samples)} samples are left out: {CUT_OFF}, such as {next(iter(cut_off))}"
        )
    changed += [Rejection(stage="train", id=name, reason=CUT_OFF) for name in cut_off]
    examples, rejections = _fit(rendered, tokenizer, max_tokens)
    return examples, [*changed, *rejections]


def _is_cut_off(sample: Sample) -> bool:
    """Return whether an answer that is trained begins with reasoning that does not end: it would be learned so."""
    answers = [message for message in sample.messages if message.role == "assistant" and message.loss]
    return any(is_unfinished_reasoning(message.content) for message in answers)


def encode_pairs(
    pairs: Sequence[PreferencePair], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[Example], list[Rejection]]:
    """Tokenize preference pairs as (chosen, rejected), with labels on the last turn alone; see ``encode_samples``."""

    def render(pair: PreferencePair) -> tuple[Example, list[str]]:
        answers = [Message(role="assistant", content=text) for text in (pair.chosen, pair.rejected)]
        sequences = tuple(encode(tokenizer, (*pair.prompt, answer), last_turn_only=True) for answer in answers)
        return Example(pair.id, sequences), [message.content for message in (*pair.prompt, *answers)]

    return _fit(map(render, pairs), tokenizer, max_tokens)


def encode_texts(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, max_tokens: int, overlap: int
) -> list[Example]:
    """Tokenize whole documents for next-token prediction, in pieces of at most ``max_tokens``.

    Every token of a document is predicted exactly once (its first token only behind a beginning-of-text token). Each
    piece but a document's first begins with ``overlap`` tokens of the piece before it, as context without loss. A
    document begins with the tokenizer's beginning-of-text token and ends with its end-of-text token, if it has them.
    Text that spells a control token is split into ordinary tokens.
    """
    examples = []
    for document in documents:
        ids = list(tokenizer(document.text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        if not ids:
            continue
        start, end = ([n] if n is not None else [] for n in (tokenizer.bos_token_id, tokenizer.eos_token_id))
        ids = [*start, *ids, *end]
        # At least one token of context: without it, nothing would predict a piece's first token.
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
    """Return all chats, and texts drawn by the seed until they make up ``text_share`` of the tokens.

    A share of 1 takes the texts alone. If there is too little text for the share, all of it is taken.
    """
    if text_share >= 1:
        return list(texts)
    text_tokens = sum(example.num_tokens for example in chats) * text_share / (1 - text_share)
    shuffled = list(texts)
    random.Random(hashlib.sha256(f"texts {seed}".encode()).digest()).shuffle(shuffled)
    taken: list[Example] = []
    total = 0
    for example in shuffled:
        if total >= text_tokens:
            break
        taken.append(example)
        total += example.num_tokens
    return [*chats, *taken]


_MIN_HELD_OUT = 4  # a mean over fewer examples says nothing


@dataclass(frozen=True)
class TrainingData:
    """Encoded examples of both phases.

    Attributes:
        num_in: records read, rejected ones included.
        text_share: the share of the tokens of ``examples`` and ``held_out`` that are raw text.
    """

    examples: list[Example]
    held_out: list[Example]
    pairs: list[Example]
    held_out_pairs: list[Example]
    rejections: list[Rejection]
    pair_rejections: list[Rejection]
    num_in: int
    text_share: float


def num_held_out(num_examples: int, share: float) -> int:
    """Return the size of a share of the examples; 0 if it is too small for a mean."""
    number = round(share * num_examples)
    return number if number >= _MIN_HELD_OUT else 0


def hold_out(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Return (examples to train on, held-out examples): a share drawn by the seed, none if that is fewer than four."""
    number = num_held_out(len(examples), share)
    if not number:
        return list(examples), []
    order = list(range(len(examples)))
    random.Random(hashlib.sha256(f"held out {seed}".encode()).digest()).shuffle(order)
    chosen = set(order[:number])
    return (
        [example for index, example in enumerate(examples) if index not in chosen],
        [example for index, example in enumerate(examples) if index in chosen],
    )


def _as_text(view: Sample) -> Document:
    """Return a rewrite of a passage as raw text."""
    return Document(id=view.id, title="", source=view.id, text=view.answer)


def encode_records(
    records: TrainingRecords,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    passages: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> TrainingData:
    """Encode all that the recipe trains on.

    Raw text comes from the documents of the split's training side alone, and from the rewrites of their passages.

    Args:
        records: what is trained on.
        recipe: its [training].
        tokenizer: the student's.
        passages: for distillation, what the teacher reads with each sample; see ``teacher_prompts.passages_of``.
    """
    settings, seed = recipe.training, recipe.seed
    chats: list[Example] = []
    texts: list[Example] = []
    rejections: list[Rejection] = []
    num_in = 0
    if settings.epochs and settings.text_share < 1:
        samples = [sample for sample in records.samples if sample.task != VIEW]
        num_in += len(samples)
        chats, rejections = encode_samples(samples, tokenizer, settings.max_tokens)
        if passages:
            chats, untaught = with_teachers(chats, samples, passages, tokenizer, context_tokens(recipe))
            rejections += untaught
    if settings.epochs and settings.text_share:
        documents, planted = _raw_texts(records)
        rejections += planted
        num_in += len(planted)
        texts = encode_texts(documents, tokenizer, settings.max_tokens, settings.text_overlap)
    mixed = mix(chats, texts, settings.text_share, seed)
    num_in += len(mixed) - len(chats) + len(records.pairs)
    pairs, pair_rejections = encode_pairs(records.pairs, tokenizer, settings.max_tokens)
    num_tokens = sum(example.num_tokens for example in mixed)
    share = 1 - sum(example.num_tokens for example in chats) / num_tokens if num_tokens else 0.0
    if texts and share < settings.text_share - 0.02:
        console.warning(
            f"raw text makes up {share:.0%} of the tokens, not {settings.text_share:.0%}: there is no more of it"
        )
    return TrainingData(
        *hold_out(mixed, settings.held_out_share, seed),
        *hold_out(pairs, settings.held_out_share, seed),
        rejections,
        pair_rejections,
        num_in,
        share,
    )


def _raw_texts(records: TrainingRecords) -> tuple[list[Document], list[Rejection]]:
    """Return the texts of the training side, and a rejection for each document with a planted instruction."""
    side = {entry.document for entry in records.split if entry.side == "train"}
    documents: list[Document] = []
    rejections: list[Rejection] = []
    for document in records.documents:
        if document.id not in side:
            continue
        if injection_fault(f"{document.title}\n{document.text}"):
            rejections.append(Rejection(stage="train", id=document.id, reason=PLANTED, detail=document.source))
        else:
            documents.append(document)
    documents += [_as_text(sample) for sample in records.samples if sample.task == VIEW and sample.document in side]
    return documents, rejections


_Item = TypeVar("_Item")


def nested(
    items: Sequence[_Item], percent: int, seed: int, name: Callable[[_Item], str], kind: Callable[[_Item], str]
) -> list[_Item]:
    """Return a share of the items in their order: the same share of each kind, rounded up, drawn by the seed.

    A smaller share lies within every larger share.
    """
    chosen: set[int] = set()
    for value in dict.fromkeys(map(kind, items)):
        indices = [index for index, item in enumerate(items) if kind(item) == value]
        ranked = sorted(indices, key=lambda index: digest("curve", seed, name(items[index])))
        chosen |= set(ranked[: math.ceil(Fraction(percent, 100) * len(ranked))])
    return [item for index, item in enumerate(items) if index in chosen]


def subset(records: TrainingRecords, percent: int, seed: int) -> TrainingRecords:
    """Return a share of the samples, pairs and training documents, for a learning curve; see ``nested``."""
    training_side = [entry for entry in records.split if entry.side == "train"]
    if records.documents:  # without raw text, the split only says whose passages a teacher may read
        training_side = nested(training_side, percent, seed, lambda entry: entry.document, lambda entry: entry.side)
    return replace(
        records,
        samples=nested(records.samples, percent, seed, lambda sample: sample.id, lambda sample: sample.task),
        pairs=nested(records.pairs, percent, seed, lambda pair: pair.id, lambda pair: pair.origin),
        split=training_side,
    )
