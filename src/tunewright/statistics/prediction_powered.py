"""Prediction-powered means: marks of a random sample, and a judge's predictions of the marks of all questions."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewright.records import Record
from tunewright.statistics.intervals import NEAR_THE_END, Interval, difference_interval, in_range
from tunewright.statistics.power import EXPECTED_ICC, POWER, noncentrality, t_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Totals = Mapping[str, NDArray[Any]]  # by name of a sum: of all documents, by document, or of all but one


class PredictionPowered(Record):
    """A mean preference in [-1, 1] from marks and predictions, beside that of the marks alone.

    ``weight`` is lambda, the weight of the predictions: 0 is the marks alone. Of the intervals, ``num`` counts the
    marks and ``num_clusters`` the documents behind the degrees of freedom.
    """

    interval: Interval
    alone: Interval
    weight: float
    num_questions: int


def prediction_powered(
    marks: Sequence[float | None],
    predictions: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> PredictionPowered:
    """Return the mean over all questions, of which a random sample is marked and every one is predicted.

    theta = mean_others(lambda f) + mean_marked(y - lambda f), which is unbiased however wrong the predictions f are
    (Angelopoulos et al. 2023, Science 382:669), with lambda = cov(y, f) / var(f) / (1 + n / N), clipped to [0, 1]
    (PPI++, Angelopoulos, Duchi & Zrnic 2023, arXiv:2311.01453), for n marks and N other questions. The first mean
    leaves the marked questions out, as the paper does: with them in both means, the terms are not independent, and the
    sum of their variances is too small, for a perfect judge by nearly one half.

    Without clusters it is the paper's interval, with the normal quantile and the variance
    var_others(lambda f) / N + var_marked(y - lambda f) / n, equal to ``ppi_py.ppi_mean_ci``.

    With clusters, a document is in both means, and lambda is estimated from few of them: both are in the jackknife
    that deletes one document at a time, (G - 1) / G * sum_g (theta_(g) - theta)^2, each time with a new lambda (CR3 of
    a mean: MacKinnon, Nielsen & Webb 2023). Where lambda is held fixed, coverage falls to 91 % for good judges on ten
    documents (benchmarks/ppi_coverage.py). Marks are drawn in rounds over the documents, so each counts for its share
    of its document's questions. The quantile is of t on the effective number of documents with a mark, less 1, by
    Satterthwaite's formula with the squares of these weights (Bell & McCaffrey 2002); of documents of one size that is
    their number. One document gives the full range. An interval is cut to [-1, 1]; near the ends it is that of
    ``difference_interval``.

    Args:
        marks: one per question, in [-1, 1]; None for a question without a mark.
        predictions: one per question, in [-1, 1].
        clusters: the document of each question.
        level: confidence level of the interval.

    Raises:
        ValueError: the lengths differ, or there is no mark.
    """
    import numpy as np

    if len(marks) != len(predictions) or (clusters is not None and len(clusters) != len(marks)):
        raise ValueError(f"{len(marks)} marks with {len(predictions)} predictions")
    marked = np.array([mark is not None for mark in marks])
    if not marked.any():
        raise ValueError("there is no mark")
    y = np.array([0.0 if mark is None else mark for mark in marks])
    f = np.asarray(predictions, dtype=float)
    if clusters is None:
        interval, weight = _of_the_paper(y, f, marked, level)
        return PredictionPowered(
            interval=interval, alone=_of_the_paper(y, 0 * f, marked, level)[0], weight=weight, num_questions=len(f)
        )
    numbers: dict[Hashable, int] = {}
    documents = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    by_document = _sums(y, f, marked, documents)
    weight, powered = _clustered(by_document, level)
    _, alone = _clustered({**by_document, "f": 0 * by_document["f"], "ff": 0 * by_document["ff"]}, level)
    if powered is None or alone is None:  # nothing varies: the marks alone, with the rule of three
        own = [cluster for cluster, mark in zip(clusters, marks, strict=True) if mark is not None]
        floor = difference_interval(y[marked].tolist(), own, level)
        powered, alone = powered or floor, alone or floor
    return PredictionPowered(interval=powered, alone=alone, weight=weight, num_questions=len(f))


def _sums(y: NDArray[Any], f: NDArray[Any], marked: NDArray[Any], documents: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the sums by document behind estimate and lambda; those that begin with w are weighted to its questions."""
    import numpy as np

    def by_document(values: NDArray[Any]) -> NDArray[Any]:
        return np.bincount(documents, weights=values)

    num, num_marked = by_document(np.ones_like(f)), by_document(marked * 1.0)
    share = num / np.maximum(num_marked, 1)
    sums = {"num": num, "n": num_marked, "f": by_document(f), "ff": by_document(f * f)}
    sums |= {"y": by_document(marked * y), "fm": by_document(marked * f), "yf": by_document(marked * y * f)}
    return sums | {"w": num * (num_marked > 0), "wy": share * sums["y"], "wf": share * sums["fm"]}


