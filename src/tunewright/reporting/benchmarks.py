"""Results of public benchmarks, as the report and the terminal show them."""

from __future__ import annotations

from tunewright.records import Record
from tunewright.run_folder import RunFile
from tunewright.statistics.intervals import Interval, number, signed, spread

RESULTS = RunFile.BENCHMARKS


class BenchmarkResult(Record):
    """One metric of one task: both means, and tuned minus base item by item."""

    task: str
    metric: str
    base: float
    tuned: float
    difference: Interval


class BenchmarkResults(Record):
    """The content of benchmarks.json.

    At most ``limit`` items of each task (0: all), after ``shots`` worked examples (None: as the task says).

    ``adapter`` is the digest of the adapter that played.
    """

    limit: int
    shots: int | None
    adapter: str = ""
    results: tuple[BenchmarkResult, ...]


def extent_told(results: BenchmarkResults) -> str:
    """Return how much was asked, in words."""
    items = f"at most {results.limit:,} items of each task" if results.limit else "all items"
    return items if results.shots is None else f"{items}, {results.shots} worked examples before each"


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
