"""The opinions of people and of a judge on the answers, for the report, and whether the judge counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.annotation.plan import MarkingPair
from tunewright.annotation.summary import Agreement, MarkingSummary, agreement, consensus, length_differences
from tunewright.evaluation.judge import Judgment, judge_differences
from tunewright.evaluation.results import Results
from tunewright.evaluation.rule import LEAST_MARKS
from tunewright.records import Mark
from tunewright.statistics.agreement import exact_share
from tunewright.statistics.intervals import Interval


@dataclass(frozen=True)
class Opinions:
    """The views of the judge and of the marks, each None where there are none, and a sentence on a disagreement."""

    judged: dict[str, Any] | None
    marked: MarkingSummary | None
    disagreement: str


def _decided(agreement: Agreement) -> int:
    return agreement.agreed + agreement.opposed + agreement.equal


def judge_trial(
    marking: MarkingSummary,
    answer_pairs: Sequence[MarkingPair],
    marks: Sequence[Mark],
    judgments: Sequence[Judgment],
) -> dict[str, Any]:
    """Return how the judge agrees with the marks, beside the rule "the longest answer wins" on the same questions.

    The judge counts only when people decided at least 30 of the questions that it compared, when it agrees with them
    beyond chance (exact interval of its decided questions above one half), and more often than that rule.

    Args:
        marking: the summary of the marks.
        answer_pairs: the marked questions with both answers.
        marks: all marks.
        judgments: all judgments.
    """
    people = consensus(marks, marking.arms)
    differences = judge_differences(judgments, marking.arms)
    judge = agreement("judge", people, differences)
    lengths = length_differences(answer_pairs, marking.arms)
    beyond = exact_share(judge.agreed, judge.agreed + judge.opposed).low > 0.5
    judged = {question: side for question, side in people.items() if question in differences}
    longest = agreement("longest", judged, lengths)
    beats = beyond and (judge.share or 0.0) > (longest.share or 0.0)
    return {
        "judge": judge,
        "longest": longest,
        "beyond": beyond,
        "decided": _decided(judge),
        "least": LEAST_MARKS,
        "counted": beats and _decided(judge) >= LEAST_MARKS,
    }


def disagreement(marking: MarkingSummary | None, results: Results) -> str:
    """Return a sentence where people and the score prefer different arms, both beyond chance; else nothing."""
    if marking is None or marking.preference is None:
        return ""
    first, second = marking.arms
    forward, backward = results.difference(second, first), results.difference(first, second)
    if forward is not None:
        score = forward.interval
    elif backward is not None:
        score = _negated(backward.interval)
    else:
        return ""
    people = marking.preference
    if not (people.low > 0 and score.high < 0 or people.high < 0 and score.low > 0):
        return ""
    return (
        f"People and the score disagree, both beyond chance: people prefer {marking.arms[int(people.mean > 0)]}, the "
        f"score {marking.arms[int(score.mean > 0)]}. Treat this verdict as NOT PROVEN until you know why."
    )


def _negated(interval: Interval) -> Interval:
    return interval.model_copy(update={"mean": -interval.mean, "low": -interval.high, "high": -interval.low})
