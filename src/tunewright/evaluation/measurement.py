"""What the exam measures: scores by arm, paired differences, guards, gold-answer likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from tunewright.errors import StageError
from tunewright.evaluation.results import (
    ArmResult,
    Difference,
    GuardResult,
    Results,
    RetentionResult,
    guard,
)
from tunewright.evaluation.retention import measure_retention
from tunewright.metrics import is_structured
from tunewright.records import Answer, RetentionAnswer, Score
from tunewright.settings import Arm
from tunewright.statistics.intervals import (
    Interval,
    difference_interval,
    holm,
    mean_interval,
    paired,
    rank_correlation,
    sign_flip,
)
from tunewright.statistics.seeds import SeedSpread, difference_over_seeds

PAIRS = (
    (Arm.TUNED, Arm.BASE),
    (Arm.TUNED, Arm.FEW_SHOT),
    (Arm.TUNED, Arm.SIMILAR_SHOT),
    (Arm.TUNED, Arm.RAG),
    (Arm.TUNED, Arm.MAJORITY),
    (Arm.ORACLE, Arm.BASE),
    (Arm.ORACLE, Arm.RAG),
    (Arm.TUNED, Arm.ORACLE),
    (Arm.TUNED_RAG, Arm.RAG),
    (Arm.TUNED_RAG, Arm.FEW_SHOT),
    (Arm.TUNED_RAG, Arm.SIMILAR_SHOT),
    (Arm.TUNED_RAG, Arm.MAJORITY),
    (Arm.TUNED_RAG, Arm.TUNED),
    (Arm.TUNED, Arm.PLACEBO),
    (Arm.PLACEBO, Arm.BASE),
)
_GUARDED = ((Arm.TUNED, Arm.BASE), (Arm.TUNED_RAG, Arm.RAG))
_EXPLORED = ("token_f1", "fuzzy", "evidence_support", "refusal_right")


ScoresByQuestion = Mapping[str, Score]  # of one arm
Value = Callable[[Score], float | None]


def _scores_by_arm(scores: Sequence[Score], arms: Sequence[str]) -> dict[str, dict[str, Score]]:
    by_arm: dict[str, dict[str, Score]] = {arm: {} for arm in arms}
    for score in scores:
        if score.arm in by_arm:
            by_arm[score.arm][score.question] = score
    return {arm: own for arm, own in by_arm.items() if own}


def _primary(ring: str | None = None) -> Value:
    return lambda score: score.primary if ring in (None, score.ring) else None


def _metric(name: str) -> Value:
    return lambda score: score.metrics.get(name)


def paired_difference(
    first: ScoresByQuestion, second: ScoresByQuestion, value: Value, measure: str, level: float, bounded: bool = True
) -> Difference | None:
    """Return the paired difference over the questions where both arms have a finite value; None without any.

    ``bounded``: the values are scores in [0, 1].
    """
    differences, clusters = [], []
    for question, score in first.items():
        other = second.get(question)
        left, right = value(score), value(other) if other else None
        if left is not None and right is not None and math.isfinite(left - right):
            differences.append(left - right)
            clusters.append(score.document)
    if not differences:
        return None
    return Difference(
        first=next(iter(first.values())).arm,
        second=next(iter(second.values())).arm,
        measure=measure,
        interval=(difference_interval if bounded else paired)(differences, clusters, level),
        sign_flip_p=sign_flip(differences, clusters),
    )


def _over_seeds(
    trainings: Sequence[ScoresByQuestion], rival: ScoresByQuestion, level: float
) -> tuple[Difference, SeedSpread] | None:
    """Return the primary difference to a rival over all trainings, and its spread; None without a common question."""
    first = trainings[0]
    common = [name for name in first if name in rival and all(name in training for training in trainings)]
    if not common:
        return None
    rows = [[training[name].primary - rival[name].primary for name in common] for training in trainings]
    clusters = [first[name].document for name in common]
    interval, spread = difference_over_seeds(rows, clusters, level)
    means = [_mean(column) for column in zip(*rows, strict=True)]
    arms = (next(iter(scores.values())).arm for scores in (first, rival))
    flipped = sign_flip(means, clusters)
    return Difference(
        first=next(arms), second=next(arms), measure="primary", interval=interval, sign_flip_p=flipped
    ), spread


def _primary_pairs(
    by_arm: Mapping[str, ScoresByQuestion], seeds: Sequence[str], level: float
) -> tuple[list[Difference], SeedSpread | None]:
    """Return the differences of the pairs that both ran, those of tuned over all seeds; and the spread against base."""
    spread, differences = None, list[Difference]()
    for first, second in PAIRS:
        if first not in by_arm or second not in by_arm:
            continue
        trainings = [by_arm[first], *(by_arm[seed] for seed in seeds if seed in by_arm)] if first == Arm.TUNED else []
        if len(trainings) > 1:
            result = _over_seeds(trainings, by_arm[second], level)
            differences += [result[0]] if result else []
            spread = result[1] if result and second == Arm.BASE else spread
        elif difference := paired_difference(by_arm[first], by_arm[second], _primary(), "primary", level):
            differences.append(difference)
    return differences, spread


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _arm_result(
    arm: str, scores: ScoresByQuestion, answers: Sequence[Answer], level: float, has_nll: bool
) -> ArmResult:
    rings: dict[str, list[Score]] = {}
    metrics: dict[str, list[float]] = {}
    for score in scores.values():
        rings.setdefault(score.ring, []).append(score)
        for name, value in score.metrics.items():
            metrics.setdefault(name, []).append(value)
    answerable = {score.question for score in scores.values() if score.metrics.get("answerable", 1.0)}
    nll = [a.gold_nll for a in answers if a.question in answerable and math.isfinite(a.gold_nll)]

    def interval(part: Sequence[Score]) -> Interval:
        return mean_interval([score.primary for score in part], [score.document for score in part], level)

    return ArmResult(
        arm=arm,
        primary=interval(list(scores.values())),
        rings={ring: interval(part) for ring, part in sorted(rings.items())},
        metrics={name: _mean(values) for name, values in metrics.items()},
        gold_nll=_mean(nll) if nll and has_nll else None,
        num_prompt_tokens=_mean([a.num_prompt_tokens for a in answers]),
        num_tokens=_mean([a.num_tokens for a in answers]),
        duration_s=_mean([a.duration_s for a in answers]),
        length_correlation=_length_correlation(scores, answers),
    )


def _length_correlation(scores: ScoresByQuestion, answers: Sequence[Answer]) -> float | None:
    """Spearman's, over the answerable questions: a right refusal is short."""
    pairs = [
        (answer.num_tokens, scores[answer.question].primary)
        for answer in answers
        if answer.question in scores and scores[answer.question].metrics.get("answerable", 1.0)
    ]
    return rank_correlation([tokens for tokens, _ in pairs], [score for _, score in pairs])


