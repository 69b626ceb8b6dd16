"""Samples to tensors: encoding, the order of training as a pure function of (seed, step), micro-batches."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.models.template import IGNORED, Encoded, encode, special_ids
from tunewright.records import Rejection, Sample

TOO_LONG = "longer than max_tokens"


@dataclass(frozen=True)
class Example:
    """An encoded sample."""

    sample: str
    encoded: Encoded

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.encoded.input_ids)


@dataclass(frozen=True)
class Batch:
    """Right-padded tensors of shape [samples, tokens]; ``labels`` hold IGNORED where no loss is taken."""

    input_ids: Any
    attention_mask: Any
    labels: Any


def encode_samples(samples: Sequence[Sample], tokenizer: Any, max_tokens: int) -> tuple[list[Example], list[Rejection]]:
    """Tokenize samples; return those fit for training, and a rejection for each of the others.

    A sample over ``max_tokens`` is left out whole, never cut. One whose text holds a control token of the template
    is left out too: it could forge a turn.
    """
    examples, rejections = [], []
    control = special_ids(tokenizer)
    for sample in samples:
        said = tokenizer([message.content for message in sample.messages], add_special_tokens=False)["input_ids"]
        encoded = encode(tokenizer, sample.messages)
        if any(control.intersection(ids) for ids in said):
            rejections.append(Rejection(stage="train", id=sample.id, reason="holds a control token of the template"))
        elif len(encoded.input_ids) > max_tokens:
            detail = f"{len(encoded.input_ids)} tokens"
            rejections.append(Rejection(stage="train", id=sample.id, reason=TOO_LONG, detail=detail))
        else:
            examples.append(Example(sample.id, encoded))
    return examples, rejections


def num_steps(num_examples: int, batch_size: int, epochs: int) -> int:
    """Return the optimizer steps of a training; an epoch's last batch may be smaller."""
    return epochs * -(-num_examples // batch_size)


def epoch_order(num_examples: int, seed: int, epoch: int) -> list[int]:
    """Return the order of one epoch: every example once, shuffled by (seed, epoch) alone."""
    order = list(range(num_examples))
    number = hashlib.sha256(f"order {seed} {epoch}".encode()).digest()
    random.Random(number).shuffle(order)
    return order


def step_examples(num_examples: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the examples of an optimizer step (counted from 0): a pure function of its arguments."""
    per_epoch = -(-num_examples // batch_size)
    epoch, place = divmod(step, per_epoch)
    return epoch_order(num_examples, seed, epoch)[place * batch_size : (place + 1) * batch_size]


def micro_batches(examples: Sequence[Example], micro_batch_size: int) -> list[list[Example]]:
    """Cut a step's examples into micro-batches of similar length; which goes with which changes no result."""
    ordered = sorted(examples, key=lambda example: (-example.num_tokens, example.sample))
    return [ordered[start : start + micro_batch_size] for start in range(0, len(ordered), micro_batch_size)]


def collate(examples: Sequence[Example], pad_id: int, device: str) -> Batch:
    """Return right-padded tensors; padding is masked and carries no label, so ``pad_id`` may equal the end token."""
    import torch

    width = max(example.num_tokens for example in examples)

    def rows(values: Sequence[Sequence[int]], fill: int) -> Any:
        return torch.tensor([list(v) + [fill] * (width - len(v)) for v in values], device=device)

    encoded = [example.encoded for example in examples]
    return Batch(
        rows([e.input_ids for e in encoded], pad_id),
        rows([[1] * len(e.input_ids) for e in encoded], 0),
        rows([e.labels for e in encoded], IGNORED),
    )
