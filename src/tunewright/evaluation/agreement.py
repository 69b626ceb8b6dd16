"""How far several markers agree beyond chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Literal

Level = Literal["nominal", "ordinal", "interval", "ratio"]
Totals = Mapping[float, float]  # how often each value was given, in units with a pair


def krippendorff_alpha(units: Sequence[Sequence[float]], level: Level) -> float | None:
    """Return Krippendorff's alpha: 1 is full agreement, 0 is chance; None when nothing can be compared.

    1 - observed / expected disagreement, from the matrix of coincidences (Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability"). Markers may have left units out; a unit with a single value says
    nothing and is passed over.

    Args:
        units: for each thing marked, the values that it was given, as numbers; for nominal ones any numbers.
        level: what the numbers mean; it decides how far apart two of them are.
    """
    coincidences: defaultdict[tuple[float, float], float] = defaultdict(float)
    for values in units:
        for pair in permutations(values, 2):
            coincidences[pair] += 1 / (len(values) - 1)
    totals: defaultdict[float, float] = defaultdict(float)
    for (value, _), weight in coincidences.items():
        totals[value] += weight
    apart = _DISTANCES[level]
    num = math.fsum(totals.values())
    expected = math.fsum(totals[one] * totals[other] * apart(one, other, totals) for one in totals for other in totals)
    if not expected:
        return None
    observed = math.fsum(weight * apart(*pair, totals) for pair, weight in coincidences.items())
    return 1 - (num - 1) * observed / expected


def _ordinal(one: float, other: float, totals: Totals) -> float:
    """Values given in between, with half of the two themselves, squared."""
    low, high = sorted((one, other))
    between = math.fsum(count for value, count in totals.items() if low <= value <= high)
    return (between - (totals[one] + totals[other]) / 2) ** 2


def _ratio(one: float, other: float, totals: Totals) -> float:
    return ((one - other) / (one + other)) ** 2 if one != other else 0.0


_DISTANCES: dict[Level, Callable[[float, float, Totals], float]] = {
    "nominal": lambda one, other, totals: float(one != other),
    "ordinal": _ordinal,
    "interval": lambda one, other, totals: (one - other) ** 2,
    "ratio": _ratio,
}
