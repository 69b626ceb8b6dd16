"""A second look for leaks, by other means than those that removed them: what is left in the training set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rapidfuzz import fuzz, process

from tunewright.curation.decontaminate import instructions
from tunewright.records import Question, Sample
from tunewright.text import normalize, words

_ALIKE = 95.0  # of 100: evidence that stands in a sample up to a letter here and there
_BUDGET = 100_000_000  # characters of the exam's texts times samples


def _unseen(exam: Iterable[Question]) -> tuple[set[str], set[str]]:
    """Return the evidence and gold answers, and the passages, of the unseen ring."""
    told: set[str] = set()
    passages: set[str] = set()
    exam = list(exam)
    asked_often = instructions(exam)
    for question in exam:
        if question.ring == "unseen":
            told |= {question.gold} if question.answerable and question.question not in asked_often else set()
            told |= {question.evidence.quote} if question.evidence else set()
            passages |= {question.passage} if question.passage else set()
    return told, passages


class _SecondLook:
    """The texts of the unseen ring as plain strings, and a search in them that uses no index of word runs."""

    def __init__(self, exam: Iterable[Question], size: int) -> None:
        told, passages = _unseen(exam)
        self._size = size
        self._told = [normalize(text) for text in sorted(told) if len(words(text)) >= size]
        self.whole = " | ".join(f" {' '.join(words(text))} " for text in sorted(told | passages))
        self._vocabulary = set(self.whole.split())

    def finds(self, sample: Sample) -> bool:
        """Return whether a sample holds a run of words, or nearly a whole statement, of the unseen ring."""
        said = [message.content for message in sample.messages if message.role != "system"]
        return any(self._run(words(text)) or self._alike(text) for text in said)

    def _run(self, tokens: Sequence[str]) -> bool:
        known = 0
        for end, token in enumerate(tokens, 1):
            known = known + 1 if token in self._vocabulary else 0
            if known >= self._size and f" {' '.join(tokens[end - self._size : end])} " in self.whole:
                return True
        return False

    def _alike(self, text: str) -> bool:
        if len(words(text)) < self._size or not self._told:
            return False
        return (
            process.extractOne(normalize(text), self._told, scorer=fuzz.partial_ratio, score_cutoff=_ALIKE) is not None
        )


def look_again(kept: Sequence[Sample], exam: Iterable[Question], size: int) -> tuple[list[str], int]:
    """Return the identifiers of samples that leak the unseen ring, and how many samples were looked at.

    Every run of ``size`` words of a sample is searched in the plain text of the exam's evidence, gold answers and
    passages; and evidence and gold answers are aligned with the sample (rapidfuzz partial_ratio of 95). The cost is
    bounded: of a large training set, evenly spaced samples are looked at.

    Args:
        kept: what stays in the training set.
        exam: both rings; of the learned one the facts are taught on purpose.
        size: words in a row that are a leak.
    """
    look = _SecondLook(exam, size)
    step = max(1, -(-len(kept) * len(look.whole) // _BUDGET))
    chosen = kept[::step]
    return [sample.id for sample in chosen if look.finds(sample)], len(chosen)