def _guards(
    by_arm: Mapping[str, ScoresByQuestion],
    retention: RetentionResult | None,
    deciding: Mapping[str, float],
    shown: Mapping[str, float],
    level: float,
) -> list[GuardResult]:
    forgetting = [retention.accuracy, retention.cross_entropy] if retention else []
    margins = {**shown, **deciding}
    guards = [
        guard(change, margins[change.measure], change.measure in deciding)
        for change in forgetting
        if change and change.measure in margins
    ]
    for measure, margin in deciding.items():
        for first, second in _GUARDED:
            if first not in by_arm or second not in by_arm:
                continue
            difference = paired_difference(by_arm[first], by_arm[second], _metric(measure), measure, level)
            if difference is not None:
                guards.append(guard(difference, margin))
    return guards


def _nll(
    by_arm: Mapping[str, ScoresByQuestion],
    answers: Sequence[Answer],
    ring: str | None,
    level: float,
    rival: str = Arm.BASE,
) -> Difference | None:
    """Gold NLL, rival minus tuned, on answerable questions without a passage, of one ring or of all."""
    if rival not in by_arm or Arm.TUNED not in by_arm:
        return None
    nll = {(answer.arm, answer.question): answer.gold_nll for answer in answers}

    def value(score: Score) -> float | None:
        counts = score.metrics.get("answerable", 1.0) and score.metrics.get("closed_book", 1.0)
        return nll.get((score.arm, score.question)) if counts and ring in (None, score.ring) else None

    return paired_difference(by_arm[rival], by_arm[Arm.TUNED], value, "gold_nll", level, bounded=False)


def _contrast(by_arm: Mapping[str, ScoresByQuestion], answers: Sequence[Answer], level: float) -> Difference | None:
    """Contrast margin, tuned minus base, on the questions without a passage whose gold has a fact to change."""
    if Arm.BASE not in by_arm or Arm.TUNED not in by_arm:
        return None
    margin = {(a.arm, a.question): a.contrast_nll - a.gold_nll for a in answers if a.contrast_nll is not None}

    def value(score: Score) -> float | None:
        return margin.get((score.arm, score.question)) if score.metrics.get("closed_book", 1.0) else None

    return paired_difference(by_arm[Arm.TUNED], by_arm[Arm.BASE], value, "contrast_margin", level, bounded=False)


def _exploratory(by_arm: Mapping[str, ScoresByQuestion], level: float) -> list[Difference]:
    """Tuned minus base on each ring and on the other metrics, with Holm's correction over all of them."""
    if Arm.BASE not in by_arm or Arm.TUNED not in by_arm:
        return []
    values = {f"primary, {ring}": _primary(ring) for ring in ("learned", "unseen")}
    values |= {name: _metric(name) for name in _EXPLORED}
    return holm_adjusted(
        [paired_difference(by_arm[Arm.TUNED], by_arm[Arm.BASE], value, name, level) for name, value in values.items()]
    )


