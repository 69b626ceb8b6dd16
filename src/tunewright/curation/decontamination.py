"""Leaks of the exam into training samples: the detector that removes them, and a second one that checks the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from rapidfuzz import fuzz, process

from tunewright.curation.boilerplate import NO_BOILERPLATE, Boilerplate
from tunewright.records import OWN, Question, Sample
from tunewright.text.normalization import ngrams, normalize, runs, words
from tunewright.text.prompts import split_prompt

_COVERED_SHARE = 0.5  # of the exam question's words that are in shared n-grams
_SEVERAL = 3  # passages: a question asked of so many is an instruction
_LONG_RUN = 13  # words that no sample may share with any exam question: what lm-evaluation-harness looks for
_SAME_QUESTION = 92.0  # similarity of the sorted words, of 100


@lru_cache(maxsize=16)  # a sample's texts are looked at several times, one after the other
def _words(text: str) -> tuple[str, ...]:
    return tuple(words(text))


class Leak(NamedTuple):
    """Which exam question a sample gives away, and how."""

    reason: str
    question: str


def questions_of(sample: Sample) -> list[str]:
    """Return the question of each user turn, each once; of the user's own data, the whole turns too."""
    turns = [message.content for message in sample.messages if message.role == "user"]
    questions = [split_prompt(turn)[1] for turn in turns]
    return list(dict.fromkeys([*questions, *turns] if sample.task == OWN else questions))


def covered_share(question: Sequence[str], shared: set[tuple[str, ...]], size: int) -> float:
    """Return the share of a question's words that are in one of the shared n-grams."""
    covered = [False] * len(question)
    for start in range(len(question) - size + 1):
        if tuple(question[start : start + size]) in shared:
            covered[start : start + size] = [True] * size
    return sum(covered) / len(question) if question else 0.0


def _first_shared(tokens: Sequence[str], grams: Mapping[tuple[str, ...], str], size: int) -> str | None:
    """Return the exam question of the first n-gram that is shared, or None."""
    if not grams:
        return None
    if grams.keys().isdisjoint(runs(tokens, size)):
        return None
    return next(grams[run] for run in runs(tokens, size) if run in grams)


def instructions(questions: Iterable[Question]) -> set[str]:
    """Return the texts of questions about three or more passages, such as "Extract these fields".

    Such a text is an instruction: training samples must have it too, and its answer depends on the passage.
    """
    passages: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        if question.passage:
            passages[question.question].add(question.passage)
    return {text for text, shown in passages.items() if len(shown) >= _SEVERAL}


class Leaks:
    """The exam, indexed to find samples that leak one of its questions.

    Both rings: a training question leaks an exam question when both are equal after normalization, when shared runs of
    ``size`` words cover half of the exam question, or when their sorted words are 92 % similar. No turn or evidence of
    a sample may share 13 words in a row with an exam question.

    The unseen ring only: no turn (but the system turn) or evidence may share ``size`` words in a row with the gold
    answer, the evidence or the passage, nor come from the same document. For the learned ring that overlap is the
    purpose: the fact is taught, and the exam asks for it in other words.

    Of an instruction that the exam gives for several passages, only passages and documents count. Of prompts, exam
    questions and gold answers, what is boilerplate does not count.
    """

    def __init__(self, questions: Iterable[Question], size: int, boilerplate: Boilerplate = NO_BOILERPLATE) -> None:
        self._size = size
        self._boilerplate = boilerplate
        self._questions = list(questions)
        self._instructions = instructions(self._questions)
        texts = ["" if item.question in self._instructions else item.question for item in self._questions]
        self._words = [words(self._boilerplate.distinctive(text)) for text in texts]
        self._sorted = [" ".join(sorted(tokens)) for tokens in self._words]
        # A question of boilerplate alone has no runs of its own: it leaks as a whole.
        self._words = [
            [] if self._boilerplate.is_whole(text) else tokens for text, tokens in zip(texts, self._words, strict=True)
        ]
        self._equal = {
            normalize(question.question): question.id
            for question in reversed(self._questions)
            if question.question not in self._instructions
        }
        self._near = lru_cache(maxsize=1000)(self._similar_in_length)
        self._question_grams: dict[tuple[str, ...], set[int]] = defaultdict(set)
        self._unseen_grams: dict[tuple[str, ...], str] = {}
        self._long_grams: dict[tuple[str, ...], str] = {}
        self._unseen_documents: dict[str, str] = {}
        for number, question in enumerate(self._questions):
            for gram in ngrams(self._words[number], size):
                self._question_grams[gram].add(number)
            for gram in ngrams(self._words[number], _LONG_RUN):
                self._long_grams.setdefault(gram, question.id)
            if question.ring == "unseen":
                self._index_unseen(question)

    def _index_unseen(self, question: Question) -> None:
        self._unseen_documents.setdefault(question.document, question.id)
        texts = [question.passage, question.evidence.quote if question.evidence else None]
        if question.answerable and question.question not in self._instructions:
            for gold in question.golds:
                grams = ngrams(words(self._boilerplate.distinctive_answer(gold)), self._size)
                for gram in filter(self._boilerplate.is_distinctive, grams):
                    self._unseen_grams.setdefault(gram, question.id)
        for text in texts:
            for gram in ngrams(words(text or ""), self._size):
                self._unseen_grams.setdefault(gram, question.id)

    def find(self, sample: Sample) -> Leak | None:
        """Return the first leak in a sample, or None."""
        for text in questions_of(sample):
            leaked = self._question(text)
            if leaked:
                return Leak("leaks an exam question", leaked)
        documents = {sample.document, sample.evidence.document if sample.evidence else None}
        for document in sorted(filter(None, documents)):
            if document in self._unseen_documents:
                return Leak("comes from an exam document", self._unseen_documents[document])
        turns = [message.content for message in sample.messages if message.role != "system"]
        for text in [*turns, sample.evidence.quote if sample.evidence else ""]:
            question = _first_shared(_words(text), self._unseen_grams, self._size)
            if question:
                return Leak("leaks exam evidence", question)
            question = _first_shared(_words(self._boilerplate.distinctive(text)), self._long_grams, _LONG_RUN)
            if question:
                return Leak("shares 13 words in a row with an exam question", question)
        return None

    def _question(self, text: str) -> str | None:
        """Return the exam question that a training question leaks, or None."""
        equal = self._equal.get(normalize(text))
        if equal:
            return equal
        tokens = _words(self._boilerplate.distinctive(text))
        grams = ngrams(tokens, self._size)
        near = {number for gram in grams & self._question_grams.keys() for number in self._question_grams[gram]}
        for number in sorted(near):
            if covered_share(self._words[number], grams, self._size) >= _COVERED_SHARE:
                return self._questions[number].id
        # token_sort_ratio, with the sorting done once
        ordered = " ".join(sorted(tokens))
        match = process.extractOne(ordered, self._near(len(ordered)), scorer=fuzz.ratio, score_cutoff=_SAME_QUESTION)
        return self._questions[match[2]].id if match else None

    def _similar_in_length(self, length: int) -> dict[int, str]:
        """Return the exam questions that a text of this length can be as similar to: the others differ by too much."""
        least = _SAME_QUESTION / (200 - _SAME_QUESTION)  # of the longer text; the ratio is 200 * common / both lengths
        return {
            number: text
            for number, text in enumerate(self._sorted)
            if min(length, len(text)) >= (least - 1e-9) * max(length, len(text))
        }


