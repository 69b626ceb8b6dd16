"""The placebo: a training set with the same prompts, whose answers are exchanged with each other.

What an adapter trained on it gains over the base is form: the tone, the length, the habit of answering or declining.
Only what the tuned model gains over the placebo is knowledge of which answer belongs to which question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunewright.errors import TrainingError
from tunewright.records import PreferencePair, Sample, digest
from tunewright.training.dataset import TrainingRecords

_SALT = "placebo"  # of the order in which answers are exchanged


def shuffled_records(records: TrainingRecords, seed: int) -> TrainingRecords:
    """Return the records with their answers exchanged.

    Raises:
        TrainingError: all answers are the same, so that exchanging them changes nothing.
    """
    samples, pairs = shuffled_answers(records.samples, seed), shuffled_pairs(records.pairs, seed)
    moved = any(before.messages != after.messages for before, after in zip(records.samples, samples, strict=True))
    moved |= any(before.chosen != after.chosen for before, after in zip(records.pairs, pairs, strict=True))
    if not moved:
        raise TrainingError(
            "a placebo of this training set would equal the adapter",
            "all of its answers are the same, and exchanging them changes nothing",
            'remove "placebo" from evaluation.arms',
        )
    return replace(records, samples=samples, pairs=pairs)


def donors(texts: Sequence[str], seed: int) -> list[int]:
    """Return for each text the index of the text to take instead: each index once, an equal text as seldom as possible.

    Equal texts are placed side by side, in an order drawn by the seed. All move on by the count of the most frequent
    text, so that no text is replaced by its equal unless more than half of all texts are equal.
    """
    indices: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        indices.setdefault(text, []).append(index)
    order = [index for text in sorted(indices, key=lambda text: digest(_SALT, seed, text)) for index in indices[text]]
    step = max((len(same) for same in indices.values()), default=0)
    taken = [0] * len(order)
    for number, index in enumerate(order):
        taken[index] = order[(number + step) % len(order)]
    return taken


def shuffled_answers(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Return the samples with their assistant turns exchanged within each task: refusals with refusals.

    Tasks with a single answer exchange it among each other, or with the largest task.
    """
    turns: dict[str, list[tuple[int, int]]] = {}
    for number, sample in enumerate(samples):
        own = [(number, index) for index, message in enumerate(sample.messages) if message.role == "assistant"]
        turns.setdefault(sample.task, []).extend(own)
    texts: dict[tuple[int, int], str] = {}
    for pool in _pools(list(turns.values())):
        before = [samples[number].messages[index].content for number, index in pool]
        texts |= {turn: before[donor] for turn, donor in zip(pool, donors(before, seed), strict=True)}
    return [
        sample.model_copy(
            update={
                "messages": tuple(
                    message.model_copy(update={"content": texts.get((number, index), message.content)})
                    for index, message in enumerate(sample.messages)
                ),
                "evidence": None,
                "further_evidence": (),
            }
        )
        for number, sample in enumerate(samples)
    ]


def _pools(tasks: Sequence[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """Return the groups of turns that exchange answers, each of more than one turn where possible."""
    large = [turns for turns in tasks if len(turns) > 1]
    single = [turn for turns in tasks if len(turns) == 1 for turn in turns]
    if len(single) == 1 and large:
        largest = max(large, key=len)
        return [[*turns, *single] if turns is largest else turns for turns in large]
    return [*large, single] if single else large


def shuffled_pairs(pairs: Sequence[PreferencePair], seed: int) -> list[PreferencePair]:
    """Return the pairs with the chosen and the rejected answer of another pair, both of the same pair."""
    taken = [pairs[donor] for donor in donors([pair.chosen for pair in pairs], seed)]
    return [
        pair.model_copy(update={"chosen": other.chosen, "rejected": other.rejected})
        for pair, other in zip(pairs, taken, strict=True)
    ]
