"""Marks that decide: tuned against a rival by blind marks and a judge's preferences, and how many marks that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tunewright.annotation.plan import MarkingPair
from tunewright.annotation.summary import consensus
from tunewright.evaluation.results import MarkedDifference
from tunewright.records import Mark
from tunewright.settings import Arm
from tunewright.statistics.agreement import ExactShare, exact_share
from tunewright.statistics.intervals import Interval, number, signed
from tunewright.statistics.power import POWER
from tunewright.statistics.prediction_powered import detectable_by_marks, prediction_powered

_LEAST_TO_ESTIMATE = 10  # marks from which spread and correlation are taken; below, they are guessed
_ALPHA = 0.05
_EXPECTED_SD = 0.85  # of a preference, in {-1, 0, 1}: a guess; with a fifth of ties it is 0.89 where arms are equal
_EXPECTED_CORRELATION = 0.7  # of marks and judge: a guess; an agreement of 85 % without ties


class Ballot(NamedTuple):
    """The questions with two different answers: people's and the judge's preference of each, and its document.

    A preference is 1 for tuned, -1 for the rival, 0 for neither; of people it is None where there is no mark.
    """

    people: list[float | None]  # in the order of the questions
    order: list[int]  # the positions of the marked questions, in order of time, which is that of the page
    judge: list[float]
    documents: list[str]
    agreed: ExactShare
    num_same: int


def ballot(
    rival: str, answer_pairs: Sequence[MarkingPair], marks: Sequence[Mark], judged: Mapping[str, float]
) -> Ballot:
    """Return people's and the judge's preferences between tuned and a rival.

    Only blind marks count, from the page: its order is drawn at random, so that the marks of whoever stops early are a
    random sample, while rows of a table are chosen. "cannot tell" is a preference for neither: left out, the marks
    would be a sample of the questions that are easy to tell. Where the judge gave no verdict, it is one too.

    Args:
        rival: the arm that tuned is compared with.
        answer_pairs: all questions that both arms answered.
        marks: of these two arms.
        judged: question to the judge's preference, above 0 for tuned.
    """
    blind = [mark for mark in marks if mark.left is not None and not mark.repeat]
    people = {mark.question: 0.0 for mark in blind} | consensus(blind, (rival, Arm.TUNED))
    shown = [pair.question for pair in answer_pairs if len(set(pair.texts.values())) > 1]
    at = {question.id: position for position, question in enumerate(shown)}
    both = [q.id for q in shown if q.id in people and q.id in judged]
    return Ballot(
        people=[people.get(question.id) for question in shown],
        order=[at[q] for q in dict.fromkeys(mark.question for mark in blind) if q in at],
        judge=[judged.get(question.id, 0.0) for question in shown],
        documents=[question.document for question in shown],
        agreed=exact_share(sum(people[q] == judged[q] for q in both), len(both)),
        num_same=len(answer_pairs) - len(shown),
    )


def look(num_marks: int, num_questions: int, least: int, alpha: float) -> tuple[int, float, int | None]:
    """Return how many marks count, the part of alpha that their interval may spend, and the number of the next look.

    Whoever reads marks after each one, and stops at a verdict that pleases, is wrong more often than alpha. So marks
    count at least, 2 least, 4 least and so on, and when all questions are marked: each look spends one half of what is
    left of alpha, the last one all, and so all intervals together miss with a chance of at most alpha (Bonferroni).

    Args:
        num_marks: so far.
        num_questions: that can be marked.
        least: the first look.
        alpha: to spend.
    """
    sizes: list[int] = []
    while least * 2 ** len(sizes) < num_questions:
        sizes.append(least * 2 ** len(sizes))
    sizes.append(num_questions)
    reached = sum(size <= num_marks for size in sizes)
    halvings = min(max(reached, 1), len(sizes) - 1)
    counted = sizes[reached - 1] if reached else num_marks
    return counted, alpha / 2**halvings, sizes[reached] if reached < len(sizes) else None


def marked_difference(rival: str, votes: Ballot, least: int, alpha: float) -> MarkedDifference | None:
    """Return tuned against a rival by marks and judge; None without a mark.

    Args:
        rival: the arm that tuned is compared with.
        votes: as ``ballot`` returns them.
        least: the marks that the rule asks for.
        alpha: the chance that any of the intervals over all looks misses.
    """
    if not votes.order:
        return None
    num_shown = len(votes.people)
    num_marks, spent, next_look = look(len(votes.order), num_shown, least, alpha)
    counted = set(votes.order[:num_marks])
    people = [mark if at in counted else None for at, mark in enumerate(votes.people)]
    powered = prediction_powered(people, votes.judge, votes.documents, 1 - spent)
    # The questions with the same answer from both are ties: they move the preference towards 0, and its bounds alike.
    share = num_shown / (num_shown + votes.num_same)

    def diluted(interval: Interval) -> Interval:
        return interval.model_copy(update={name: share * getattr(interval, name) for name in ("mean", "low", "high")})

    return MarkedDifference(
        first=Arm.TUNED,
        second=rival,
        interval=diluted(powered.interval),
        alone=diluted(powered.alone),
        weight=powered.weight,
        num_marks=num_marks,
        num_same=votes.num_same,
        num_questions=num_shown + votes.num_same,
        num_missing=max(0, min(least, num_shown) - num_marks),
        next_look=next_look,
        agreed=votes.agreed,
    )


def marks_plan(votes: Ballot, least: int) -> str:
    """Return in two sentences how many marks to make, and what preference so many can show.

    The number follows from the spread of the marks and their correlation with the judge, and from the preference that
    the judge's answers predict: never from who wins the marks, or marking until one wins would be certain to end well.

    Args:
        votes: as ``ballot`` returns them; people's may all be None.
        least: the marks that the rule asks for.
    """
    num, num_documents = len(votes.people), len(set(votes.documents))
    least = min(least, num)
    if num_documents < 2:
        return f"all questions are on one document: its {num} marks can show nothing about others"
    sd, correlation, predicted, source = _expected(votes)

    def shows(num_marks: int) -> float:
        _, spent, _ = look(num_marks, num, least, _ALPHA)
        return detectable_by_marks(num_marks, num, num_documents, sd, correlation, level=1 - spent)

    sizes = [n for n in range(max(least, 2), num + 1) if look(n, num, least, _ALPHA)[0] == n]  # the looks
    enough = [n for n in sizes if shows(n) <= abs(predicted)]
    reach = ", ".join(f"{n} marks {number(shows(n))}" for n in sizes)
    if not any(votes.judge):
        need = f"the plan needs at least {least} marks"
    elif enough:
        need = f"the plan needs {enough[0]} marks, for the preference of {signed(predicted)} that the judge predicts"
    else:
        need = f"the plan needs all {num}: the judge predicts a preference of {signed(predicted)}, too small for fewer"
    return f"{need}. With {POWER:.0%} power can be shown, of 1: {reach} ({source})"


def _expected(votes: Ballot) -> tuple[float, float, float, str]:
    """Return the spread of marks, their correlation with the judge, the preference predicted, and where these are from.

    The prediction is the judge's mean, shrunk by the slope of marks on the judge.
    """
    import numpy as np

    f = np.array(votes.judge)
    marked = [(mark, judge) for mark, judge in zip(votes.people, votes.judge, strict=True) if mark is not None]
    spread, has_judge = float(f.std()), bool(f.any())
    sd, correlation, source = _EXPECTED_SD, _EXPECTED_CORRELATION if has_judge else 0.0, "spread and agreement guessed"
    if len(marked) >= _LEAST_TO_ESTIMATE:
        y, on_marked = np.array(marked).T
        sd = max(float(y.std(ddof=1)), 0.1)
        varies = y.std() > 0 and on_marked.std() > 0
        correlation = max(0.0, float(np.corrcoef(y, on_marked)[0, 1])) if varies else 0.0
        source = f"from {len(marked)} marks so far"
        if votes.agreed.share is not None and has_judge:
            source += f", the judge agrees with {votes.agreed.share:.0%}"
    slope = correlation * sd / spread if spread else correlation
    return sd, correlation, float(np.clip(slope * f.mean(), -1, 1)) if has_judge else 0.0, source
