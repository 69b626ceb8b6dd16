"""The order of training as a pure function of (seed, step), best-fit packing, and a packed row's tensors."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from tunewright.models.chat_template import IGNORED, Encoded

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor


@dataclass(frozen=True)
class Example:
    """The unit of training: one token sequence (a chat, a piece of text), or two (a preference pair).

    ``teacher``, for distillation alone, is the chat as the teacher reads it: with passages in its prompt, and the same
    supervised tokens.
    """

    sample: str
    sequences: tuple[Encoded, ...]
    teacher: Encoded | None = None

    @property
    def num_tokens(self) -> int:
        """Number of tokens of all its sequences."""
        return sum(len(sequence.input_ids) for sequence in self.sequences)

    @property
    def num_teacher_tokens(self) -> int:
        """Number of tokens that the teacher reads; 0 without a teacher."""
        return len(self.teacher.input_ids) if self.teacher else 0

    @property
    def num_supervised(self) -> int:
        """Number of tokens that the loss is taken on. A sequence's first token never counts: nothing predicts it."""
        return sum(label != IGNORED for sequence in self.sequences for label in sequence.labels[1:])


@dataclass(frozen=True)
class PackedRow:
    """Sequences one behind the other in a single row; n counts their supervised tokens. All tensors are int64.

    Attributes:
        input_ids: [1, tokens].
        position_ids: [1, tokens]; start at 0 in each sequence, by which the models' own masks see its borders.
        lengths: tokens of each sequence.
        logit_positions: [n], the columns that predict a supervised token; never across a border.
        targets: [n], the supervised tokens.
        owner: [n], the index of the sequence that each belongs to.
        taught: [n], bool: whether a teacher reads the token too. The rows of ``teacher`` hold these tokens in the same
            order. Both are empty without a teacher.
    """

    input_ids: Tensor
    position_ids: Tensor
    lengths: tuple[int, ...]
    logit_positions: Tensor
    targets: Tensor
    owner: Tensor
    teacher: tuple[PackedRow, ...] = ()
    taught: Tensor | None = None

    def padded_to(self, multiple: int) -> PackedRow:
        """Return the row with a sequence of zeros behind it, unsupervised, up to a multiple of ``multiple`` tokens."""
        import torch

        missing = -self.input_ids.shape[1] % multiple
        if not missing:
            return self
        positions = torch.arange(missing, device=self.position_ids.device)[None]
        return replace(
            self,
            input_ids=torch.nn.functional.pad(self.input_ids, (0, missing)),
            position_ids=torch.cat([self.position_ids, positions], 1),
            lengths=(*self.lengths, missing),
        )

    def sequences(self) -> Iterator[PackedRow]:
        """Yield each sequence as a row of its own."""
        start = 0
        for number, length in enumerate(self.lengths):
            mine = self.owner == number
            yield PackedRow(
                self.input_ids[:, start : start + length],
                self.position_ids[:, start : start + length],
                (length,),
                self.logit_positions[mine] - start,
                self.targets[mine],
                self.owner[mine] - number,
            )
            start += length


def num_steps(num_examples: int, batch_size: int, epochs: int) -> int:
    """Return the number of optimizer steps; an epoch's last batch may be smaller."""
    return epochs * -(-num_examples // batch_size)


@lru_cache(maxsize=4)
def epoch_order(num_examples: int, seed: int, epoch: int) -> tuple[int, ...]:
    """Return the order of an epoch: every example once, shuffled by (seed, epoch) alone."""
    order = list(range(num_examples))
    number = hashlib.sha256(f"order {seed} {epoch}".encode()).digest()
    random.Random(number).shuffle(order)
    return tuple(order)


def step_examples(num_examples: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the indices of an optimizer step's examples; steps count from 0. A pure function of its arguments."""
    per_epoch = -(-num_examples // batch_size)
    epoch, batch = divmod(step, per_epoch)
    return list(epoch_order(num_examples, seed, epoch)[batch * batch_size : (batch + 1) * batch_size])


def pack(examples: Sequence[Example], budget: int) -> list[list[Example]]:
    """Pack examples into rows of at most ``budget`` tokens by best fit, the longest first.

    Best-fit decreasing needs at most 11/9 of the fewest possible rows (Johnson 1974). An example over the budget gets
    a row of its own. Which examples share a row changes no result.
    """
    rows: list[list[Example]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted: the best fit is the first that is large enough
    for example in sorted(examples, key=lambda example: (-example.num_tokens, example.sample)):
        fit = bisect_left(room, (example.num_tokens, -1))
        if fit < len(room):
            left, row = room.pop(fit)
            rows[row].append(example)
        else:
            left, row = max(budget, example.num_tokens), len(rows)
            rows.append([example])
        insort(room, (left - example.num_tokens, row))
    return rows


def collate(examples: Sequence[Example], device: str, budget: int = 0) -> PackedRow:
    """Return a row of examples as tensors; their teacher's sequences in rows of at most ``budget`` tokens.

    A budget of 0 takes all of the teacher's sequences into a single row.
    """
    import torch

    row = _row([sequence for example in examples for sequence in example.sequences], device)
    if all(example.teacher is None for example in examples):
        return row
    taught = [example.teacher is not None for example in examples for _ in example.sequences]
    sequences = [example.teacher for example in examples if example.teacher is not None]
    teacher = tuple(_row(group, device) for group in _in_order(sequences, budget))
    return replace(row, teacher=teacher, taught=torch.tensor(taught, device=row.owner.device)[row.owner])


def _in_order(sequences: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
    """Return the sequences in groups of at most ``budget`` tokens, or of a single longer sequence, in their order."""
    groups: list[list[Encoded]] = []
    room = -1
    for sequence in sequences:
        size = len(sequence.input_ids)
        if not groups or (budget and size > room):
            groups.append([])
            room = budget
        groups[-1].append(sequence)
        room -= size
    return groups


def _row(sequences: Sequence[Encoded], device: str) -> PackedRow:
    import numpy as np
    import torch

    lengths = [len(sequence.input_ids) for sequence in sequences]
    labels = np.concatenate([np.asarray(sequence.labels) for sequence in sequences])
    labels[np.cumsum([0, *lengths[:-1]])] = IGNORED
    supervised = np.flatnonzero(labels != IGNORED)

    def tensor(values: ndarray) -> Tensor:
        on_cpu = torch.from_numpy(values)
        # From pinned memory, the copy runs while the GPU still computes the row before.
        return on_cpu.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else on_cpu

    return PackedRow(
        input_ids=tensor(np.concatenate([np.asarray(sequence.input_ids) for sequence in sequences]))[None],
        position_ids=tensor(np.concatenate([np.arange(length) for length in lengths]))[None],
        lengths=tuple(lengths),
        logit_positions=tensor(supervised - 1),
        targets=tensor(labels[supervised]),
        owner=tensor(np.repeat(np.arange(len(lengths)), lengths)[supervised]),
    )
