"""How often intervals of shares and of paired differences hold the truth, near the ends and in the middle.

    python benchmarks/interval_coverage.py [--runs 2000] [--seed 0]

Answers are right or wrong. Of a share, the probability of a document is drawn from a beta distribution with the given
mean and intraclass correlation. Of a difference, both arms are drawn so, each for itself. The intervals are the
project's own ``mean_interval`` and ``difference_interval``. Truths near the ends with few questions give few possible
results, so that no interval can be exact there: too high a coverage is recorded, and only too low a coverage fails.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.statistics.intervals import Interval, difference_interval, mean_interval

RESULTS = Path(__file__).parent / "results" / "interval_coverage.json"
SHARES = (0.02, 0.5, 0.98)
DIFFERENCES = ((0.98, 0.02), (0.9, 0.1), (0.5, 0.02), (0.5, 0.5), (0.02, 0.02))  # true shares of two arms
CLUSTERS, PER_CLUSTER, ICCS = (10, 20, 30), (3, 10), (0.0, 0.1, 0.3)
LOW, HIGH = 93.0, 97.0


def draw(share: float, clusters: int, size: int, icc: float, random: np.random.Generator) -> np.ndarray:
    """Return right (1) or wrong (0) by cluster and question."""
    spread = (1 - icc) / icc if icc else 0.0
    own = random.beta(share * spread, (1 - share) * spread, clusters) if icc else np.full(clusters, share)
    return (random.random((clusters, size)) < own[:, None]).astype(float)


def coverage(truth: tuple[float, ...], shape: tuple[int, int, float], runs: int, seed: int) -> dict[str, Any]:
    """Return the percentage of intervals that hold the truth: a share, or the difference of two."""
    random, (clusters, size, icc) = np.random.default_rng(seed), shape
    documents = np.repeat(np.arange(clusters), size).tolist()
    value = truth[0] - sum(truth[1:])
    seen: dict[bytes, Interval] = {}
    held = left = 0
    for _ in range(runs):
        arms = [draw(share, clusters, size, icc, random) for share in truth]
        scores = arms[0] - sum(arms[1:])
        key = np.sort(np.sort(scores, axis=1).sum(axis=1)).tobytes()  # the interval depends on the documents' sums
        if key not in seen:
            seen[key] = (mean_interval if len(truth) == 1 else difference_interval)(scores.ravel().tolist(), documents)
        interval = seen[key]
        held += interval.low - 1e-9 <= value <= interval.high + 1e-9
        left += not (len(truth) - 1) * -1 <= interval.low <= interval.high <= 1
    percent = round(100 * held / runs, 2)
    return {
        "true_shares": truth,
        "clusters": clusters,
        "questions_per_cluster": size,
        "icc": icc,
        "coverage_percent": percent,
        "left_the_range": left,
        "within_the_bar": LOW <= percent <= HIGH,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    truths: list[tuple[float, ...]] = [*((share,) for share in SHARES), *DIFFERENCES]
    rows = [
        coverage(truth, shape, options.runs, options.seed)
        for truth in truths
        for shape in itertools.product(CLUSTERS, PER_CLUSTER, ICCS)
    ]
    record = {
        "runs_of_each": options.runs,
        "seed": options.seed,
        "bar_percent": [LOW, HIGH],
        "within_the_bar": sum(row["within_the_bar"] for row in rows),
        "too_low": sum(row["coverage_percent"] < LOW for row in rows),
        "too_high": sum(row["coverage_percent"] > HIGH for row in rows),
        "lowest_percent": min(row["coverage_percent"] for row in rows),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print({name: value for name, value in record.items() if name != "rows"})
    for row in rows:
        if row["coverage_percent"] < LOW:
            print(row)


if __name__ == "__main__":
    main()
