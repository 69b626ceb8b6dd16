"""How often the e-value of the marks stops: falsely with no preference, and rightly with one; looked at after every mark.

    python benchmarks/e_value.py

Besides: what looking at a p-value after every mark would do, and what counting every mark of a document would do where
marks of one document go together (its win rate is drawn from Beta(1/2, 1/2): one half on average).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tunewright.annotation.summary import evidence
from tunewright.records import Mark
from tunewright.statistics.agreement import STOP, e_value
from tunewright.statistics.intervals import mcnemar_exact

RESULTS = Path(__file__).parent / "results" / "e_value.json"
RUNS, LONGEST = 100_000, 300
ARMS = ("base", "tuned")


def stops(marks: np.ndarray, bar: Callable[[int, int], bool]) -> np.ndarray:
    """Return, per row of 0/1 marks, the first number of marks at which the bar is reached; 0 is never."""
    num = marks.shape[1]
    table = np.zeros((num, num + 1), dtype=bool)
    for n in range(1, num + 1):
        table[n - 1, : n + 1] = [bar(wins, n - wins) for wins in range(n + 1)]
    reached = table[np.arange(num), marks.cumsum(axis=1)]
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, 0)


def share_by(stopped: np.ndarray, num: int) -> float:
    return round(float(((stopped > 0) & (stopped <= num)).mean()), 4)


def by_e_value(wins: int, losses: int) -> bool:
    return e_value(wins, losses) >= STOP


def by_p_value(wins: int, losses: int) -> bool:
    return mcnemar_exact(wins, losses) < 0.05


def clustered(draw: np.random.Generator, runs: int = 2_000, documents: int = 20, each: int = 10) -> dict[str, float]:
    """No preference on average, but one per document: stops with all marks, and with one per document as we count."""
    rates = draw.beta(0.5, 0.5, size=(runs, documents))
    marks = (draw.random((runs, each, documents)) < rates[:, None, :]).astype(int)
    every = stops(marks.reshape(runs, -1), by_e_value)
    ours = 0
    for rounds in marks:
        given = [
            Mark(question=f"{k} {d}", document=str(d), marker="m", choice="better", winner=ARMS[won])
            for k, row in enumerate(rounds)
            for d, won in enumerate(row)
        ]
        # Looked at after every mark; after the first round nothing is added, which the last look shows.
        looks = [*range(8, documents + 1), len(given)]
        ours += any(evidence(given[:num], ARMS).stop for num in looks)
    return {"runs": runs, "every_mark": round(float((every > 0).mean()), 4), "one_per_document": round(ours / runs, 4)}


def main() -> None:
    draw = np.random.default_rng(2026)
    fair = draw.integers(0, 2, size=(RUNS, LONGEST), dtype=np.int16)
    none, peeking = stops(fair, by_e_value), stops(fair[:, :100], by_p_value)
    results: dict[str, object] = {
        "runs": RUNS,
        "stop_at": STOP,
        "unanimous_marks_needed": next(n for n in range(1, 99) if by_e_value(n, 0)),
        "no_preference": {f"false_stops_by_{n}": share_by(none, n) for n in (30, 100, LONGEST)},
        "no_preference_p_below_0.05_at_any_mark": {f"false_stops_by_{n}": share_by(peeking, n) for n in (30, 100)},
    }
    for rate in (0.6, 0.7, 0.8, 0.9):
        when = stops((draw.random((RUNS, LONGEST)) < rate).astype(np.int16), by_e_value)
        median = float(np.median(np.where(when > 0, when, LONGEST + 1)))
        stopped = {f"stopped_by_{n}": share_by(when, n) for n in (10, 30, 100)}
        early = float(np.median(when[(when > 0) & (when <= 30)]))
        results[f"win_rate_{rate}"] = {**stopped, "median_stop": median, "median_of_those_stopped_by_30": early}
    results["documents_that_go_together"] = clustered(draw)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
