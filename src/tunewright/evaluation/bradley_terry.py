"""Strengths from pairwise marks: the Bradley-Terry model by minorization-maximization, with clustered intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tunewright.power import t_quantile
from tunewright.records import Record

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
