"""What a judge's judgments say, and how far the judge can be believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tunewright.evaluation.marking_statistics import Share, exact_share
from tunewright.evaluation.measured import BASE, FEW_SHOT, RAG, TUNED
from tunewright.evaluation.statistics import Interval, mean_interval, paired
from tunewright.records import Record

JUDGMENTS, SUMMARY = "judgments.jsonl", "judge.json"
PREFERENCES = ((TUNED, BASE), (TUNED, FEW_SHOT), (TUNED, RAG))
LEAST_MARKS = 30  # decided by people; below, agreement with them says too little (shared practice: 30 and more)


class Judgment(Record):
    """One judgment: of one arm's answer (a finding), or of two arms' (the better arm, or "tie").

    ``outcome`` is None where the judge gave no usable verdict. ``flipped``: the two orders disagreed. Of its
    ``choices``, at most one an order, ``first_shown`` were of the answer shown first.
    """

    question: str
    document: str
    arms: tuple[str, ...]
    outcome: str | None
    flipped: bool = False
    choices: int = 0
    first_shown: int = 0


class Faithfulness(Record):
    """One arm: the share of its judged answers all of whose claims the passage supports.

    ``declined``: its answers to such questions that decline, and so claim nothing.
    """

    arm: str
    supported: Interval | None
    findings: dict[str, int]
    declined: int


class Preference(Record):
    """Two arms: who won how often; ``interval`` in [-1, 1], positive for the first, ties count 0, clustered."""

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    interval: Interval | None


class JudgeSummary(Record):
    """The content of judge.json.

    ``flipped``: comparisons of different answers whose two orders disagree. ``first_shown``: of the choices made, those
    of the answer shown first; one half shows no favor for a place. ``longer_won``: of the decided, those won by the
    longer answer. ``not_independent``: why, where the judge was forced.
    ``answers``: the digest of answers.jsonl as it was judged.
    """

    model: str
    faithfulness: tuple[Faithfulness, ...]
    preferences: tuple[Preference, ...]
    flipped: Share
    first_shown: Share
    longer_won: Share
    not_independent: tuple[str, ...] = ()
    answers: str = ""


def summarize(
    judgments: Sequence[Judgment],
    told: Mapping[tuple[str, str], str],
    declined: Mapping[str, int],
    model: str,
    not_independent: Sequence[str] = (),
) -> JudgeSummary:
    """Return the figures of all judgments.

    Args:
        judgments: of answers and of pairs.
        told: (question, arm) → answer.
        declined: arm → answers that decline.
        model: the judge's name.
        not_independent: what speaks against this judge, where it was forced.
    """
    single = [judgment for judgment in judgments if len(judgment.arms) == 1]
    double = [j for j in judgments if len(j.arms) == 2 and j.outcome is not None]
    different = [j for j in double if not _same(told, j)]
    decided = [j for j in double if j.outcome != "tie" and _length(told, j, 0) != _length(told, j, 1)]
    longer = [j for j in decided if j.outcome == j.arms[int(_length(told, j, 1) > _length(told, j, 0))]]
    return JudgeSummary(
        model=model,
        faithfulness=tuple(
            _faithfulness(arm, [j for j in single if j.arms == (arm,)], declined.get(arm, 0))
            for arm in dict.fromkeys(j.arms[0] for j in single)
        ),
        preferences=tuple(
            _preference(pair, [j for j in double if j.arms == pair]) for pair in dict.fromkeys(j.arms for j in double)
        ),
        flipped=exact_share(sum(j.flipped for j in different), len(different)),
        first_shown=exact_share(sum(j.first_shown for j in double), sum(j.choices for j in double)),
        longer_won=exact_share(len(longer), len(decided)),
        not_independent=tuple(not_independent),
    )


def _length(told: Mapping[tuple[str, str], str], judgment: Judgment, place: int) -> int:
    return len(told[judgment.question, judgment.arms[place]].strip())


def _same(told: Mapping[tuple[str, str], str], judgment: Judgment) -> bool:
    one, other = (told[judgment.question, arm].strip() for arm in judgment.arms)
    return one == other


def _faithfulness(arm: str, judgments: Sequence[Judgment], declined: int) -> Faithfulness:
    known = [j for j in judgments if j.outcome is not None]
    supported = [float(j.outcome == "supported") for j in known]
    return Faithfulness(
        arm=arm,
        supported=mean_interval(supported, [j.document for j in known]) if known else None,
        findings=dict(Counter(j.outcome or "no verdict" for j in judgments)),
        declined=declined,
    )


def _preference(pair: tuple[str, ...], judgments: Sequence[Judgment]) -> Preference:
    first, second = pair
    values = [float(j.outcome == first) - float(j.outcome == second) for j in judgments]
    return Preference(
        first=first,
        second=second,
        wins=values.count(1.0),
        losses=values.count(-1.0),
        ties=values.count(0.0),
        interval=paired(values, [j.document for j in judgments]) if values else None,
    )


def judge_differences(judgments: Sequence[Judgment], arms: tuple[str, str]) -> dict[str, float]:
    """Return question → 1 where the judge prefers the second arm, -1 the first, 0 neither: as a metric of marking."""
    found = [j for j in judgments if set(j.arms) == set(arms) and len(j.arms) == 2 and j.outcome is not None]
    return {j.question: float(j.outcome == arms[1]) - float(j.outcome == arms[0]) for j in found}
