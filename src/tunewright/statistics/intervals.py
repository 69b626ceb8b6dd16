"""Means and differences with cluster-robust intervals, tests, and numbers as text."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

from tunewright.records import Record
from tunewright.statistics.power import EXPECTED_ICC, noncentrality, t_quantile

_EXACT_CLUSTERS = 16  # up to 2^16 sign patterns are enumerated; above, patterns are drawn
_NUM_DRAWS = 9999
NEAR_THE_END = 0.7  # a mean difference from which the t interval is too short
_SPARSE = 10  # items right, or wrong, below which a design effect is not estimated


class Interval(Record):
    """A mean with its confidence interval, and the two-sided p-value of the mean being zero."""

    mean: float
    low: float
    high: float
    p: float
    num: int
    num_clusters: int


def _by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> dict[Hashable, list[float]]:
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values with {len(clusters)} clusters")
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        groups[cluster].append(value)
    return groups


def standard_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Return the cluster-robust standard error of a mean (CR1); infinite for a single cluster.

    With one value per cluster it is the usual sqrt(variance / n), the variance on n - 1.
    """
    groups = _by_cluster(values, clusters)
    num, count = len(values), len(groups)
    if count == 1:
        return math.inf
    mean = math.fsum(values) / num
    sums = [math.fsum(value - mean for value in group) for group in groups.values()]
    return math.sqrt(count / (count - 1) * math.fsum(s * s for s in sums)) / num


def paired(differences: Sequence[float], clusters: Sequence[Hashable], level: float = 0.95) -> Interval:
    """Return the mean difference with its cluster-robust t interval on G - 1 degrees of freedom.

    The variance of the mean is G / (G - 1) * sum_g (sum_i in g e_i)^2 / n^2: CR1 for a regression on a
    constant (Liang & Zeger 1986; Cameron & Miller 2015). With one question per cluster it is the usual
    t-test.

    Two degenerate cases, for scores in [0, 1] (for others the largest absolute difference is the scale):
    one cluster says nothing about others, so the interval is the full range and p = 1; clusters that
    agree to the last digit would give an interval of no width, so it gets the half width of the rule of
    three, 1 - (1 - level)^(1/n), and the p-value that matches it (Hanley & Lippman-Hand 1983). It counts
    questions, since nothing varies by document.

    Args:
        differences: one per question, first arm minus second.
        clusters: the document of each question.
        level: confidence level of the interval.
    """
    from scipy.special import stdtr

    error = standard_error(differences, clusters)
    num, count = len(differences), len(set(clusters))
    mean = math.fsum(differences) / num
    scale = max(1.0, *(abs(d) for d in differences))
    if count == 1:
        return Interval(mean=mean, low=-scale, high=scale, p=1.0, num=num, num_clusters=1)
    if error <= 1e-12 * scale:
        half = scale * (1 - (1 - level) ** (1 / num))
        p = max(0.0, 1 - abs(mean) / scale) ** num
    else:
        half = t_quantile(level, count - 1) * error
        p = float(2 * stdtr(count - 1, -abs(mean) / error))
    return Interval(mean=mean, low=mean - half, high=mean + half, p=p, num=num, num_clusters=count)


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable], level: float = 0.95) -> Interval:
    """Return the mean of scores in [0, 1] with a Wilson interval on the effective number of items.

    The effective number is m (1 - m) / error^2 for the mean m and its cluster-robust error (Korn & Graubard 1998), and
    the quantile is of t on G - 1 degrees of freedom. A Wilson (1927) interval never leaves [0, 1], and holds its
    coverage near the ends where the t interval does not (Franco et al. 2019; benchmarks/interval_coverage.py). Where
    fewer than ten items are right, or fewer than ten are wrong, their spread over documents cannot be estimated: the
    effective number is then at most that for an intraclass correlation of ``EXPECTED_ICC``.
    """
    interval = paired(values, clusters, level)
    if interval.num_clusters == 1:
        return interval.model_copy(update={"low": 0.0, "high": 1.0})
    low, high = _wilson(interval.mean, standard_error(values, clusters), interval, level)
    return interval.model_copy(update={"low": low, "high": high})


def difference_interval(differences: Sequence[float], clusters: Sequence[Hashable], level: float = 0.95) -> Interval:
    """Return ``paired`` for differences of scores in [0, 1], with an interval that never leaves [-1, 1].

    Where the t interval would leave that range, or the mean lies near its ends, (1 + d) / 2 is a score in [0, 1] and
    gets the interval of ``mean_interval``; clusters that agree on less than 1 keep the rule of three, cut to the range.
    Elsewhere the t interval holds its coverage (benchmarks/interval_coverage.py), and agrees with its p-value.
    Differences outside of [-1, 1] are of no such scores, and keep the t interval.
    """
    interval = paired(differences, clusters, level)
    if any(abs(d) > 1 for d in differences):
        return interval
    return in_range(interval, standard_error(differences, clusters), level)


