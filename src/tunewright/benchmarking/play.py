"""`tunewright benchmark`: base and tuned play each task on one loaded model; what was played is never played twice."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from tunewright import console
from tunewright.benchmarking.tasks import BenchmarkTask, Extent, Values, find_task
from tunewright.durable import file_digest
from tunewright.errors import command
from tunewright.evaluation.benchmark_results import (
    RESULTS,
    BenchmarkResult,
    BenchmarkResults,
    benchmark_table,
    extent_told,
)
from tunewright.evaluation.measured import BASE, TUNED
from tunewright.evaluation.statistics import paired
from tunewright.evaluation.weights import Memory, Weights
from tunewright.pipeline import require
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import digest
from tunewright.rundir import RunFolder

JOURNAL = "benchmarks-journal.jsonl"


def benchmark(run: RunFolder, names: Sequence[str], extent: Extent) -> BenchmarkResults:
    """Play the tasks on base and tuned; write benchmarks.json, print a table with paired differences.

    Raises:
        UserError: a task is unknown or cannot be played; what was played before is kept.
        RunFolderError: the run has no adapter yet.
    """
    require(run, "recipe.toml", "adapter")
    recipe = load_recipe(run.file("recipe.toml"))
    tasks = [find_task(name) for name in dict.fromkeys(names)]
    with run.lock():
        played = _play_all(run, recipe, tasks, extent)
        results = BenchmarkResults(
            limit=extent.limit,
            shots=extent.shots,
            adapter=file_digest(run.file("adapter")),
            results=tuple(
                row for task in tasks for row in compare_values(task.name, played[BASE, task], played[TUNED, task])
            ),
        )
        results = _with_earlier(run, results)
        run.write(RESULTS, results.model_dump_json(indent=2) + "\n")
    console.table(extent_told(results), *benchmark_table(results))
    console.line(f"all figures: {run.file(RESULTS).absolute()}; in the report: {command('report', run.path)}")
    return results


def _with_earlier(run: RunFolder, new: BenchmarkResults) -> BenchmarkResults:
    """Return the new results and the earlier ones of other tasks, if of the same adapter and to the same extent."""
    if not run.file(RESULTS).is_file():
        return new
    old = BenchmarkResults.model_validate(run.read_json(RESULTS))
    if (old.limit, old.shots, old.adapter) != (new.limit, new.shots, new.adapter):
        return new
    played = {row.task for row in new.results}
    return new.model_copy(update={"results": (*(r for r in old.results if r.task not in played), *new.results)})


def _play_all(
    run: RunFolder, recipe: Recipe, tasks: Sequence[BenchmarkTask], extent: Extent
) -> dict[tuple[str, BenchmarkTask], Values]:
    """Return each arm's values of each task: from the journal, else played now, task by task."""
    journal = run.journal(JOURNAL)
    known = {entry["key"]: entry["values"] for entry in journal.entries}
    weights = {BASE: Weights.of(recipe), TUNED: Weights.of(recipe, run.file("adapter"))}
    keys = {
        (arm, task): digest(weights[arm].identity, task.content, extent.limit, extent.shots)
        for arm in weights
        for task in tasks
    }
    missing = [pair for pair, key in keys.items() if key not in known]
    memory = Memory()
    for arm, task in missing:  # base first: a full tune takes its place in memory
        console.line(f"{arm} plays {task.name}")
        start = time.monotonic()
        with memory.holding(weights[arm]) as model:
            values = task.play(model, memory.tokenizer(weights[arm]), extent)
        known[keys[arm, task]] = values
        seconds = round(time.monotonic() - start, 2)
        journal.append({"key": keys[arm, task], "task": task.name, "arm": arm, "seconds": seconds, "values": values})
    return {pair: known[key] for pair, key in keys.items()}


def compare_values(task: str, base: Values, tuned: Values) -> list[BenchmarkResult]:
    """Return one row per metric: both means and the paired difference; a group's tasks are its clusters.

    lm-eval compares two runs as if their items were different ones; they are the same, so each is its own control.
    """
    rows = []
    for metric in base:
        items = sorted(base[metric].keys() & tuned.get(metric, {}).keys())
        if not items:
            continue
        groups = [item.rpartition("/")[0] for item in items]
        clusters = groups if len(set(groups)) > 1 else items
        differences = [tuned[metric][item] - base[metric][item] for item in items]
        rows.append(
            BenchmarkResult(
                task=task,
                metric=metric,
                base=math.fsum(base[metric][item] for item in items) / len(items),
                tuned=math.fsum(tuned[metric][item] for item in items) / len(items),
                difference=paired(differences, clusters),
            )
        )
    return rows
