"""Measuring the exam: scores by arm, paired differences, guards, gold-answer likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

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
from tunewright.statistics.intervals import Interval, holm, mean_interval, paired, rank_correlation, sign_flip

PAIRS = (
    (Arm.TUNED, Arm.BASE),
    (Arm.TUNED, Arm.FEW_SHOT),
    (Arm.TUNED, Arm.RAG),
    (Arm.TUNED_RAG, Arm.RAG),
    (Arm.TUNED_RAG, Arm.FEW_SHOT),
    (Arm.TUNED_RAG, Arm.TUNED),
    (Arm.TUNED, Arm.PLACEBO),
    (Arm.PLACEBO, Arm.BASE),
)
_GUARDED = ((Arm.TUNED, Arm.BASE), (Arm.TUNED_RAG, Arm.RAG))
_EXPLORED = ("token_f1", "fuzzy", "evidence_support", "refusal_right")


Sheet = Mapping[str, Score]  # one arm's scores by question
Value = Callable[[Score], float | None]


def _sheets(scores: Sequence[Score], arms: Sequence[str]) -> dict[str, dict[str, Score]]:
    sheets: dict[str, dict[str, Score]] = {arm: {} for arm in arms}
    for score in scores:
        if score.arm in sheets:
            sheets[score.arm][score.question] = score
    return {arm: sheet for arm, sheet in sheets.items() if sheet}


def _primary(ring: str | None = None) -> Value:
    return lambda score: score.primary if ring in (None, score.ring) else None


def _metric(name: str) -> Value:
    return lambda score: score.metrics.get(name)


def paired_difference(first: Sheet, second: Sheet, value: Value, measure: str, level: float) -> Difference | None:
    """Return the paired difference where both arms have a finite value; None without any."""
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
        interval=paired(differences, clusters, level),
        sign_flip_p=sign_flip(differences, clusters),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _arm_result(arm: str, sheet: Sheet, answers: Sequence[Answer], level: float, has_nll: bool) -> ArmResult:
    rings: dict[str, list[Score]] = {}
    metrics: dict[str, list[float]] = {}
    for score in sheet.values():
        rings.setdefault(score.ring, []).append(score)
        for name, value in score.metrics.items():
            metrics.setdefault(name, []).append(value)
    answerable = {score.question for score in sheet.values() if score.metrics.get("answerable", 1.0)}
    nll = [a.gold_nll for a in answers if a.question in answerable and math.isfinite(a.gold_nll)]

    def interval(scores: Sequence[Score]) -> Interval:
        return mean_interval([s.primary for s in scores], [s.document for s in scores], level)

    return ArmResult(
        arm=arm,
        primary=interval(list(sheet.values())),
        rings={ring: interval(scores) for ring, scores in sorted(rings.items())},
        metrics={name: _mean(values) for name, values in metrics.items()},
        gold_nll=_mean(nll) if nll and has_nll else None,
        num_prompt_tokens=_mean([a.num_prompt_tokens for a in answers]),
        num_tokens=_mean([a.num_tokens for a in answers]),
        duration_s=_mean([a.duration_s for a in answers]),
        length_correlation=_length_correlation(sheet, answers),
    )


def _length_correlation(sheet: Sheet, answers: Sequence[Answer]) -> float | None:
    """Over the answerable questions: a refusal is short and rightly so."""
    pairs = [
        (answer.num_tokens, sheet[answer.question].primary)
        for answer in answers
        if answer.question in sheet and sheet[answer.question].metrics.get("answerable", 1.0)
    ]
    return rank_correlation([tokens for tokens, _ in pairs], [score for _, score in pairs])


def _guards(
    sheets: Mapping[str, Sheet], kept: RetentionResult | None, margins: Mapping[str, float], level: float
) -> list[GuardResult]:
    forgotten = [kept.accuracy, kept.cross_entropy] if kept else []
    guards = [guard(found, margins[found.measure]) for found in forgotten if found and found.measure in margins]
    for measure, margin in margins.items():
        for first, second in _GUARDED:
            if first not in sheets or second not in sheets:
                continue
            found = paired_difference(sheets[first], sheets[second], _metric(measure), measure, level)
            if found is None:
                continue
            guards.append(guard(found, margin))
    return guards


def _nll(
    sheets: Mapping[str, Sheet], answers: Sequence[Answer], ring: str | None, level: float, rival: str = Arm.BASE
) -> Difference | None:
    """Gold NLL, rival minus tuned, on answerable questions asked without a passage, of one ring or of all."""
    if rival not in sheets or Arm.TUNED not in sheets:
        return None
    nll = {(answer.arm, answer.question): answer.gold_nll for answer in answers}

    def value(score: Score) -> float | None:
        asked = score.metrics.get("answerable", 1.0) and score.metrics.get("closed_book", 1.0)
        return nll.get((score.arm, score.question)) if asked and ring in (None, score.ring) else None

    return paired_difference(sheets[rival], sheets[Arm.TUNED], value, "gold_nll", level)


def _contrast(sheets: Mapping[str, Sheet], answers: Sequence[Answer], level: float) -> Difference | None:
    """Contrast margin, tuned minus base, on the questions asked without a passage whose gold has a fact to change."""
    if Arm.BASE not in sheets or Arm.TUNED not in sheets:
        return None
    margin = {(a.arm, a.question): a.contrast_nll - a.gold_nll for a in answers if a.contrast_nll is not None}

    def value(score: Score) -> float | None:
        return margin.get((score.arm, score.question)) if score.metrics.get("closed_book", 1.0) else None

    return paired_difference(sheets[Arm.TUNED], sheets[Arm.BASE], value, "contrast_margin", level)


def _exploratory(sheets: Mapping[str, Sheet], level: float) -> list[Difference]:
    """Tuned minus base on each ring and on the other metrics, with Holm's correction over all of them."""
    if Arm.BASE not in sheets or Arm.TUNED not in sheets:
        return []
    values = {f"primary, {ring}": _primary(ring) for ring in ("learned", "unseen")}
    values |= {name: _metric(name) for name in _EXPLORED}
    return holm_adjusted(
        [paired_difference(sheets[Arm.TUNED], sheets[Arm.BASE], value, name, level) for name, value in values.items()]
    )


