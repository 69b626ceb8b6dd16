"""Results of public benchmarks, and their table for the report and the terminal."""

from __future__ import annotations

from tunewright.records import Record
from tunewright.statistics.intervals import Interval, number, signed, spread


class BenchmarkResult(Record):
    """One metric of one task: both means, and the paired difference tuned minus base over the items."""

    task: str
    metric: str
    base: float
    tuned: float
    difference: Interval


class BenchmarkResults(Record):
    """The content of benchmarks.json.

    At most ``limit`` items of each task (0: all), after ``shots`` worked examples (None: the task's own number).
    ``adapter`` is the digest of the tuned adapter.
    """

    limit: int
    shots: int | None
    adapter: str = ""
    results: tuple[BenchmarkResult, ...]


def extent_label(results: BenchmarkResults) -> str:
    """Return how many items and worked examples were used, as text."""
    items = f"at most {results.limit:,} items of each task" if results.limit else "all items"
    return items if results.shots is None else f"{items}, {results.shots} worked examples before each"


def benchmark_table(results: BenchmarkResults) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows, one row per metric."""
    columns = ["task", "metric", "items", "base", "tuned", "tuned − base", "95% interval"]
    return columns, [
        [
            row.task,
            row.metric,
            f"{row.difference.num:,}",
            number(row.base, 3),
            number(row.tuned, 3),
            signed(row.difference.mean, 3),
            spread(row.difference, 3),
        ]
        for row in results.results
    ]
