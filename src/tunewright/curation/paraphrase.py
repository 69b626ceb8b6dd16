"""Exam questions asked in other words: near by vectors, and where those do not tell, by the teacher's word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tunewright.curation.decontaminate import asked
from tunewright.curation.embedding import sif_vectors
from tunewright.models.token_vectors import TokenVectors
from tunewright.records import Message, Question, Sample
from tunewright.teacher.protocol import Asks, Request

# Of the example documents' 194 training questions, all 4 at 0.94 and above asked what the exam asked, and 1 of the 2
# between 0.84 and 0.86; the teacher decides below.
SAME = 0.94
_NEAREST = 3  # training questions per exam question that the teacher is asked about
_PIECE = 20_000
_ANSWER_TOKENS = 4
_PROMPT = """Do these two questions ask for the same fact, so that whoever knows the answer to one knows the other's?

Question 1: {exam}
Question 2: {training}

Answer with one word, yes or no."""


class Near(NamedTuple):
    """A training question near an exam question: their places, their cosine, and what the sample's turn asks."""

    sample: int
    question: int
    cosine: float
    asked: str


class Nearness:
    """The cosines of training questions to exam questions, from one set of vectors."""

    def __init__(self, samples: Sequence[Sample], exam: Sequence[Question], vectors: TokenVectors) -> None:
        turns = [(place, text) for place, sample in enumerate(samples) for text in dict.fromkeys(asked(sample))]
        self._owners = np.array([place for place, _ in turns], dtype=np.int64)
        texts = self._asked = [text for _, text in turns]
        rows = sif_vectors([*texts, *(question.question for question in exam)], vectors)
        self._training, self._exam = rows[: len(texts)], rows[len(texts) :]

    def _pieces(self) -> Any:
        for start in range(0, len(self._training), _PIECE):
            yield start, self._training[start : start + _PIECE] @ self._exam.T

    def same(self) -> dict[int, Near]:
        """Return the samples whose nearest exam question is at 0.94 or above, by place."""
        found: dict[int, Near] = {}
        for start, cosines in self._pieces():
            best = cosines.argmax(axis=1)
            top = cosines[np.arange(len(best)), best]
            for at in np.flatnonzero(top >= SAME):
                owner = int(self._owners[start + at])
                found.setdefault(owner, Near(owner, int(best[at]), float(top[at]), self._asked[start + at]))
        return found

    def doubtful(self) -> list[Near]:
        """Return, for each exam question, the three nearest training questions below 0.94, each pair once."""
        near: list[list[Near]] = [[] for _ in self._exam]
        for start, cosines in self._pieces():
            cosines = np.where(cosines < SAME, cosines, -2)
            for number, column in enumerate(cosines.T):
                for at in np.argsort(-column, kind="stable")[:_NEAREST]:
                    if column[at] > -2:
                        place = start + int(at)
                        owner = int(self._owners[place])
                        near[number].append(Near(owner, number, float(column[at]), self._asked[place]))
        chosen = [pair for pairs in near for pair in sorted(pairs, key=lambda pair: -pair.cosine)[:_NEAREST]]
        return list({(pair.asked, pair.question): pair for pair in chosen}.values())


def said_same(pairs: Sequence[Near], exam: Sequence[Question], teacher: Asks, seed: int) -> tuple[dict[int, Near], int]:
    """Ask the teacher of each pair whether both ask the same; return the samples of which it says so, by place.

    Yang et al. 2023, "Rethinking benchmark and contamination for language models with rephrased samples" (arXiv
    2311.04850): near by embedding, then judged by a model.

    Returns:
        the samples, and the number of pairs whose reply was neither yes nor no.
    """
    requests = []
    for pair in pairs:
        content = _PROMPT.format(exam=exam[pair.question].question, training=pair.asked)
        requests.append(Request((Message(role="user", content=content),), _ANSWER_TOKENS, 0.0, seed))
    replies = teacher.ask_all(requests, "comparing with the exam")
    found: dict[int, Near] = {}
    unclear = 0
    for pair, reply in zip(pairs, replies, strict=True):
        word = (reply.text if reply else "").strip().strip("*\"'.").casefold()
        if word.startswith("yes"):
            found.setdefault(pair.sample, pair)
        unclear += not word.startswith(("yes", "no"))
    return found, unclear