def _compared(sheets: Mapping[str, Sheet], names: Sequence[str], level: float) -> list[Difference]:
    """Tuned minus each of these on the primary score, with Holm's correction over all of them."""
    if Arm.TUNED not in sheets:
        return []
    asked = [name for name in names if name in sheets]
    return holm_adjusted(
        [paired_difference(sheets[Arm.TUNED], sheets[name], _primary(), "primary", level) for name in asked]
    )


def holm_adjusted(looked: Sequence[Difference | None]) -> list[Difference]:
    """Return the differences that there are, with Holm's correction over all of them."""
    found = [difference for difference in looked if difference is not None]
    corrected = holm([difference.interval.p for difference in found])
    return [d.model_copy(update={"p_holm": p}) for d, p in zip(found, corrected, strict=True)]


def _structured(sheets: Mapping[str, Sheet], level: float) -> list[Difference]:
    """Tuned minus base on format, label match and each field, in the order of the fields."""
    if Arm.BASE not in sheets or Arm.TUNED not in sheets:
        return []
    named = [name for score in sheets[Arm.TUNED].values() for name in score.metrics if is_structured(name)]
    looked = [
        paired_difference(sheets[Arm.TUNED], sheets[Arm.BASE], _metric(name), name, level)
        for name in dict.fromkeys(named)
    ]
    return [difference for difference in looked if difference is not None]


def measure(
    scores: Sequence[Score],
    answers: Sequence[Answer],
    arms: Sequence[str],
    guard_margins: Mapping[str, float],
    level: float = 0.95,
    kept_answers: Sequence[RetentionAnswer] = (),
    compared: Sequence[str] = (),
    other_bases: Sequence[str] = (),
) -> Results:
    """Return everything that the exam measured.

    Args:
        scores: of every arm and question.
        answers: the answers behind them, for likelihood and cost.
        arms: the arms that the rule declared; others are left out.
        guard_margins: measure to the largest harm that is allowed, over the arm's rival.
        level: confidence level of every interval.
        kept_answers: of base and tuned to the third ring, where it was sat.
        compared: who sat the exam on request, besides the arms.
        other_bases: those of them whose likelihood per token cannot be compared.

    Raises:
        StageError: there is no score of any declared arm.
    """
    sheets = _sheets(scores, [*arms, *compared])
    if not sheets:
        raise StageError(
            "there are no scores to judge", f"of the arms {', '.join(arms)}", "run the evaluate stage again"
        )
    pairs = [
        paired_difference(sheets[first], sheets[second], _primary(), "primary", level)
        for first, second in PAIRS
        if first in sheets and second in sheets
    ]
    kept = measure_retention(kept_answers, level)
    documents = {score.question: score.document for sheet in sheets.values() for score in sheet.values()}
    return Results(
        num_questions=len(documents),
        num_documents=len(set(documents.values())),
        arms=tuple(
            _arm_result(arm, sheet, [a for a in answers if a.arm == arm], level, has_nll=arm not in other_bases)
            for arm, sheet in sheets.items()
        ),
        differences=tuple(difference for difference in pairs if difference is not None),
        guards=tuple(_guards(sheets, kept, guard_margins, level)),
        nll_learned=_nll(sheets, answers, "learned", level),
        nll_closed_book=_nll(sheets, answers, None, level),
        exploratory=tuple(_exploratory(sheets, level)),
        structured=tuple(_structured(sheets, level)),
        contrast=_contrast(sheets, answers, level),
        kept=kept,
        compared=tuple(_compared(sheets, compared, level)),
        nll_placebo=_nll(sheets, answers, "learned", level, Arm.PLACEBO)
        or _nll(sheets, answers, None, level, Arm.PLACEBO),
    )
