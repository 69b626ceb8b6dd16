"""A difference over several trainings: the exam's uncertainty and that of the training seed, together."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

from tunewright.records import Record
from tunewright.statistics.intervals import Interval, in_range, paired, standard_error
from tunewright.statistics.power import t_quantile


class SeedSpread(Record):
    """How far trainings of one recipe differ: the mean of each, and the two parts of the standard error of their mean.

    ``exam_error``: from the questions and documents drawn. ``seed_error``: from the seeds drawn.
    """

    means: tuple[float, ...]
    exam_error: float
    seed_error: float


def difference_over_seeds(
    by_seed: Sequence[Sequence[float]], clusters: Sequence[Hashable], level: float = 0.95
) -> tuple[Interval, SeedSpread]:
    """Return the mean difference over seeds and questions, both drawn at random, and the parts of its error.

    With d_q the mean over the S seeds of question q's difference, and m_s seed s's mean over the questions: the
    squared error is CR1 of the d_q by document, plus the variance of the m_s over S. The quantile is the mean of t on
    G - 1 and on S - 1 degrees of freedom, weighted by the two squared errors (Cochran & Cox 1957, for means of unequal
    variances): Satterthwaite's degrees of freedom cover 92 % where few seeds differ much. What seed and question do
    together is in both parts, so that the interval is rather too wide than too short. Treating the seed as drawn
    follows Bouthillier et al. 2021 (arXiv 2103.03098).

    Args:
        by_seed: the differences of scores in [0, 1], one row for each seed, each in the order of ``clusters``.
        clusters: the document of each question.
        level: confidence level of the interval.
    """
    num_seeds, count = len(by_seed), len(set(clusters))
    differences = [math.fsum(column) / num_seeds for column in zip(*by_seed, strict=True)]
    interval = paired(differences, clusters, level)
    means = tuple(math.fsum(row) / len(row) for row in by_seed)
    squared_seed = math.fsum((mean - interval.mean) ** 2 for mean in means) / (num_seeds - 1) / num_seeds
    exam_error = standard_error(differences, clusters)
    spread = SeedSpread(means=means, exam_error=exam_error, seed_error=math.sqrt(squared_seed))
    if count == 1 or squared_seed <= 1e-24:  # one document says nothing; equal means leave the exam's error alone
        return in_range(interval, exam_error, level), spread
    error = math.sqrt(exam_error**2 + squared_seed)
    share = squared_seed / error**2

    def half_width(of_level: float) -> float:
        return ((1 - share) * t_quantile(of_level, count - 1) + share * t_quantile(of_level, num_seeds - 1)) * error

    # Documents that agree to the last digit keep the rule of three of ``paired`` as the least half width.
    half = max(half_width(level), interval.high - interval.mean if exam_error <= 1e-12 else 0.0)
    p = max(interval.p, 1 - _level_of(half_width, abs(interval.mean)))
    low, high = max(-1.0, interval.mean - half), min(1.0, interval.mean + half)
    return interval.model_copy(update={"low": low, "high": high, "p": p}), spread


def _level_of(half_width: Callable[[float], float], distance: float) -> float:
    """Return the confidence level whose interval just reaches zero, by bisection."""
    low, high = 0.0, 1.0 - 1e-12
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if half_width(middle) < distance else (low, middle)
    return low
