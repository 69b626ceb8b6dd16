"""Results of public benchmarks, as the report and the terminal show them."""

from __future__ import annotations

from tunewright.evaluation.statistics import Interval
from tunewright.evaluation.wording import number, signed, spread
from tunewright.records import Record

RESULTS = "benchmarks.json"


class BenchmarkResult(Record):
    """One metric of one task: both means, and tuned minus base item by item."""

    task: str
    metric: str
    base: float
    tuned: float
    difference: Interval


class BenchmarkResults(Record):
    """The content of benchmarks.json; ``limit`` items of each task at most (0: all), after ``shots`` examples.

    ``adapter`` is the digest of the adapter that played.
    """

    limit: int
    shots: int
    adapter: str = ""
    results: tuple[BenchmarkResult, ...]


def benchmark_table(results: BenchmarkResults) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows, a metric a row."""
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