def in_range(interval: Interval, error: float, level: float) -> Interval:
    """Return a t interval of a mean in [-1, 1] with this standard error, corrected as ``difference_interval`` says."""
    if interval.low >= -1 and interval.high <= 1 and abs(interval.mean) < NEAR_THE_END:
        return interval
    if interval.num_clusters == 1 or (error <= 1e-12 and abs(interval.mean) < 1):
        return interval.model_copy(update={"low": max(-1.0, interval.low), "high": min(1.0, interval.high)})
    low, high = _wilson((1 + interval.mean) / 2, error / 2, interval, level)
    return interval.model_copy(update={"low": 2 * low - 1, "high": 2 * high - 1})


def _wilson(mean: float, error: float, size: Interval, level: float) -> tuple[float, float]:
    """Return Wilson's bounds of a mean in [0, 1] with this standard error over two or more clusters."""
    mean = min(1.0, max(0.0, mean))  # rounding
    squared = t_quantile(level, size.num_clusters - 1) ** 2
    effective = mean * (1 - mean) / error**2 if error > 1e-12 and 0 < mean < 1 else math.inf
    if size.num * min(mean, 1 - mean) < _SPARSE:
        effective = min(effective, size.num / (1 + (size.num / size.num_clusters - 1) * EXPECTED_ICC))
    center = mean + squared / (2 * effective)
    half = math.sqrt(squared * (mean * (1 - mean) / effective + squared / (4 * effective**2)))
    scale = 1 + squared / effective
    return max(0.0, min(mean, (center - half) / scale)), min(1.0, max(mean, (center + half) / scale))


def sign_flip(differences: Sequence[float], clusters: Sequence[Hashable], seed: int = 0) -> float:
    """Return the two-sided p-value of flipping the sign of whole clusters.

    Exact up to 16 clusters, where it cannot go below 2^(1 - G); above, the share of 9,999 seeded draws, the
    observation counted among them (Phipson & Smyth 2010). Where all clusters that differ do so by the same
    amount, as with right and wrong answers to one question per document, this is the exact McNemar test and is
    computed as such for any number of clusters.
    """
    import numpy as np

    sums = np.array([math.fsum(group) for group in _by_cluster(differences, clusters).values()])
    sizes = np.abs(sums)
    tiny = 1e-9 * max(1.0, float(sizes.sum()))
    differing = sizes[sizes > tiny]
    if not len(differing) or differing.max() - differing.min() <= tiny:
        return mcnemar_exact(int(np.sum(sums > tiny)), int(np.sum(sums < -tiny)))
    observed = abs(sums.sum()) - tiny
    if len(sums) <= _EXACT_CLUSTERS:
        totals = sums[:1]  # the first sign is fixed: the other half of the patterns mirrors this half
        for value in sums[1:]:
            totals = np.concatenate([totals + value, totals - value])
        return float(np.mean(np.abs(totals) >= observed))
    signs = np.random.default_rng(seed).integers(0, 2, size=(_NUM_DRAWS, len(sums)), dtype=np.int8) * 2 - 1
    extreme = int(np.sum(np.abs(signs @ sums) >= observed))
    return float(1 + extreme) / (1 + _NUM_DRAWS)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided exact McNemar p-value from the two discordant counts (a binomial test at 1/2)."""
    num, few = only_first + only_second, min(only_first, only_second)
    return min(1.0, float(2 * sum(math.comb(num, k) for k in range(few + 1)) / 2**num))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, ties at their mean rank; None where a side has a single value."""
    import numpy as np

    if len(first) != len(second):
        raise ValueError(f"{len(first)} values with {len(second)}")
    centered = []
    for values in (first, second):
        _, inverse, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
        if len(counts) < 2:
            return None
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
        centered.append(ranks - ranks.mean())
    left, right = centered
    return float(left @ right / math.sqrt((left @ left) * (right @ right)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's (1979) adjusted p-values, in the given order."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable_after(interval: Interval, power: float = 0.8, level: float = 0.95) -> float:
    """Return the smallest true difference that an exam with this interval's standard error detects."""
    if interval.num_clusters < 2:
        return math.inf
    df = interval.num_clusters - 1
    error = (interval.high - interval.low) / 2 / t_quantile(level, df)
    return noncentrality(df, power, level) * error


def questions_needed(interval: Interval, margin: float, level: float = 0.95) -> int | None:
    """Return n * (MDE / margin)^2: the questions, with documents in proportion, that show this margin.

    None for a single document, which has no standard error.
    """
    smallest = detectable_after(interval, level=level)
    return math.ceil(interval.num * (smallest / margin) ** 2) if math.isfinite(smallest) else None


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with a real minus sign, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """Return a share in whole percent, or a dash for None."""
    return "–" if value is None else f"{value:.0%}"


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign, also a plus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def p_value(p: float) -> str:
    """Return a p-value as journals print it."""
    return "< .001" if p < 0.0005 else f"{p:.3f}".removeprefix("0")


def spread(interval: Interval, digits: int = 2) -> str:
    """Return the bounds of an interval."""
    return f"{number(interval.low, digits)} to {number(interval.high, digits)}"


def duration(seconds: float) -> str:
    """Return seconds as text: ``4.2 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def plain(interval: Interval, level: float = 0.95) -> str:
    """Return a difference with its interval: ``+0.31 (95% interval +0.20 to +0.42)``."""
    return f"{signed(interval.mean)} ({level:.0%} interval {signed(interval.low)} to {signed(interval.high)})"
