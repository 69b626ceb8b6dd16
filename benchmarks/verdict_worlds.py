"""The simulated worlds of ``verdict_simulation.py``: what is so in each, and how its exam's scores are drawn.

A score is its arm's mean + an effect of the document + an effect of the question, the last two drawn for each arm from
normal distributions, so that differences of two arms have an intraclass correlation of ICC. The powers to reproduce came
without the standard deviation behind them: SD, of a difference, is the one number that was fitted to those four powers.
False positives do not depend on it.

Where an exam has kinds of question, each kind has its own difficulty and its own gain, and its scores are those that
the exam gives: 0 or 1, or a share of points (key points, items, fields). A point is right where the same sum of effects
lies below the quantile of its arm's mean, so that every mean is exact. Kinds take turns over the questions of a document,
as in a written exam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from tunewright.evaluation.measurement import PAIRS
from tunewright.evaluation.rule import rule

ARMS = ("base", "few-shot", "similar-shot", "rag", "tuned", "tuned+rag", "majority")
BASE, TUNED = ARMS.index("base"), ARMS.index("tuned")
WITH_DOCUMENTS = frozenset({"rag", "tuned+rag"})
SD, ICC = 0.383, 0.3

Means = tuple[float, ...]  # of ARMS; without the last, no majority


@dataclass(frozen=True)
class Kind:
    """A kind of question: the arms' true means on it, and how its answers are scored.

    Attributes:
        means: of ARMS.
        points: that an answer can get right: 1 for a value, an option or declining, more for key points or fields.
        answerable: whether declining is wrong.
        agreement: the share of questions on which a judge agrees with people.
    """

    means: Means
    points: int = 1
    answerable: bool = True
    agreement: float = 0.85


@dataclass(frozen=True)
class Truth:
    """What is so in a simulated world: the arms' true means, and the size of its exam; without documents, no RAG."""

    means: Means = ()  # of ARMS; of an exam with kinds, they follow from these
    num_questions: int = 30
    num_documents: int = 10
    binary: bool = False  # right or wrong, above or below one half, in place of a score
    documents: bool = True
    marks: bool = False  # they decide in place of the score
    kinds: tuple[Kind, ...] = ()  # take turns; one that occurs twice has twice the questions
    judge_favors_tuned: bool = False  # where it does not agree with people; else it guesses

    @property
    def arms(self) -> tuple[str, ...]:
        known = ARMS[: len(self.kinds[0].means if self.kinds else self.means)]
        return tuple(arm for arm in known if self.documents or arm not in WITH_DOCUMENTS)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs that are compared; no placebo is simulated."""
        return tuple((str(first), str(second)) for first, second in PAIRS if {first, second} <= {*self.arms})

    @property
    def rule(self) -> dict[str, Any]:
        impossible = {} if self.documents else {"rag": "there are no documents to search"}
        return rule(0.10, self.arms, impossible=impossible, primary="marks" if self.marks else "score")

    @property
    def clusters(self) -> np.ndarray:
        """The document of each question."""
        return clusters_of(self.num_questions, self.num_documents)

    @property
    def kind_of(self) -> np.ndarray:
        """The position in ``kinds`` of each question: the first question of the next document has the next kind."""
        questions = np.arange(self.num_questions)
        return (questions % self.num_documents + questions // self.num_documents) % len(self.kinds)

    @property
    def answerable(self) -> np.ndarray:
        """Whether each question can be answered."""
        can = np.array([kind.answerable for kind in self.kinds] or [True])
        return can[self.kind_of] if self.kinds else np.repeat(can, self.num_questions)

    @property
    def true_means(self) -> dict[str, float]:
        """The mean over this exam's questions of each arm."""
        if not self.kinds:
            return {arm: self.means[ARMS.index(arm)] for arm in self.arms}
        means = np.array([kind.means for kind in self.kinds])[self.kind_of].mean(axis=0)
        return {arm: round(float(means[ARMS.index(arm)]), 6) for arm in self.arms}


def clusters_of(num_questions: int, num_documents: int) -> np.ndarray:
    """Return the document of each question, as even as they go."""
    return np.arange(num_questions) % num_documents