def _estimate(sums: Totals) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return theta and lambda of sums over documents, elementwise; lambda is 0 where predictions do not vary."""
    import numpy as np

    n, num = sums["n"], sums["num"]
    others = num - n
    variance = (sums["ff"] - sums["f"] ** 2 / num) / np.maximum(num - 1, 1)
    covariance = sums["yf"] / n - sums["y"] / n * sums["fm"] / n
    slope = np.where(variance > 1e-12, covariance / np.maximum(variance, 1e-12), 0.0)
    weight = np.clip(slope * others / num, 0.0, 1.0)  # 1 / (1 + n / N) is N / (n + N)
    # The mean of the others is that of all less the marked: lambda on the others is lambda (n + N) / N on all.
    on_all = weight * num / np.maximum(others, 1)
    return on_all * sums["f"] / num + (sums["wy"] - on_all * sums["wf"]) / sums["w"], weight


def _clustered(by_document: Totals, level: float) -> tuple[float, Interval | None]:
    """Return lambda and the interval from sums by document; None for the interval where nothing varies."""
    import numpy as np
    from scipy.special import stdtr

    totals = {name: sums.sum() for name, sums in by_document.items()}
    theta, weight = (float(value) for value in _estimate(totals))
    num = round(float(totals["n"]))
    if np.count_nonzero(by_document["n"]) < 2:
        return weight, Interval(mean=theta, low=-1.0, high=1.0, p=1.0, num=num, num_clusters=1)
    without, _ = _estimate({name: totals[name] - sums for name, sums in by_document.items()})
    count = len(without)
    error = math.sqrt((count - 1) / count * float(((without - theta) ** 2).sum()))
    if error <= 1e-9:
        return weight, None
    shares = (by_document["w"] / totals["w"]) ** 2
    effective = max(2.0, float(shares.sum() ** 2 / (shares**2).sum()))
    half = t_quantile(level, effective - 1) * error
    p = float(2 * stdtr(effective - 1, -abs(theta) / error))
    interval = Interval(mean=theta, low=theta - half, high=theta + half, p=p, num=num, num_clusters=round(effective))
    if abs(theta) < NEAR_THE_END:
        return weight, interval.model_copy(update={"low": max(-1.0, interval.low), "high": min(1.0, interval.high)})
    return weight, in_range(interval, error, level)


def _of_the_paper(y: NDArray[Any], f: NDArray[Any], marked: NDArray[Any], level: float) -> tuple[Interval, float]:
    """Return the large-sample interval of independent questions, and lambda."""
    import numpy as np
    from scipy.special import ndtr

    sums = _sums(y, f, marked, np.zeros(len(f), dtype=int))
    theta, weight = (float(values[0]) for values in _estimate(sums))
    n, others = int(marked.sum()), f[~marked]
    variance = float((y - weight * f)[marked].var() / n + (weight**2 * others.var() / len(others) if weight else 0.0))
    error, half = math.sqrt(variance), t_quantile(level, math.inf) * math.sqrt(variance)
    p = float(2 * ndtr(-abs(theta) / error)) if error else float(theta == 0)
    return Interval(mean=theta, low=theta - half, high=theta + half, p=p, num=n, num_clusters=n), weight


def detectable_by_marks(
    num_marks: int,
    num_questions: int,
    num_documents: int,
    sd: float,
    correlation: float,
    power: float = POWER,
    level: float = 0.95,
) -> float:
    """Return the smallest true preference that so many marks and the judge's predictions detect.

    With the best lambda the variance of the estimate is sd^2 / n * (1 - r^2 (1 - n / N)) for n marks of N questions,
    inflated by the design effect of n / G marks on each of G documents (Kish 1965) with the expected ICC.

    Args:
        num_marks: n, drawn at random.
        num_questions: N, all that are predicted, the marked ones too.
        num_documents: G, at least 2.
        sd: standard deviation of the marks, each in [-1, 1].
        correlation: r, of marks and predictions; 0 without a judge.
        power: chance of detecting it.
        level: confidence level of the test.
    """
    documents = min(num_documents, num_marks)
    inflation = 1 + (num_marks / documents - 1) * EXPECTED_ICC
    variance = sd**2 / num_marks * inflation * (1 - correlation**2 * (1 - num_marks / num_questions))
    return noncentrality(documents - 1, power, level) * math.sqrt(variance)
