"""How good a check is, with exact intervals, and what a share that it measured is worth after its own errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_NUM_DRAWS = 2000
_MOST_UNDEFINED = 0.05  # of the draws; above, an interval would hide where the correction breaks down


@dataclass(frozen=True)
class Rate:
    """``num`` of ``total``, with its interval."""

    num: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Return num / total; nan of nothing."""
        return self.num / self.total if self.total else float("nan")


def rate(flags: Iterable[bool], level: float = 0.95) -> Rate:
    """Return the share of flags that are set, with the exact binomial interval (Clopper & Pearson 1934).

    Exact for independent items; items from one document resemble each other, so the truth may lie a little wider.
    """
    from scipy.stats import beta

    given = list(flags)
    num, total, tail = sum(given), len(given), (1 - level) / 2
    low = float(beta.ppf(tail, num, total - num + 1)) if num else 0.0
    high = float(beta.ppf(1 - tail, num + 1, total - num)) if num < total else 1.0
    return Rate(num, total, low, high)


@dataclass(frozen=True)
class Outcome:
    """One item of known truth: its cluster, whether it is supported, and whether the check rejected it."""

    cluster: Hashable
    supported: bool
    rejected: bool


@dataclass(frozen=True)
class Estimate:
    """A share with its interval; None where the correction is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Faithfulness:
    """The share of samples that their passages support, after the check's errors: of all, and of those it accepts.

    ``clipped`` tells that the raw estimate lay outside [0, 1]: the samples are rejected less, or more, than the
    check's own errors explain.
    """

    of_all: Estimate
    of_accepted: Estimate
    clipped: bool


def corrected(
    outcomes: Sequence[Outcome], rejected: Sequence[tuple[Hashable, bool]], seed: int = 0, level: float = 0.95
) -> Faithfulness | None:
    """Return the faithfulness of samples behind a check with known errors, or None where that is undefined.

    Unsupported samples are what the check looks for: with q the share that it rejects, their true share is
    p = (q + spec - 1) / (sens + spec - 1) (Rogan & Gladen 1978), clipped to [0, 1], and faithfulness is 1 - p. Of those
    accepted it is spec (1 - p) / (spec (1 - p) + (1 - sens) p) by Bayes. The percentile intervals come from drawing
    documents anew, of the labeled items and of the samples alike. A check that is no better than chance,
    sens + spec <= 1, corrects nothing; neither is an interval given when more than 5 % of the draws are like that.

    Args:
        outcomes: the check on items of known truth.
        rejected: cluster and verdict of each sample.
        seed: of the draws.
        level: of the intervals.
    """
    labeled = _counts((o.cluster, (o.supported, o.supported and not o.rejected, not o.supported,
                                    not o.supported and o.rejected)) for o in outcomes)  # fmt: skip
    measured = _counts((cluster, (True, verdict)) for cluster, verdict in rejected)
    if not len(labeled) or not len(measured) or not labeled.sum(0)[0] or not labeled.sum(0)[2]:
        return None
    point = _faithfulness(labeled.sum(0)[None], measured.sum(0)[None])
    if np.isnan(point).any():
        return None
    generator = np.random.default_rng(seed)
    draws = _faithfulness(_draw(labeled, generator), _draw(measured, generator))
    defined = draws[~np.isnan(draws).any(axis=1)]
    if len(defined) < (1 - _MOST_UNDEFINED) * _NUM_DRAWS:
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(np.clip(defined[:, :2], 0, 1), [tail, 1 - tail], axis=0)
    of_all, of_accepted = (Estimate(float(np.clip(point[0, i], 0, 1)), float(low[i]), float(high[i])) for i in (0, 1))
    return Faithfulness(of_all, of_accepted, clipped=not 0 <= float(point[0, 2]) <= 1)


def _counts(rows: Iterable[tuple[Hashable, tuple[bool, ...]]]) -> Any:
    """Return one row of sums per cluster."""
    sums: dict[Hashable, Any] = defaultdict(int)
    for cluster, flags in rows:
        sums[cluster] = sums[cluster] + np.array(flags, dtype=float)
    return np.array(list(sums.values()))


def _draw(counts: Any, generator: np.random.Generator) -> Any:
    """Return the sums over as many clusters as there are, drawn with replacement, once per draw."""
    num = len(counts)
    return generator.multinomial(num, np.full(num, 1 / num), size=_NUM_DRAWS) @ counts


def _faithfulness(labeled: Any, measured: Any) -> Any:
    """Return rows of: faithfulness of all, of the accepted, and the raw p; nan where undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        spec, sens = labeled[:, 1] / labeled[:, 0], labeled[:, 3] / labeled[:, 2]
        share = measured[:, 1] / measured[:, 0]
        informed = sens + spec - 1
        raw = np.where(informed > 1e-9, (share + spec - 1) / informed, np.nan)
        unsupported = np.clip(raw, 0, 1)
        passing = spec * (1 - unsupported)
        accepted = passing / (passing + (1 - sens) * unsupported)
    # where everything is unsupported and found, nothing is accepted and nothing accepted is wrong
    accepted = np.where(np.isnan(accepted) & ~np.isnan(raw), 1.0, accepted)
    return np.stack([1 - unsupported, accepted, raw], axis=1)