_ALIKE = 95.0  # of 100: evidence that a sample repeats up to a few letters
_BUDGET = 100_000_000  # characters of the exam's texts times samples


def _unseen(exam: Iterable[Question], boilerplate: Boilerplate) -> tuple[set[str], set[str]]:
    """Return the evidence and gold answers, and the passages, of the unseen ring."""
    statements: set[str] = set()
    passages: set[str] = set()
    exam = list(exam)
    repeated = instructions(exam)
    for question in exam:
        if question.ring == "unseen":
            if question.answerable and question.question not in repeated:
                statements |= set(map(boilerplate.distinctive_answer, question.golds))
            statements |= {question.evidence.quote} if question.evidence else set()
            passages |= {question.passage} if question.passage else set()
    return statements, passages


class _SecondDetector:
    """The texts of the unseen ring as plain strings, searched without an index of word runs."""

    def __init__(self, exam: Iterable[Question], size: int, boilerplate: Boilerplate) -> None:
        statements, passages = _unseen(exam, boilerplate)
        self._size = size
        self._is_distinctive = boilerplate.is_distinctive
        self._statements = [
            normalize(text) for text in sorted(statements) if any(map(self._is_distinctive, ngrams(words(text), size)))
        ]
        self.text = " | ".join(f" {' '.join(words(text))} " for text in sorted(statements | passages))
        self._vocabulary = set(self.text.split())

    def finds(self, sample: Sample) -> bool:
        """Return whether a sample holds a run of words, or nearly a full statement, of the unseen ring."""
        turns = [message.content for message in sample.messages if message.role != "system"]
        return any(self._run(words(text)) or self._alike(text) for text in turns)

    def _run(self, tokens: Sequence[str]) -> bool:
        known = 0
        for end, token in enumerate(tokens, 1):
            known = known + 1 if token in self._vocabulary else 0
            run = tokens[end - self._size : end] if known >= self._size else []
            if run and f" {' '.join(run)} " in self.text and self._is_distinctive(run):
                return True
        return False

    def _alike(self, text: str) -> bool:
        if len(words(text)) < self._size or not self._statements:
            return False
        return (
            process.extractOne(normalize(text), self._statements, scorer=fuzz.partial_ratio, score_cutoff=_ALIKE)
            is not None
        )


def remaining_leaks(
    kept: Sequence[Sample], exam: Iterable[Question], size: int, boilerplate: Boilerplate = NO_BOILERPLATE
) -> tuple[list[str], int]:
    """Return the identifiers of samples that leak the unseen ring, and how many samples were checked.

    Every run of ``size`` words of a sample is searched in the plain text of the exam's evidence, gold answers and
    passages; evidence and gold answers are also aligned with the sample (rapidfuzz partial_ratio of 95). The cost is
    bounded: of a large training set, evenly spaced samples are checked.

    Args:
        kept: the samples of the training set.
        exam: both rings; only the unseen one is searched for.
        size: words in a row that are a leak.
        boilerplate: of the samples and the exam; gold answers count without it.
    """
    detector = _SecondDetector(exam, size, boilerplate)
    step = max(1, -(-len(kept) * len(detector.text) // _BUDGET))
    chosen = kept[::step]
    return [sample.id for sample in chosen if detector.finds(sample)], len(chosen)
