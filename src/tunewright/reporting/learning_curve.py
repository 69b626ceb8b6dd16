"""The learning curve: the score after training on parts of the data, and a forecast for twice the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunewright.evaluation.results import Results
from tunewright.html import figures
from tunewright.records import Answer, Question, Record, Score
from tunewright.settings import Arm
from tunewright.statistics.intervals import Interval, mean_interval, number, paired, plain, spread

METHOD = (
    "a straight line over log2 of the number of samples, fitted by least squares to each question's scores after the "
    "three trainings; the questions' forecasts averaged, with a cluster-robust t interval over documents"
)
_CAVEATS = (
    "The interval covers the variation between exams of this kind. It covers neither the variation between training "
    "seeds (each share was trained once) nor a bend of the curve: take the forecast as a direction, not as a promise."
)


class Part(Record):
    """The result of training on a share of the data; ``adapter`` is the digest of the adapter's folder."""

    percent: int
    samples: int
    adapter: str
    score: Interval
    gold_nll: Interval | None


class Forecast(Record):
    """The score on twice the data. ``doubling`` is the mean change per doubling so far.

    ``bend`` is the change by the second doubling minus the change by the first: where its interval excludes zero, the
    straight line does not hold.
    """

    method: str = METHOD
    samples: int
    score: Interval
    doubling: Interval
    bend: Interval


class LearningCurve(Record):
    """The content of curve.json: the exam's digest, the parts in rising order, and the forecast."""

    exam: str
    parts: tuple[Part, ...]
    forecast: Forecast


def curve_part(
    percent: int, samples: int, adapter: str, questions: Sequence[Question], scores: list[Score], answers: list[Answer]
) -> Part:
    """Return a share's score and, over the answerable questions without a passage, its gold NLL."""
    closed_book = {q.id: q.document for q in questions if q.answerable and q.passage is None}
    nll = [
        (a.gold_nll, closed_book[a.question])
        for a in answers
        if a.question in closed_book and math.isfinite(a.gold_nll)
    ]
    return Part(
        percent=percent,
        samples=samples,
        adapter=adapter,
        score=mean_interval([score.primary for score in scores], [score.document for score in scores]),
        gold_nll=paired([value for value, _ in nll], [document for _, document in nll]) if nll else None,
    )


def forecast(samples: Sequence[int], scores: Sequence[Mapping[str, float]], documents: Mapping[str, str]) -> Forecast:
    """Return the forecast for twice the largest number of samples.

    The value of a fitted line is a fixed weighted sum of the scores. So each question has its own slope and forecast,
    and these are paired differences like any other: their means have the t interval of the verdict.

    Args:
        samples: number in each part, rising.
        scores: question -> score, for each part.
        documents: question -> document, the cluster.
    """
    if len(set(samples)) < len(samples):
        raise ValueError(f"the parts must differ in size: {samples}")
    at = [math.log2(count / samples[-1]) for count in samples]
    middle = math.fsum(at) / len(at)
    width = math.fsum((x - middle) ** 2 for x in at)
    names, slopes, values, bends = list(documents), [], [], []
    for name in names:
        own = [scores_of_part[name] for scores_of_part in scores]
        mean = math.fsum(own) / len(own)
        slope = math.fsum((x - middle) * y for x, y in zip(at, own, strict=True)) / width
        slopes.append(slope)
        values.append(mean + slope * (1 - middle))
        rises = [
            (after - before) / (right - left)
            for before, after, left, right in zip(own, own[1:], at, at[1:], strict=False)
        ]
        bends.append(rises[-1] - rises[0])
    clusters = [documents[name] for name in names]
    score = paired(values, clusters)
    return Forecast(
        samples=2 * samples[-1],
        score=score.model_copy(
            update={key: min(1.0, max(0.0, getattr(score, key))) for key in ("mean", "low", "high")}
        ),
        doubling=paired(slopes, clusters),
        bend=paired(bends, clusters),
    )


def curve_sentences(curve: LearningCurve) -> list[str]:
    """Return the forecast and its caveats as sentences."""
    ahead = curve.forecast
    lines = [
        f"Each doubling of the data changed the score by {plain(ahead.doubling)}.",
        f"Along that line, {ahead.samples:,} samples are expected to score {number(ahead.score.mean)} "
        f"(95% interval {spread(ahead.score)}).",
    ]
    if ahead.doubling.low <= 0 <= ahead.doubling.high:
        lines.append("The exam does not show that more data helps.")
    if ahead.bend.low > 0 or ahead.bend.high < 0:
        more_or_less = "more" if ahead.bend.low > 0 else "less"
        lines.append(
            f"The second doubling changed the score {more_or_less} than the first ({plain(ahead.bend)}): "
            "the straight line does not hold, and neither does its forecast."
        )
    return [*lines, _CAVEATS]


def curve_table(curve: LearningCurve) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: each part with its score and gold NLL, then the forecast."""
    rows = [
        [
            f"{own.percent} %",
            f"{own.samples:,}",
            number(own.score.mean),
            spread(own.score),
            *([number(own.gold_nll.mean), spread(own.gold_nll)] if own.gold_nll else ["–", "–"]),
        ]
        for own in curve.parts
    ]
    ahead = curve.forecast
    last = ["forecast", f"{ahead.samples:,}", number(ahead.score.mean), spread(ahead.score), "–", "–"]
    return ["data", "samples", "score", "95% interval", "gold NLL", "its interval"], [*rows, last]


def is_current(curve: LearningCurve, results: Results, exam: str, adapter: str) -> bool:
    """Return whether the curve is of this exam and of this adapter.

    Args:
        curve: the content of curve.json.
        results: of the run.
        exam: digest of exam.jsonl.
        adapter: digest of the adapter's folder.
    """
    if not curve.parts:
        return False
    tuned, last = results.arm(Arm.TUNED), curve.parts[-1]
    return curve.exam == exam and last.adapter == adapter and (tuned is None or tuned.primary == last.score)


def curve_view(curve: LearningCurve) -> dict[str, Any]:
    """Return the report's section."""
    last, ahead = curve.parts[-1], curve.forecast
    lines = [
        figures.Line("score", [(part.samples, part.score.mean) for part in curve.parts], marked=True),
        figures.Line("forecast", [(last.samples, last.score.mean), (ahead.samples, ahead.score.mean)], "second", True),
    ]
    rows = [
        figures.ForestRow(
            f"{part.percent} % ({part.samples:,} samples)", _value(part.score), *_ends(part.score), "tuned"
        )
        for part in curve.parts
    ]
    rows.append(
        figures.ForestRow(f"forecast ({ahead.samples:,} samples)", _value(ahead.score), *_ends(ahead.score), "rival")
    )
    label = "; ".join(f"{row.label} {row.value}" for row in rows)
    return {
        "figure": figures.curve(lines, f"Score by number of training samples: {label}", "samples"),
        "forest": figures.forest(rows, figures.Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0)), f"Scores: {label}"),
        "table": curve_table(curve),
        "sentences": curve_sentences(curve),
        "method": curve.forecast.method,
    }


def absence_label(has_curve: bool) -> str:
    """Return why the report has no learning curve.

    Args:
        has_curve: whether the run has a curve.json, which then does not match the run.
    """
    if has_curve:
        return (
            "the learning curve: curve.json is of another exam or adapter (tunewright curve RECIPE computes a new one)"
        )
    return "the learning curve: adapters on 25 and 50 % of the data (tunewright curve RECIPE)"


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def _value(interval: Interval) -> str:
    return f"{number(interval.mean)}  ({spread(interval)})"
