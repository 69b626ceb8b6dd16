"""What a marker sees, in which order and on which side; and the key that says which side was which arm."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.records import Answer, Question, Record, digest

_REPEAT_EVERY = 10
_NEAREST = 5  # a repeat comes at least this many questions after its original, when the first is forgotten


class KeyItem(Record):
    """One showing of one question; ``item`` and the sides are the names that stand in the page."""

    item: str
    question: str
    left: str
    right: str
    left_name: str
    right_name: str
    repeat: bool


class MarkingKey(Record):
    """What unseals the marks; ``answers`` is the digest of all that was shown."""

    page: str
    salt: str
    seed: int
    arms: tuple[str, str]
    answers: str
    items: tuple[KeyItem, ...]
    same: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A question with the two arms' answers to it."""

    question: Question
    texts: dict[str, str]

    def longer(self) -> str | None:
        """The arm with the longer answer; None when both are as long."""
        (first, one), (second, other) = self.texts.items()
        return None if len(one) == len(other) else first if len(one) > len(other) else second


def tidy(text: str) -> str:
    """Return the answer without the blank space around it and at its line ends, which could tell who wrote it."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def pairs(questions: Sequence[Question], answers: Sequence[Answer], arms: tuple[str, str]) -> list[Pair]:
    """Return the questions that both arms answered."""
    told = {(answer.question, answer.arm): tidy(answer.text) for answer in answers if answer.arm in arms}
    both = [q for q in questions if all((q.id, arm) in told for arm in arms)]
    return [Pair(q, {arm: told[q.id, arm] for arm in arms}) for q in both]


def shown_digest(found: Sequence[Pair]) -> str:
    """Return what names all that is shown of these pairs: other arms' answers are no part of it."""
    return digest([(pair.question.model_dump(), sorted(pair.texts.items())) for pair in found])


def salted(salt: str, *parts: str) -> str:
    """Return a name that nobody without the salt can trace to its parts."""
    return hashlib.sha256("\0".join([salt, *parts]).encode("utf-8", "surrogatepass")).hexdigest()[:20]


def in_rounds(found: Sequence[Pair], draw: random.Random) -> list[Pair]:
    """Return the pairs shuffled so that every document has had one before any has a second.

    Marks of one document are not independent of each other: whoever stops early should have seen many documents.
    """
    by_document: dict[str, list[Pair]] = defaultdict(list)
    for pair in draw.sample(found, len(found)):
        by_document[pair.question.document].append(pair)
    documents = draw.sample(sorted(by_document), len(by_document))
    rounds = max(map(len, by_document.values()), default=0)
    return [by_document[d][k] for k in range(rounds) for d in documents if k < len(by_document[d])]


def _sides(order: Sequence[Pair], arms: tuple[str, str], draw: random.Random) -> list[tuple[str, str]]:
    """Return (left, right) per pair: each arm is left in one of any two that follow each other within its kind.

    The kinds are: first arm longer, second arm longer, both as long. So neither the side nor "the longer one on the
    left" says anything about the arm, wherever the marker stops.
    """
    owed: dict[str | None, tuple[str, str]] = {}
    sides = []
    for pair in order:
        kind = pair.longer()
        chosen = owed.pop(kind, None)
        if chosen is None:
            first, second = draw.sample(arms, 2)
            chosen = (first, second)
            owed[kind] = (second, first)
        sides.append(chosen)
    return sides


def _repeats(num: int, draw: random.Random) -> dict[int, int]:
    """Return original position -> the position after which it is shown again, for one in ten."""
    chosen: dict[int, int] = {}
    for start in range(0, num - num % _REPEAT_EVERY, _REPEAT_EVERY):
        original = draw.randrange(start, start + _REPEAT_EVERY - _NEAREST)
        chosen[original] = min(num - 1, original + draw.randint(_NEAREST, 2 * _REPEAT_EVERY - 1))
    return chosen


def make_key(found: Sequence[Pair], arms: tuple[str, str], answers: str, seed: int, salt: str) -> MarkingKey:
    """Return the key: a pure function of its arguments.

    Questions to which both arms gave the same answer are ties without anybody's mark; ``same`` names them.

    Args:
        found: the questions with both answers.
        arms: the two arms.
        answers: digest of the shown questions and answers.
        seed: the recipe's.
        salt: secret; without it neither names nor sides can be reckoned from the seed.
    """
    draw = random.Random(f"{seed} {salt}")
    same = tuple(pair.question.id for pair in found if len(set(pair.texts.values())) == 1)
    order = in_rounds([pair for pair in found if pair.question.id not in same], draw)
    sides = _sides(order, arms, draw)
    shown = [(float(at), at, False) for at in range(len(order))]
    shown += [(after + 0.5, at, True) for at, after in _repeats(len(order), draw).items()]
    items = []
    for _, at, repeat in sorted(shown):
        question = order[at].question.id
        left, right = reversed(sides[at]) if repeat else sides[at]
        item = salted(salt, "item", question, str(repeat))
        names = [salted(salt, "side", item, arm) for arm in (left, right)]
        items.append(
            KeyItem(
                item=item,
                question=question,
                left=left,
                right=right,
                left_name=names[0],
                right_name=names[1],
                repeat=repeat,
            )
        )
    page = salted(salt, "page", answers)
    return MarkingKey(page=page, salt=salt, seed=seed, arms=arms, answers=answers, items=tuple(items), same=same)