def draw_scores(truth: Truth, runs: int, draw: np.random.Generator) -> np.ndarray:
    """Return scores by run, arm and question."""
    if truth.kinds:
        return _of_kinds(truth, runs, draw)
    scores = np.asarray(truth.means)[None, :, None] + SD / math.sqrt(2) * _noise(truth, len(truth.means), runs, draw)
    return (scores > 0.5).astype(float) if truth.binary else scores


def _noise(truth: Truth, num_arms: int, runs: int, draw: np.random.Generator) -> np.ndarray:
    """Return standard normal numbers by run, arm and question, correlated by ICC within a document."""
    of_document = draw.normal(size=(runs, num_arms, truth.num_documents))[:, :, truth.clusters]
    of_question = draw.normal(size=(runs, num_arms, truth.num_questions))
    return math.sqrt(ICC) * of_document + math.sqrt(1 - ICC) * of_question


def _of_kinds(truth: Truth, runs: int, draw: np.random.Generator) -> np.ndarray:
    kind_of = truth.kind_of
    limits = ndtri(np.array([kind.means for kind in truth.kinds]))[kind_of].T  # by arm and question
    num_points = np.array([kind.points for kind in truth.kinds])[kind_of]
    right = np.zeros((runs, *limits.shape))
    for point in range(num_points.max()):
        right += (_noise(truth, len(limits), runs, draw) < limits) * (point < num_points)
    return right / num_points


WORLDS = {
    "no effect": Truth((0.5, 0.5, 0.5, 0.5, 0.5, 0.5)),
    "no effect, without documents": Truth((0.5, 0.5, 0.5, 0.5, 0.5, 0.5), documents=False),
    "RAG equals tuned, both +0.3": Truth((0.3, 0.3, 0.3, 0.6, 0.6, 0.6)),
    "RAG equals tuned, far above the others": Truth((0.0, 0.0, 0.0, 0.9, 0.9, 0.9)),
    "similar-shot equals tuned, both +0.3, without documents": Truth((0.3, 0.3, 0.6, 0.3, 0.6, 0.6), documents=False),
    "similar-shot equals tuned, far above, without documents": Truth((0.0, 0.0, 0.9, 0.0, 0.9, 0.9), documents=False),
    "no effect, right or wrong": Truth((0.5, 0.5, 0.5, 0.5, 0.5, 0.5), binary=True),
    "RAG equals tuned, both +0.3, right or wrong": Truth((0.3, 0.3, 0.3, 0.6, 0.6, 0.6), binary=True),
    "+0.3 over all rivals": Truth((0.3, 0.3, 0.3, 0.3, 0.6, 0.6)),
    "+0.3 over all rivals, 100/20": Truth((0.3, 0.3, 0.3, 0.3, 0.6, 0.6), 100, 20),
    "+0.3 over all rivals, without documents": Truth((0.3, 0.3, 0.3, 0.3, 0.6, 0.6), documents=False),
    "+0.2 over base, RAG +0.3 over tuned": Truth((0.2, 0.2, 0.2, 0.7, 0.4, 0.7)),
    "+0.2 over base, RAG +0.3 over tuned, 100/20": Truth((0.2, 0.2, 0.2, 0.7, 0.4, 0.7), 100, 20),
}


MARKED_WORLDS = {
    "no effect, by marks": Truth((0.5, 0.5, 0.5, 0.5, 0.5, 0.5), 100, 20, marks=True),
    "RAG equals tuned, both +0.3, by marks": Truth((0.3, 0.3, 0.3, 0.6, 0.6, 0.6), 100, 20, marks=True),
    "RAG equals tuned, far above the others, by marks": Truth((0.0, 0.0, 0.0, 0.9, 0.9, 0.9), 100, 20, marks=True),
    "+0.3 over all rivals, by marks": Truth((0.3, 0.3, 0.3, 0.3, 0.6, 0.6), 100, 20, marks=True),
}

SHORT, CHOICE, FREE, DECLINED = (
    {"agreement": 0.95},
    {"agreement": 0.95},
    {"points": 3, "agreement": 0.75},
    {
        "answerable": False,
        "agreement": 0.95,
    },
)


def kinds(short: Means, choice: Means, free: Means, declined: Means) -> tuple[Kind, ...]:
    """Return the four kinds of a written exam: a value, an option, three key points, and declining."""
    return Kind(short, **SHORT), Kind(choice, **CHOICE), Kind(free, **FREE), Kind(declined, **DECLINED)


