"""The ratio of two paired mean differences, with Fieller's interval over clusters."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from tunewright.records import Record
from tunewright.statistics.power import t_quantile


class Ratio(Record):
    """A ratio with its confidence interval; all None where the denominator is not shown to be above zero."""

    value: float | None
    low: float | None
    high: float | None


def ratio_of_means(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[Hashable], level: float = 0.95
) -> Ratio:
    """Return mean(numerators) / mean(denominators) with Fieller's (1954) interval, clustered.

    The interval holds each ratio r for which the mean of numerator - r * denominator is within t standard errors of
    zero, on G - 1 degrees of freedom, the errors cluster-robust (CR1) as in ``intervals.standard_error``. Where the
    denominator's own interval reaches zero, that set has no bounds: then nothing is returned, and there is nothing to
    recover. The bounds may leave [0, 1].

    Args:
        numerators: one per question.
        denominators: of the same questions.
        clusters: the document of each question.
        level: confidence level of the interval.

    Raises:
        ValueError: the lists differ in length or are empty.
    """
    if not numerators or not len(numerators) == len(denominators) == len(clusters):
        raise ValueError(f"{len(numerators)} over {len(denominators)} values with {len(clusters)} clusters")
    num, groups = len(numerators), len(set(clusters))
    nothing = Ratio(value=None, low=None, high=None)
    above, below = math.fsum(numerators) / num, math.fsum(denominators) / num
    if groups < 2 or below <= 0:
        return nothing
    sums: dict[Hashable, tuple[float, float]] = {}
    for first, second, cluster in zip(numerators, denominators, clusters, strict=True):
        upper, lower = sums.get(cluster, (0.0, 0.0))
        sums[cluster] = upper + first - above, lower + second - below
    factor = groups / (groups - 1) / num**2 * t_quantile(level, groups - 1) ** 2
    var_above = factor * math.fsum(a * a for a, _ in sums.values())
    var_below = factor * math.fsum(b * b for _, b in sums.values())
    both = factor * math.fsum(a * b for a, b in sums.values())
    # (below² - var_below) r² - 2 (above · below - both) r + (above² - var_above) <= 0
    square, middle, rest = below**2 - var_below, above * below - both, above**2 - var_above
    if square <= 0:
        return nothing
    half = math.sqrt(max(0.0, middle**2 - square * rest))
    return Ratio(value=above / below, low=(middle - half) / square, high=(middle + half) / square)
