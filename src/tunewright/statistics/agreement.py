"""How far several markers agree beyond chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any, Literal

from tunewright.records import Record
from tunewright.statistics.power import t_quantile

STOP = 20.0  # an e-value that, with no preference, is ever reached in at most 1 of 20 markings


class ExactShare(Record):
    """A count out of a whole, with its exact interval; the interval of nothing is [0, 1]."""

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
    """Return the evidence against "either side wins with chance one half", valid however often one looks.

    The likelihood of the marks with the win rate spread evenly over [0, 1], against one half:
    2^n / ((n + 1) * C(n, wins)). It is a bet at fair odds on every mark, on the win rate so far (Laplace's rule), so
    that with no preference it ever reaches 20 with a chance of at most 1/20 (Ville 1939; Ramdas et al. 2023). Marks
    must be independent of each other: one per document.
    """
    num = wins + losses
    log = num * math.log(2) - math.log(num + 1) - math.lgamma(num + 1) + math.lgamma(wins + 1) + math.lgamma(losses + 1)
    return math.exp(min(log, 700.0))


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


_TOLERANCE = 1e-12
_MOST_ROUNDS = 100_000


class Game(Record):
    """One mark of two: ``share`` is 1 where the first won, 0 where the second did, 1/2 for a tie."""

    first: str
    second: str
    share: float
    cluster: str


class Strength(Record):
    """A player's log strength, the mean over all players being 0, with its interval; ``num`` games."""

    name: str
    value: float
    low: float
    high: float
    num: int


def bradley_terry(games: Sequence[Game], level: float = 0.95) -> list[Strength] | str:
    """Return the players' strengths, strongest first, or the reason why these games have none.

    Maximum likelihood by the MM algorithm of Hunter (2004, Annals of Statistics 32:384, equation 3); a tie is half a
    win for each. Strengths exist where nobody can be split off who never lost a game to the others (Hunter's
    assumption 1). The intervals are of the sandwich kind, clustered by document as the verdict's are, with Student's t
    on G - 1 degrees of freedom.
    """
    import numpy as np

    names = sorted({name for game in games for name in (game.first, game.second)})
    if len(names) < 2:
        return "there are no marks of two different arms"
    place = {name: number for number, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for game in games:
        wins[place[game.first], place[game.second]] += game.share
        wins[place[game.second], place[game.first]] += 1 - game.share
    if fault := _separable(wins, names):
        return fault
    if len({game.cluster for game in games}) < 2:
        return "all marks are of a single document"
    theta = _most_likely(wins)
    half = t_quantile(level, len({game.cluster for game in games}) - 1) * _errors(games, place, theta)
    played = (wins + wins.T).sum(1)
    found = [
        Strength(name=name, value=value, low=value - half[n], high=value + half[n], num=round(played[n]))
        for n, (name, value) in enumerate(zip(names, theta.tolist(), strict=True))
    ]
    return sorted(found, key=lambda strength: -strength.value)


def _separable(wins: Any, names: Sequence[str]) -> str:
    """Return who cannot be placed on one scale with the others, or nothing."""
    from scipy.sparse.csgraph import connected_components

    whole, _ = connected_components(wins + wins.T, directed=False)
    if whole > 1:
        return "the marks fall into groups that were never compared with each other"
    groups, label = connected_components(wins > 0, directed=True, connection="strong")
    if groups == 1:
        return ""
    # Of the groups one at least lost to no other: its strength has no upper bound.
    for group in range(groups):
        own = label == group
        if not wins[~own][:, own].any():
            told = ", ".join(name for name, inside in zip(names, own, strict=True) if inside)
            return f"{told} never lost to the others: no finite strength fits"
    return "no finite strengths fit"


def _most_likely(wins: Any) -> Any:
    """Return the log strengths, centered on 0."""
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


def _errors(games: Sequence[Game], place: dict[str, int], theta: Any) -> Any:
    """Return the cluster-robust standard error of each centered log strength."""
    import numpy as np

    information = np.zeros((len(theta), len(theta)))
    scores: dict[str, Any] = {}
    for game in games:
        way = np.zeros(len(theta))
        way[place[game.first]], way[place[game.second]] = 1, -1
        chance = 1 / (1 + math.exp(-float(way @ theta)))
        information += chance * (1 - chance) * np.outer(way, way)
        scores[game.cluster] = scores.get(game.cluster, 0) + (game.share - chance) * way
    inverse = np.linalg.pinv(information, hermitian=True)
    count = len(scores)
    middle = sum(np.outer(score, score) for score in scores.values()) * count / (count - 1)
    return np.sqrt(np.diag(inverse @ middle @ inverse))
