"""The command benchmark: play public tasks on base and tuned, and add the results to the run."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright import console
from tunewright.errors import command
from tunewright.models.model_pool import ModelWeights
from tunewright.pipeline import require
from tunewright.public_benchmarks.tasks import Extent, compare_values, find_task, play_all
from tunewright.recipe import load_recipe
from tunewright.reporting.benchmarks import BenchmarkResults, benchmark_table, extent_label
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.storage import file_digest


def benchmark(run: RunFolder, names: Sequence[str], extent: Extent) -> BenchmarkResults:
    """Play the tasks on base and tuned; write benchmarks.json, print a table with paired differences.

    Raises:
        UserError: a task is unknown or cannot be played; the results of earlier tasks are kept.
        RunFolderError: the run has no adapter yet.
    """
    require(run, RunFile.RECIPE, RunFile.ADAPTER)
    recipe = load_recipe(run.file(RunFile.RECIPE))
    tasks = [find_task(name) for name in dict.fromkeys(names)]
    with run.lock():
        adapter = run.file(RunFile.ADAPTER)
        weights = {Arm.BASE: ModelWeights.of(recipe), Arm.TUNED: ModelWeights.of(recipe, adapter)}
        played = play_all(tasks, weights, extent, run.journal(RunFile.BENCHMARKS_JOURNAL))
        results = BenchmarkResults(
            limit=extent.limit,
            shots=extent.shots,
            adapter=file_digest(adapter),
            results=tuple(
                row
                for task in tasks
                for row in compare_values(task.name, played[Arm.BASE, task], played[Arm.TUNED, task])
            ),
        )
        results = _with_earlier(run, results)
        run.write(RunFile.BENCHMARKS, results.model_dump_json(indent=2) + "\n")
    console.table(extent_label(results), *benchmark_table(results))
    file = run.file(RunFile.BENCHMARKS).absolute()
    console.line(f"all figures: {file}; in the report: {command('report', run.path)}")
    return results


def _with_earlier(run: RunFolder, new: BenchmarkResults) -> BenchmarkResults:
    """Return the new results with earlier ones of other tasks, if adapter and extent are the same."""
    if not run.file(RunFile.BENCHMARKS).is_file():
        return new
    old = run.read_record(RunFile.BENCHMARKS, BenchmarkResults)
    if (old.limit, old.shots, old.adapter) != (new.limit, new.shots, new.adapter):
        return new
    played = {row.task for row in new.results}
    return new.model_copy(update={"results": (*(r for r in old.results if r.task not in played), *new.results)})
