"""The part of the user's own chats that is held out as the exam: by groups, balanced by label."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.errors import DocumentError
from tunewright.records import Sample, digest
from tunewright.text.near_duplicates import near_duplicate_indexes
from tunewright.text.normalization import normalize

HELD_OUT_REASON = "held out for the exam"
_MOST_LABELS = 20
_ROWS_PER_LABEL = 4  # a value that fewer rows share on average is no label


@dataclass(frozen=True)
class HeldOut:
    """The chats held out; the ``document`` of each is its group.

    Attributes:
        num_groups: groups among all chats.
        note: how they were chosen, for the user.
    """

    samples: list[Sample]
    num_groups: int
    note: str


def is_question(sample: Sample) -> bool:
    """Return whether a chat can be an exam question: one user turn and one answer."""
    return [message.role for message in sample.messages if message.role != "system"] == ["user", "assistant"]


def held_out(
    samples: Sequence[Sample], named: Sequence[str], share: float, near_duplicate: float, seed: int
) -> HeldOut:
    """Return the chats to hold out: whole groups, in the share of each label, chosen by the seed.

    Args:
        samples: all chats.
        named: the group of each chat, as its row names it; empty where none does.
        share: the share of the chats to hold out, above 0 and below 1.
        near_duplicate: Jaccard similarity from which two prompts belong to one group.
        seed: of the choice.

    Raises:
        DocumentError: there is only one group, or no chat of a single exchange to make a question of.
    """
    groups = _groups(samples, named, near_duplicate)
    eligible = [group for group in groups if any(is_question(samples[index]) for index in group)]
    if not eligible:
        raise DocumentError(
            "no chat can be held out as an exam question",
            "an exam question needs a chat of one user turn and one answer; all chats have more turns",
            "bring an exam of your own: exam.file",
        )
    if len(samples) == 1:
        raise DocumentError(
            "one chat cannot be both training and exam", "there is no other", "bring more chats, sixty or so"
        )
    if len(groups) < 2:
        raise DocumentError(
            f"the {len(samples)} chats cannot be split into training and exam",
            "all rows name the same group" if any(named) else "they are one group: their prompts are near-duplicates",
            'name more groups in the column "group", or bring an exam of your own: exam.file'
            if any(named)
            else 'raise curation.near_duplicate, name groups in a column "group", or bring an exam: exam.file',
        )
    labels, label_name = _labels([sample.answer for sample in samples])

    def rank(group: Sequence[int]) -> tuple[str, str]:
        label = Counter(labels[index] for index in group).most_common(1)[0][0]
        return label, digest(seed, sorted(samples[index].id for index in group))

    taken = _systematic(sorted(eligible, key=rank), share, len(groups))
    ids = [_group_id(samples, named, group) for group in taken]
    chosen = {index: name for group, name in zip(taken, ids, strict=True) for index in group}
    held = [samples[index].model_copy(update={"document": chosen[index]}) for index in sorted(chosen)]
    by = "the column group" if any(named) else "near-duplicate prompts"
    balanced = f", balanced by {label_name}" if label_name else ""
    note = f"{len(held)} of {len(samples)} chats are held out for the exam: {len(taken)} groups (by {by}){balanced}"
    return HeldOut(held, len(groups), note)


def _systematic(ranked: Sequence[Sequence[int]], share: float, num_groups: int) -> list[Sequence[int]]:
    """Return groups of about the share, evenly over the ranking; at least one, and not all."""
    taken: list[Sequence[int]] = []
    num_taken = num_seen = 0
    for group in ranked:
        num_seen += len(group)
        if num_taken + len(group) / 2 <= share * num_seen:
            taken.append(group)
            num_taken += len(group)
    if not taken:
        return [min(ranked, key=len)]
    return taken[:-1] if len(taken) == num_groups else taken


def _groups(samples: Sequence[Sample], named: Sequence[str], threshold: float) -> list[list[int]]:
    """Return the indexes of the chats by group: as named, else by near-duplicate prompts."""
    by_name: dict[str, list[int]] = defaultdict(list)
    unnamed = []
    for index, name in enumerate(named):
        if name:
            by_name[name].append(index)
        else:
            unnamed.append(index)
    # Equal prompts first: a prompt of less than five words has no shingle to compare.
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for index, text in zip(unnamed, _distinct_parts([_prompt(samples[index]) for index in unnamed]), strict=True):
        by_prompt[text].append(index)
    texts = list(by_prompt)
    near = [
        [i for member in group for i in by_prompt[texts[member]]] for group in near_duplicate_indexes(texts, threshold)
    ]
    return [*by_name.values(), *near]


def _prompt(sample: Sample) -> str:
    return normalize("\n".join(message.content for message in sample.messages[:-1] if message.role != "system"))


def _distinct_parts(prompts: Sequence[str]) -> list[str]:
    """Return the prompts without the words that all of them start or end with: an instruction is no likeness."""
    distinct = dict.fromkeys(prompts)
    if len(distinct) < 2:
        return list(prompts)
    first = _num_common(prompt.split() for prompt in distinct)
    last = _num_common(prompt.split()[first:][::-1] for prompt in distinct)
    return [" ".join(words[first : len(words) - last]) for words in (prompt.split() for prompt in prompts)]


def _num_common(lists: Iterator[list[str]]) -> int:
    """Return the number of leading words that all lists share."""
    low = high = next(lists)
    for words in lists:  # one after another: all at once would take many times the memory of the texts
        low, high = min(low, words), max(high, words)
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


def _labels(answers: Sequence[str]) -> tuple[list[str], str]:
    """Return the label of each answer, and what it is: the answer itself, or few-valued fields of a JSON object."""
    most = min(_MOST_LABELS, len(answers) // _ROWS_PER_LABEL)
    plain = [normalize(answer) for answer in answers]
    if len(set(plain)) <= most:
        return plain, "answer"
    objects = [_json_object(answer) for answer in answers]
    labels = [""] * len(answers)
    names: list[str] = []
    if sum(map(bool, objects)) > len(answers) / 2:
        keys = dict.fromkeys(key for item in objects for key in item)
        columns = {key: [json.dumps(item.get(key), sort_keys=True) for item in objects] for key in keys}
        for key, column in sorted(columns.items(), key=lambda pair: len(set(pair[1]))):
            joined = [f"{label}\0{value}" for label, value in zip(labels, column, strict=True)]
            if len(set(column)) > 1 and len(set(joined)) <= most:
                labels, names = joined, [*names, key]
    return labels, " and ".join(names)


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _group_id(samples: Sequence[Sample], named: Sequence[str], group: Sequence[int]) -> str:
    """Return the name of a group, which is the cluster of its questions."""
    return named[group[0]] or digest(sorted(samples[index].id for index in group))