_SAME = kinds((0.2,) * 6, (0.45,) * 6, (0.4,) * 6, (0.7,) * 6)
_RAG_EQUALS = kinds(
    (0.1, 0.1, 0.1, 0.5, 0.5, 0.5),
    (0.35, 0.35, 0.35, 0.65, 0.65, 0.65),
    (0.2, 0.2, 0.2, 0.5, 0.5, 0.5),
    (0.5, 0.5, 0.5, 0.8, 0.8, 0.8),
)
_RAG_BY_OTHERS = kinds(  # both 0.6125
    (0.1, 0.1, 0.15, 0.8, 0.35, 0.8),
    (0.3, 0.3, 0.35, 0.85, 0.5, 0.85),
    (0.2, 0.3, 0.3, 0.3, 0.7, 0.3),
    (0.4, 0.4, 0.4, 0.5, 0.9, 0.5),
)
_SIMILAR_EQUALS = kinds(
    (0.1, 0.2, 0.5, 0.1, 0.5, 0.5),
    (0.3, 0.4, 0.7, 0.3, 0.7, 0.7),
    (0.2, 0.3, 0.5, 0.2, 0.5, 0.5),
    (0.5, 0.6, 0.8, 0.5, 0.8, 0.8),
)
_BETTER = kinds(
    (0.1, 0.15, 0.2, 0.3, 0.6, 0.7),
    (0.35, 0.35, 0.4, 0.5, 0.75, 0.8),
    (0.2, 0.3, 0.3, 0.3, 0.6, 0.6),
    (0.5, 0.5, 0.5, 0.5, 0.8, 0.8),
)
# Labels as JSON with three fields: the most frequent ones are a rival.
_MAJORITY_EQUALS = (Kind((0.02, 0.2, 0.3, 0.1, 0.5, 0.5, 0.5), points=3),)
_ALL_EQUAL = (Kind((0.05, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5), points=3),)
# Twice as many values as options, and few to decline.
_UNEVEN = tuple(_RAG_EQUALS[at] for at in (0, 0, 1, 0, 2, 0, 1, 3))

WORLDS |= {
    "kinds, no effect": Truth(kinds=_SAME, num_questions=60, num_documents=20),
    "kinds, RAG equals tuned in each": Truth(kinds=_RAG_EQUALS, num_questions=60, num_documents=20),
    "kinds, RAG equals tuned, each by others": Truth(kinds=_RAG_BY_OTHERS, num_questions=60, num_documents=20),
    "kinds, RAG equals tuned, uneven quotas": Truth(kinds=_UNEVEN, num_questions=60, num_documents=20),
    "kinds, similar-shot equals tuned, without documents": Truth(
        kinds=_SIMILAR_EQUALS, num_questions=60, num_documents=20, documents=False
    ),
    "labels, majority equals tuned": Truth(kinds=_MAJORITY_EQUALS, num_questions=40, num_documents=40),
    "labels, all rivals equal tuned": Truth(kinds=_ALL_EQUAL, num_questions=40, num_documents=40),
    "kinds, better than all rivals": Truth(kinds=_BETTER, num_questions=60, num_documents=20),
}
MARKED_WORLDS |= {
    "kinds, no effect, by marks": Truth(kinds=_SAME, num_questions=100, num_documents=20, marks=True),
    "kinds, RAG equals tuned in each, by marks": Truth(
        kinds=_RAG_EQUALS, num_questions=100, num_documents=20, marks=True, judge_favors_tuned=True
    ),
    "kinds, similar-shot equals tuned, without documents, by marks": Truth(
        kinds=_SIMILAR_EQUALS, num_questions=100, num_documents=20, documents=False, marks=True
    ),
    "labels, majority equals tuned, by marks": Truth(
        kinds=_MAJORITY_EQUALS, num_questions=100, num_documents=100, marks=True
    ),
    "kinds, better than all rivals, by marks": Truth(kinds=_BETTER, num_questions=100, num_documents=20, marks=True),
}
# The largest share of runs, in percent, that may say SHIP: 1 where tuned is no better than base, 3 where the best rival
# is as good as tuned.
FALSE_SHIP = {
    name: 1 if "no effect" in name else 3
    for name, truth in {**WORLDS, **MARKED_WORLDS}.items()
    if "no effect" in name or "equal" in name
}