def _compared(by_arm: Mapping[str, ScoresByQuestion], names: Sequence[str], level: float) -> list[Difference]:
    """Tuned minus each of the named arms on the primary score, with Holm's correction over all of them."""
    if Arm.TUNED not in by_arm:
        return []
    return holm_adjusted(
        [
            paired_difference(by_arm[Arm.TUNED], by_arm[name], _primary(), "primary", level)
            for name in names
            if name in by_arm
        ]
    )


def holm_adjusted(differences: Sequence[Difference | None]) -> list[Difference]:
    """Return the differences that are not None, with Holm's correction over all of them."""
    present = [difference for difference in differences if difference is not None]
    corrected = holm([difference.interval.p for difference in present])
    return [d.model_copy(update={"p_holm": p}) for d, p in zip(present, corrected, strict=True)]


def _structured(by_arm: Mapping[str, ScoresByQuestion], level: float) -> list[Difference]:
    """Tuned minus base on format, label match and each field, in the order of the fields."""
    if Arm.BASE not in by_arm or Arm.TUNED not in by_arm:
        return []
    names = [name for score in by_arm[Arm.TUNED].values() for name in score.metrics if is_structured(name)]
    differences = [
        paired_difference(by_arm[Arm.TUNED], by_arm[Arm.BASE], _metric(name), name, level)
        for name in dict.fromkeys(names)
    ]
    return [difference for difference in differences if difference is not None]


def _change(answers: Sequence[Answer]) -> dict[str, float]:
    """Return the share of the questions that tuned answers as the base, and how far the gold NLL moved on average."""
    by_arm = {arm: {a.question: a for a in answers if a.arm == arm} for arm in (Arm.BASE, Arm.TUNED)}
    pairs = [(answer, by_arm[Arm.TUNED].get(name)) for name, answer in by_arm[Arm.BASE].items()]
    both = [(base, tuned) for base, tuned in pairs if tuned]
    moved = [abs(base.gold_nll - tuned.gold_nll) for base, tuned in both]
    if not both or not all(map(math.isfinite, moved)):
        return {}
    same = [float(base.text.strip() == tuned.text.strip()) for base, tuned in both]
    return {"same_as_base": _mean(same), "gold_nll_moved": _mean(moved)}


def measure(
    scores: Sequence[Score],
    answers: Sequence[Answer],
    arms: Sequence[str],
    guard_margins: Mapping[str, float],
    level: float = 0.95,
    retention_answers: Sequence[RetentionAnswer] = (),
    compared: Sequence[str] = (),
    other_bases: Sequence[str] = (),
    shown_margins: Mapping[str, float] = MappingProxyType({}),
    seeds: Sequence[str] = (),
) -> Results:
    """Return everything that the exam measures.

    Args:
        scores: of every arm and question.
        answers: the answers behind them, for likelihood and cost.
        arms: the arms that the rule declared; others are left out.
        guard_margins: measure to the largest harm that is allowed, over the arm's rival.
        level: confidence level of every interval.
        retention_answers: of base and tuned to the retention items; empty where there are none.
        compared: the arms compared on request.
        other_bases: those of them with another base, whose likelihood per token cannot be compared.
        shown_margins: as ``guard_margins``, for measures of forgetting that are shown and decide nothing.
        seeds: the arms of further trainings from other seeds.

    Raises:
        StageError: there is no score of any declared arm.
    """
    by_arm = _scores_by_arm(scores, [*arms, *seeds, *compared])
    if not by_arm:
        raise StageError(
            "there are no scores to judge", f"of the arms {', '.join(arms)}", "run the evaluate stage again"
        )
    differences, spread = _primary_pairs(by_arm, seeds, level)
    retention = measure_retention(retention_answers, level)
    documents = {score.question: score.document for own in by_arm.values() for score in own.values()}
    return Results(
        num_questions=len(documents),
        num_documents=len(set(documents.values())),
        arms=tuple(
            _arm_result(arm, own, [a for a in answers if a.arm == arm], level, arm not in (*other_bases, Arm.MAJORITY))
            for arm, own in by_arm.items()
        ),
        differences=tuple(differences),
        seeds=spread,
        guards=tuple(_guards(by_arm, retention, guard_margins, shown_margins, level)),
        nll_learned=_nll(by_arm, answers, "learned", level),
        nll_closed_book=_nll(by_arm, answers, None, level),
        exploratory=tuple(_exploratory(by_arm, level)),
        structured=tuple(_structured(by_arm, level)),
        contrast=_contrast(by_arm, answers, level),
        kept=retention,
        compared=tuple(_compared(by_arm, compared, level)),
        nll_placebo=_nll(by_arm, answers, "learned", level, Arm.PLACEBO)
        or _nll(by_arm, answers, None, level, Arm.PLACEBO),
        **_change(answers),
    )
