"""Agreement of several markers beyond chance, shares with exact intervals, and strengths from paired comparisons."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

from tunewright.records import Record
from tunewright.statistics.power import t_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

STOP = 20.0  # with no preference, at most 1 of 20 markings ever reaches this e-value


class ExactShare(Record):
    """A count out of a total, with its exact interval; of a total of 0 the interval is [0, 1]."""

    num: int
    of: int
    share: float | None
    low: float
    high: float


def exact_share(num: int, of: int, level: float = 0.95) -> ExactShare:
    """Return the share with its exact binomial interval (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(num, of - num + 1, tail)) if num else 0.0
    high = float(betaincinv(num + 1, of - num, 1 - tail)) if num < of else 1.0
    return ExactShare(num=num, of=of, share=num / of if of else None, low=low, high=high)


def e_value(wins: int, losses: int) -> float:
    """Return the evidence against "either side wins with chance one half", valid however often it is computed.

    The likelihood of the marks with the win rate spread evenly over [0, 1], against one half:
    2^n / ((n + 1) * C(n, wins)). It is a bet at fair odds on every mark, on the win rate so far (Laplace's rule), so
    that with no preference it ever reaches 20 with a chance of at most 1/20 (Ville 1939; Ramdas et al. 2023). Marks
    must be independent of each other: one per document.
    """
    num = wins + losses
    log = num * math.log(2) - math.log(num + 1) - math.lgamma(num + 1) + math.lgamma(wins + 1) + math.lgamma(losses + 1)
    return math.exp(min(log, 700.0))


Level = Literal["nominal", "ordinal", "interval", "ratio"]
Totals = Mapping[float, float]  # value → how often it was given, in units with two values or more


def krippendorff_alpha(units: Sequence[Sequence[float]], level: Level) -> float | None:
    """Return Krippendorff's alpha: 1 is full agreement, 0 is chance; None when nothing can be compared.

    1 - observed / expected disagreement, from the matrix of coincidences (Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability"). Markers may leave units out; a unit with a single value is
    skipped.

    Args:
        units: for each unit, the values that markers gave it; nominal values as any numbers.
        level: the level of measurement, which defines the distance of two values.
    """
    coincidences: defaultdict[tuple[float, float], float] = defaultdict(float)
    for values in units:
        for pair in permutations(values, 2):
            coincidences[pair] += 1 / (len(values) - 1)
    totals: defaultdict[float, float] = defaultdict(float)
    for (value, _), weight in coincidences.items():
        totals[value] += weight
    distance = _DISTANCES[level]
    num = math.fsum(totals.values())
    expected = math.fsum(totals[a] * totals[b] * distance(a, b, totals) for a in totals for b in totals)
    if not expected:
        return None
    observed = math.fsum(weight * distance(*pair, totals) for pair, weight in coincidences.items())
    return 1 - (num - 1) * observed / expected


def _ordinal(first: float, second: float, totals: Totals) -> float:
    """Return the squared number of values between the two, which themselves count half."""
    low, high = sorted((first, second))
    between = math.fsum(count for value, count in totals.items() if low <= value <= high)
    return (between - (totals[first] + totals[second]) / 2) ** 2


def _ratio(first: float, second: float, totals: Totals) -> float:
    return ((first - second) / (first + second)) ** 2 if first != second else 0.0


_DISTANCES: dict[Level, Callable[[float, float, Totals], float]] = {
    "nominal": lambda first, second, totals: float(first != second),
    "ordinal": _ordinal,
    "interval": lambda first, second, totals: (first - second) ** 2,
    "ratio": _ratio,
}


_TOLERANCE = 1e-12
_MOST_ROUNDS = 100_000


class Game(Record):
    """One comparison of two arms: ``share`` is 1 where the first won, 0 where the second did, 1/2 for a tie."""

    first: str
    second: str
    share: float
    cluster: str


