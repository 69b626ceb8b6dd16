"""The summary of all marks: wins, evidence, and the agreement of markers and metrics."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tunewright.annotation.plan import MarkingPair
from tunewright.records import Answer, Mark, Record, Score
from tunewright.statistics.agreement import STOP, ExactShare, e_value, exact_share, krippendorff_alpha
from tunewright.statistics.intervals import Interval, difference_interval, mcnemar_exact

E_VALUE = (
    "mixture likelihood ratio of the decisive marks against win rate 1/2, uniform over the win rate; "
    "one mark per document, the first decisive one; may be looked at after every mark"
)


class MarkEvidence(Record):
    """The e-value against "no preference": from 20 on, marking may stop."""

    method: str = E_VALUE
    wins: int
    losses: int
    value: float
    stop_at: float = STOP
    stop: bool


class Agreement(Record):
    """How often a metric prefers the arm that people prefer; a metric that is equal for both arms counts half."""

    name: str
    agreed: int
    opposed: int
    equal: int
    share: float | None


class MarkingSummary(Record):
    """The content of marking.json.

    ``wins`` counts questions, by majority of the markers; ``win_share`` is the second arm's. ``preference`` is in
    [-1, 1], positive for the second arm, clustered by document; ties count 0, "cannot tell" is left out.
    ``answers`` is the digest of all that was marked (:func:`tunewright.annotation.plan.answer_pairs_digest`).
    ``same`` counts the questions that were not marked, since both arms gave the same answer; no figure includes them.
    ``others`` counts rows of a table whose winner is a third arm.
    """

    arms: tuple[str, str]
    num_marks: int
    markers: dict[str, int]
    blind: bool
    choices: dict[str, int]
    others: int
    answers: str = ""
    same: int
    num_questions: int
    wins: dict[str, int]
    win_share: ExactShare
    p: float
    preference: Interval | None
    e_value: MarkEvidence
    left_chosen: ExactShare
    self_agreement: ExactShare
    alpha: float | None
    longest: Agreement
    metrics: tuple[Agreement, ...]


def verdict_of(mark: Mark) -> str:
    """Return the arm that a mark prefers, or its choice where it prefers neither."""
    return mark.winner or mark.choice


def consensus(marks: Sequence[Mark], arms: tuple[str, str]) -> dict[str, float]:
    """Return question -> 1 (second arm), -1 (first) or 0, by majority of the markers; repeats do not count."""
    votes: dict[str, list[int]] = defaultdict(list)
    for mark in marks:
        if not mark.repeat and mark.choice != "cannot tell":
            votes[mark.question].append((mark.winner == arms[1]) - (mark.winner == arms[0]))
    return {question: float((sum(cast) > 0) - (sum(cast) < 0)) for question, cast in votes.items()}


def evidence(marks: Sequence[Mark], arms: tuple[str, str]) -> MarkEvidence:
    """Return the e-value over the first decisive mark of each document; ``marks`` are in order of time."""
    first: dict[str, str] = {}
    for mark in marks:
        if mark.winner is not None and not mark.repeat:
            first.setdefault(mark.document, mark.winner)
    counts = Counter(first.values())
    wins, losses = counts[arms[1]], counts[arms[0]]
    value = e_value(wins, losses)
    return MarkEvidence(wins=wins, losses=losses, value=value, stop=value >= STOP)


def self_agreement(marks: Sequence[Mark]) -> ExactShare:
    """Return how often a hidden repeat, its sides swapped, got the same mark as its original."""
    originals = {(mark.marker, mark.question): verdict_of(mark) for mark in marks if not mark.repeat}
    repeats = [mark for mark in marks if mark.repeat and (mark.marker, mark.question) in originals]
    same = sum(verdict_of(mark) == originals[mark.marker, mark.question] for mark in repeats)
    return exact_share(same, len(repeats))


def alpha(marks: Sequence[Mark]) -> float | None:
    """Return Krippendorff's nominal alpha between markers; "cannot tell" is a missing value, repeats are left out."""
    units: dict[str, list[float]] = defaultdict(list)
    numbers: dict[str, float] = {}
    for mark in marks:
        if not mark.repeat and mark.choice != "cannot tell":
            units[mark.question].append(numbers.setdefault(verdict_of(mark), len(numbers)))
    return krippendorff_alpha(list(units.values()), "nominal")


