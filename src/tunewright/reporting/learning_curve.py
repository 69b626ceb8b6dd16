"""The learning curve: the exam's score after training on parts of the data, and what twice the data would bring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tunewright.evaluation.verdict import Verdict
from tunewright.html import figures
from tunewright.records import Answer, Question, Record, Score
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.statistics.intervals import Interval, mean_interval, number, paired, plain, spread
from tunewright.storage import file_digest

CURVE = RunFile.CURVE
METHOD = (
    "a straight line over log2 of the number of samples, fitted by least squares to each question's scores after the "
    "three trainings; the questions' forecasts averaged, with a cluster-robust t interval over documents"
)
_CAVEATS = (
    "The band holds what another exam of this kind would change. It does not hold what another seed would, each share "
    "was trained once, nor that a curve from three points may bend: take it as a direction, not as a promise."
)


class Part(Record):
    """What came of training on a share of the data; ``adapter`` is the digest of the adapter's folder."""

    percent: int
    samples: int
    adapter: str
    score: Interval
    gold_nll: Interval | None


class Forecast(Record):
    """The score on twice the data. ``doubling`` is the mean change per doubling so far.

    ``bend`` is how much more the second doubling changed than the first: where its interval keeps clear of zero, the
    line does not hold.
    """

    method: str = METHOD
    samples: int
    score: Interval
    doubling: Interval
    bend: Interval


class LearningCurve(Record):
    """The content of curve.json: the exam's digest, the parts from small to whole, and the forecast."""

    exam: str
    parts: tuple[Part, ...]
    forecast: Forecast


def part(
    percent: int, samples: int, adapter: str, questions: Sequence[Question], scores: list[Score], answers: list[Answer]
) -> Part:
    """Return a share's score and, over the answerable questions without a passage, its gold NLL."""
    asked = {q.id: q.document for q in questions if q.answerable and q.passage is None}
    nll = [(a.gold_nll, asked[a.question]) for a in answers if a.question in asked and math.isfinite(a.gold_nll)]
    return Part(
        percent=percent,
        samples=samples,
        adapter=adapter,
        score=mean_interval([score.primary for score in scores], [score.document for score in scores]),
        gold_nll=paired([value for value, _ in nll], [document for _, document in nll]) if nll else None,
    )


def forecast(samples: Sequence[int], scores: Sequence[Mapping[str, float]], documents: Mapping[str, str]) -> Forecast:
    """Return what twice the largest number of samples would bring.

    A line's value is a fixed weighted sum of the scores it is fitted to. So each question has its own slope and
    forecast, and these are paired differences like any other: their means have the t interval of the verdict.

    Args:
        samples: of each part, rising.
        scores: question -> score, of each part.
        documents: question -> document, the cluster.
    """
    if len(set(samples)) < len(samples):
        raise ValueError(f"the parts must differ in size: {samples}")
    at = [math.log2(count / samples[-1]) for count in samples]
    middle = math.fsum(at) / len(at)
    width = math.fsum((x - middle) ** 2 for x in at)
    names, slopes, values, bends = list(documents), [], [], []
    for name in names:
        told = [sheet[name] for sheet in scores]
        mean = math.fsum(told) / len(told)
        slope = math.fsum((x - middle) * y for x, y in zip(at, told, strict=True)) / width
        slopes.append(slope)
        values.append(mean + slope * (1 - middle))
        rises = [
            (after - before) / (right - left)
            for before, after, left, right in zip(told, told[1:], at, at[1:], strict=False)
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


def told(curve: LearningCurve) -> list[str]:
    """Return the forecast in sentences, with how far it is to be trusted."""
    found = curve.forecast
    lines = [
        f"Each doubling of the data changed the score by {plain(found.doubling)}.",
        f"Along that line, {found.samples:,} samples would bring {number(found.score.mean)} "
        f"(95% interval {spread(found.score)}).",
    ]
    if found.doubling.low <= 0 <= found.doubling.high:
        lines.append("The exam does not show that more data helps.")
    if found.bend.low > 0 or found.bend.high < 0:
        way = "more" if found.bend.low > 0 else "less"
        lines.append(
            f"The second doubling changed {way} than the first ({plain(found.bend)}): the line does not hold, "
            "and neither does its forecast."
        )
    return [*lines, _CAVEATS]


def table(curve: LearningCurve) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: each part with its score and gold NLL, the forecast last."""
    rows = [
        [
            f"{one.percent} %",
            f"{one.samples:,}",
            number(one.score.mean),
            spread(one.score),
            *([number(one.gold_nll.mean), spread(one.gold_nll)] if one.gold_nll else ["–", "–"]),
        ]
        for one in curve.parts
    ]
    found = curve.forecast
    last = ["forecast", f"{found.samples:,}", number(found.score.mean), spread(found.score), "–", "–"]
    return ["data", "samples", "score", "95% interval", "gold NLL", "its interval"], [*rows, last]


def curve_view(run: RunFolder, verdict: Verdict) -> dict[str, Any] | None:
    """Return the report's section; None without curve.json, or where it is of another exam or adapter."""
    curve = _fitting(run, verdict)
    if curve is None:
        return None
    last, ahead = curve.parts[-1], curve.forecast
    lines = [
        figures.Line("score", [(one.samples, one.score.mean) for one in curve.parts], marked=True),
        figures.Line("forecast", [(last.samples, last.score.mean), (ahead.samples, ahead.score.mean)], "second", True),
    ]
    rows = [
        figures.Row(f"{one.percent} % ({one.samples:,} samples)", _value(one.score), *_ends(one.score), "tuned")
        for one in curve.parts
    ]
    rows.append(figures.Row(f"forecast ({ahead.samples:,} samples)", _value(ahead.score), *_ends(ahead.score), "rival"))
    label = "; ".join(f"{row.label} {row.value}" for row in rows)
    return {
        "figure": figures.curve(lines, f"Score by number of training samples: {label}", "samples"),
        "forest": figures.forest(rows, figures.Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0)), f"Scores: {label}"),
        "table": table(curve),
        "told": told(curve),
        "method": curve.forecast.method,
    }


def curve_absence(run: RunFolder) -> str:
    """Return why the report has no learning curve."""
    if run.file(CURVE).is_file():
        return "the learning curve: curve.json is of another exam or adapter (tunewright curve RECIPE draws it anew)"
    return "the learning curve: adapters on 25 and 50 % of the data (tunewright curve RECIPE)"


def _fitting(run: RunFolder, verdict: Verdict) -> LearningCurve | None:
    if not run.file(CURVE).is_file():
        return None
    try:
        curve = LearningCurve.model_validate(run.read_json(CURVE))
    except ValidationError:
        return None
    tuned = verdict.results.arm(Arm.TUNED)
    last = curve.parts[-1] if curve.parts else None
    if last is None:
        return None
    same = curve.exam == file_digest(run.file(RunFile.EXAM)) and last.adapter == file_digest(run.file(RunFile.ADAPTER))
    return curve if same and (tuned is None or tuned.primary == last.score) else None


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def _value(interval: Interval) -> str:
    return f"{number(interval.mean)}  ({spread(interval)})"
