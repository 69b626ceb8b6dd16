"""The plan of a blind marking: order, sides and hidden repeats, and the key that maps each side to its arm."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.records import Answer, Question, Record, digest

_REPEAT_EVERY = 10
_MIN_GAP = 5  # questions between an original and its repeat, so that the first mark is forgotten


class KeyItem(Record):
    """One showing of a question; ``item``, ``left_name`` and ``right_name`` are the salted names in the page."""

    item: str
    question: str
    left: str
    right: str
    left_name: str
    right_name: str
    repeat: bool


class MarkingKey(Record):
    """The key that unseals the marks; ``answers`` is the digest of all questions and answers shown."""

    page: str
    salt: str
    seed: int
    arms: tuple[str, str]
    answers: str
    items: tuple[KeyItem, ...]
    same: tuple[str, ...]


@dataclass(frozen=True)
class MarkingPair:
    """A question with the two arms' answers to it."""

    question: Question
    texts: dict[str, str]

    def longer(self) -> str | None:
        """Return the arm with the longer answer; None for equal lengths."""
        (first, first_text), (second, second_text) = self.texts.items()
        if len(first_text) == len(second_text):
            return None
        return first if len(first_text) > len(second_text) else second


def tidy(text: str) -> str:
    """Return the answer without white space around it and at line ends, which could reveal its arm."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def pairs(questions: Sequence[Question], answers: Sequence[Answer], arms: tuple[str, str]) -> list[MarkingPair]:
    """Return the questions that both arms answered, with both answers."""
    texts = {(answer.question, answer.arm): tidy(answer.text) for answer in answers if answer.arm in arms}
    both = [q for q in questions if all((q.id, arm) in texts for arm in arms)]
    return [MarkingPair(q, {arm: texts[q.id, arm] for arm in arms}) for q in both]


def answer_pairs_digest(answer_pairs: Sequence[MarkingPair]) -> str:
    """Return the digest of all questions and answers that are shown; answers of other arms do not change it."""
    return digest([(pair.question.model_dump(), sorted(pair.texts.items())) for pair in answer_pairs])


def salted(salt: str, *parts: str) -> str:
    """Return a name that cannot be traced to its parts without the salt."""
    return hashlib.sha256("\0".join([salt, *parts]).encode("utf-8", "surrogatepass")).hexdigest()[:20]


def in_rounds(answer_pairs: Sequence[MarkingPair], draw: random.Random) -> list[MarkingPair]:
    """Return the pairs shuffled so that each document has a first pair before any document has a second.

    Marks on one document are not independent: a marker who stops early should have seen many documents.
    """
    by_document: dict[str, list[MarkingPair]] = defaultdict(list)
    for pair in draw.sample(answer_pairs, len(answer_pairs)):
        by_document[pair.question.document].append(pair)
    documents = draw.sample(sorted(by_document), len(by_document))
    rounds = max(map(len, by_document.values()), default=0)
    return [by_document[d][k] for k in range(rounds) for d in documents if k < len(by_document[d])]


def _sides(order: Sequence[MarkingPair], arms: tuple[str, str], draw: random.Random) -> list[tuple[str, str]]:
    """Return (left, right) per pair: of any two consecutive pairs of a kind, each arm is left in exactly one.

    The kinds are: first arm longer, second arm longer, equal length. So neither the side nor "the longer answer is on
    the left" reveals the arm, wherever the marker stops.
    """
    next_sides: dict[str | None, tuple[str, str]] = {}
    sides = []
    for pair in order:
        kind = pair.longer()
        chosen = next_sides.pop(kind, None)
        if chosen is None:
            first, second = draw.sample(arms, 2)
            chosen = (first, second)
            next_sides[kind] = (second, first)
        sides.append(chosen)
    return sides


def _repeats(num: int, draw: random.Random) -> dict[int, int]:
    """Return original position -> the position after which it is shown again, for one question in ten."""
    chosen: dict[int, int] = {}
    for start in range(0, num - num % _REPEAT_EVERY, _REPEAT_EVERY):
        original = draw.randrange(start, start + _REPEAT_EVERY - _MIN_GAP)
        chosen[original] = min(num - 1, original + draw.randint(_MIN_GAP, 2 * _REPEAT_EVERY - 1))
    return chosen


def make_key(
    answer_pairs: Sequence[MarkingPair], arms: tuple[str, str], answers: str, seed: int, salt: str
) -> MarkingKey:
    """Return the key: a pure function of its arguments.

    Questions to which both arms gave the same answer are ties that need no mark; ``same`` lists them.

    Args:
        answer_pairs: the questions with both answers.
        arms: the two arms.
        answers: digest of the shown questions and answers.
        seed: the recipe's.
        salt: secret; without it neither names nor sides can be computed from the seed.
    """
    draw = random.Random(f"{seed} {salt}")
    same = tuple(pair.question.id for pair in answer_pairs if len(set(pair.texts.values())) == 1)
    order = in_rounds([pair for pair in answer_pairs if pair.question.id not in same], draw)
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