def agreement(name: str, people: Mapping[str, float], differences: Mapping[str, float]) -> Agreement:
    """Return how a measure agrees with people where they prefer one arm.

    Args:
        name: of the measure: a metric, or a judge.
        people: question -> preference, as ``consensus`` gives it.
        differences: question -> second arm minus first, more being better.
    """
    both = [(people[q], differences[q]) for q in people if people[q] and q in differences]
    agreed = sum(side * difference > 0 for side, difference in both)
    equal = sum(difference == 0 for _, difference in both)
    share = (agreed + equal / 2) / len(both) if both else None
    return Agreement(name=name, agreed=agreed, opposed=len(both) - agreed - equal, equal=equal, share=share)


def metric_differences(
    scores: Sequence[Score], answers: Sequence[Answer], arms: tuple[str, str]
) -> dict[str, dict[str, float]]:
    """Return metric -> question -> second arm minus first, signed so that more is better."""
    values: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for score in scores:
        for name, value in {"primary": score.primary, **score.metrics}.items():
            if name in DIRECTIONS:
                values[name][score.question, score.arm] = DIRECTIONS[name] * value
    for answer in answers:
        values["gold_nll"][answer.question, answer.arm] = DIRECTIONS["gold_nll"] * answer.gold_nll
    return {
        name: {q: own[q, arms[1]] - value for (q, arm), value in own.items() if arm == arms[0] and (q, arms[1]) in own}
        for name, own in values.items()
    }


def length_differences(answer_pairs: Sequence[MarkingPair], arms: tuple[str, str]) -> dict[str, float]:
    """Return question -> characters of the second arm's answer minus those of the first arm's."""
    return {pair.question.id: float(len(pair.texts[arms[1]]) - len(pair.texts[arms[0]])) for pair in answer_pairs}


def summarize_marks(
    marks: Sequence[Mark],
    arms: tuple[str, str],
    answer_pairs: Sequence[MarkingPair],
    differences: Mapping[str, Mapping[str, float]],
    others: int = 0,
) -> MarkingSummary:
    """Return the summary; ``marks`` are in order of time, ``others`` as ``table_marks`` counts them."""
    people = consensus(marks, arms)
    documents = {mark.question: mark.document for mark in marks}
    counts = Counter(people.values())
    wins, losses = counts[1.0], counts[-1.0]
    sided = [mark for mark in marks if mark.winner and mark.left]
    return MarkingSummary(
        arms=arms,
        num_marks=len(marks),
        markers=dict(Counter(mark.marker for mark in marks)),
        blind=all(mark.left is not None for mark in marks),
        choices=dict(Counter(verdict_of(mark) for mark in marks)),
        others=others,
        same=sum(len(set(pair.texts.values())) == 1 for pair in answer_pairs),
        num_questions=len(people),
        wins={arms[0]: losses, arms[1]: wins, "neither": counts[0.0]},
        win_share=exact_share(wins, wins + losses),
        p=mcnemar_exact(losses, wins),
        preference=difference_interval(list(people.values()), [documents[q] for q in people]) if people else None,
        e_value=evidence(marks, arms),
        left_chosen=exact_share(sum(mark.winner == mark.left for mark in sided), len(sided)),
        self_agreement=self_agreement(marks),
        alpha=alpha(marks),
        longest=agreement("longest", people, length_differences(answer_pairs, arms)),
        metrics=tuple(agreement(name, people, values) for name, values in differences.items()),
    )


# +1: higher is better, -1: lower is better. Metrics that only describe a question or an answer are left out.
DIRECTIONS: dict[str, int] = {
    "primary": 1,
    "exact": 1,
    "token_f1": 1,
    "fuzzy": 1,
    "evidence_support": 1,
    "refusal_right": 1,
    "cut_or_empty": -1,
    "gold_nll": -1,
}