class Strength(Record):
    """A player's log strength, centered on 0 over all players, with its interval and number of games."""

    name: str
    value: float
    low: float
    high: float
    num: int


def bradley_terry(games: Sequence[Game], level: float = 0.95) -> list[Strength] | str:
    """Return the players' strengths, strongest first, or the reason why these games define none.

    Maximum likelihood by the MM algorithm of Hunter (2004, Annals of Statistics 32:384, equation 3); a tie is half a
    win for each. Strengths exist where no group of players never lost a game to the others (Hunter's
    assumption 1). The intervals are of the sandwich kind, clustered by document as the verdict's are, with Student's t
    on G - 1 degrees of freedom.
    """
    import numpy as np

    names = sorted({name for game in games for name in (game.first, game.second)})
    if len(names) < 2:
        return "there are no marks of two different arms"
    index = {name: number for number, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for game in games:
        wins[index[game.first], index[game.second]] += game.share
        wins[index[game.second], index[game.first]] += 1 - game.share
    if fault := _separable(wins, names):
        return fault
    if len({game.cluster for game in games}) < 2:
        return "all marks are of a single document"
    theta = _most_likely(wins)
    half = t_quantile(level, len({game.cluster for game in games}) - 1) * _errors(games, index, theta)
    played = (wins + wins.T).sum(1)
    strengths = [
        Strength(name=name, value=value, low=value - half[n], high=value + half[n], num=round(played[n]))
        for n, (name, value) in enumerate(zip(names, theta.tolist(), strict=True))
    ]
    return sorted(strengths, key=lambda strength: -strength.value)


def _separable(wins: NDArray[Any], names: Sequence[str]) -> str:
    """Return why the players do not fit on one scale, or an empty string."""
    from scipy.sparse.csgraph import connected_components

    num_parts, _ = connected_components(wins + wins.T, directed=False)
    if num_parts > 1:
        return "the marks fall into groups that were never compared with each other"
    groups, label = connected_components(wins > 0, directed=True, connection="strong")
    if groups == 1:
        return ""
    # At least one of the groups lost to no other: its strength has no upper bound.
    for group in range(groups):
        own = label == group
        if not wins[~own][:, own].any():
            winners = ", ".join(name for name, inside in zip(names, own, strict=True) if inside)
            return f"{winners} never lost to the others: no finite strength fits"
    return "no finite strengths fit"


def _most_likely(wins: NDArray[Any]) -> NDArray[Any]:
    """Return the most likely log strengths, centered on 0; ``wins``: [player, opponent]."""
    import numpy as np

    games, won = wins + wins.T, wins.sum(1)
    gamma = np.ones(len(won))
    for _ in range(_MOST_ROUNDS):
        after = won / (games / (gamma[:, None] + gamma[None, :])).sum(1)
        after /= math.exp(np.log(after).mean())
        moved = np.abs(np.log(after / gamma)).max()
        gamma = after
        if moved < _TOLERANCE:
            break
    return np.log(gamma)


def _errors(games: Sequence[Game], index: dict[str, int], theta: NDArray[Any]) -> NDArray[Any]:
    """Return the cluster-robust standard error of each centered log strength."""
    import numpy as np

    information = np.zeros((len(theta), len(theta)))
    scores: dict[str, NDArray[Any]] = {}
    for game in games:
        direction = np.zeros(len(theta))
        direction[index[game.first]], direction[index[game.second]] = 1, -1
        chance = 1 / (1 + math.exp(-float(direction @ theta)))
        information += chance * (1 - chance) * np.outer(direction, direction)
        scores[game.cluster] = scores.get(game.cluster, 0) + (game.share - chance) * direction
    inverse = np.linalg.pinv(information, hermitian=True)
    count = len(scores)
    middle = sum(np.outer(score, score) for score in scores.values()) * count / (count - 1)
    errors: NDArray[Any] = np.sqrt(np.diag(inverse @ middle @ inverse))
    return errors
