"""Numbers about human marks: exact intervals, agreement beyond chance, and evidence that may be looked at any time."""

from __future__ import annotations

import math

from tunewright.records import Record

STOP = 20.0  # an e-value that, with no preference, is ever reached in at most 1 of 20 markings


class Share(Record):
    """A count out of a whole, with its exact interval; the interval of nothing is [0, 1]."""

    num: int
    of: int
    share: float | None
    low: float
    high: float


def exact_share(num: int, of: int, level: float = 0.95) -> Share:
    """Return the share with its exact binomial interval (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(num, of - num + 1, tail)) if num else 0.0
    high = float(betaincinv(num + 1, of - num, 1 - tail)) if num < of else 1.0
    return Share(num=num, of=of, share=num / of if of else None, low=low, high=high)


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
