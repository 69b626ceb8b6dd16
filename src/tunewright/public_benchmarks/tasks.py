"""What can be asked: lm-eval's tasks by name, YAML and JSONL files offline, and the bundled environment."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.errors import UserError, command
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.pipeline import require
from tunewright.public_benchmarks import agent_database, harness
from tunewright.recipe import Recipe, at_home, load_recipe
from tunewright.records import digest
from tunewright.reporting.benchmarks import BenchmarkResult, BenchmarkResults, benchmark_table, extent_label
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.statistics.intervals import paired
from tunewright.storage import file_digest

# metric → item → value; for one model with its tokenizer
Values = dict[str, dict[str, float]]
_FORMS = '{"question": ..., "options": [...], "right": 0} or {"question": ..., "answer": ...}'
_ANSWER_TOKENS = 64


@dataclass(frozen=True)
class Extent:
    """How much of a task is asked: items at most (0: all), and worked examples before each (None: the task's own)."""

    limit: int = 0
    shots: int | None = None


@dataclass(frozen=True)
class BenchmarkTask:
    """A task under the name that was asked for.

    Attributes:
        name: as asked, a file by its stem.
        content: names what is asked: what stands in the journal for it.
        play: (model, tokenizer, extent) → the values by metric and item.
    """

    name: str
    content: str
    play: Callable[[Any, Any, Extent], Values]


def find_task(name: str) -> BenchmarkTask:
    """Return the task of this name or file.

    Raises:
        UserError: the file is missing or of no known form, or lm-eval, which most tasks need, is not installed.
    """
    if name == agent_database.NAME:
        return BenchmarkTask(name, agent_database.content(), agent_database.play)
    path = at_home(name)
    if path.suffix == ".jsonl":
        rows = _rows(path)
        return _through_harness(path.stem, digest(rows), lambda: _config(path.stem, rows))
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"there is no task at {path}", "", "name a YAML task of lm-eval, a .jsonl file, or a task")
        return _through_harness(path.stem, harness.yaml_content(path), lambda: harness.read_yaml(path))
    return _through_harness(name, name, lambda: harness.public_task(name))


def _through_harness(name: str, content: str, load: Callable[[], Any]) -> BenchmarkTask:
    version = harness.installed_version()

    def play(model: Any, tokenizer: Any, extent: Extent) -> Values:
        return harness.play(load(), model, tokenizer, extent.limit, extent.shots)

    return BenchmarkTask(name, f"lm-eval {version} {content}", play)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return a file's questions: all with options, or all with an answer.

    Raises:
        UserError: the file cannot be read, or a line is of neither form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}", str(error), "give a UTF-8 file with one JSON object a line") from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path} line {number} is not JSON", str(error), f"each line: {_FORMS}") from error
        if not _is_choice(row) and not _is_open(row) or rows and _is_choice(row) != _is_choice(rows[0]):
            raise UserError(f"{path} line {number} is of another form", "", f"each line alike: {_FORMS}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} holds no question", "", f"one JSON object a line: {_FORMS}")
    return rows


def _is_choice(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        return False
    options, right = row.get("options"), row.get("right")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        return False
    return type(right) is int and 0 <= right < len(options)


def _is_open(row: Any) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("question", "answer"))


def _config(name: str, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Return the lm-eval task for a file's questions."""
    common = {"task": name, "test_split": "test", "fewshot_split": "test", "doc_to_text": "{{question}}"}
    common["custom_dataset"] = harness.held(rows)  # type: ignore[assignment]
    if _is_choice(rows[0]):
        metrics = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
        metrics += [{**metrics[0], "metric": "acc_norm"}]
        told = {"doc_to_choice": "{{options}}", "doc_to_target": "{{right}}"}
        return {**common, **told, "output_type": "multiple_choice", "metric_list": metrics}
    # lm-eval compares " 3" with "3" as unequal, unless blanks are taken off first.
    steps = [{"function": "remove_whitespace"}, {"function": "take_first"}]
    exact = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    return {
        **common,
        "doc_to_target": "{{answer}}",
        "output_type": "generate_until",
        "filter_list": [{"name": "stripped", "filter": steps}],
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": _ANSWER_TOKENS, "do_sample": False},
        "metric_list": [{**exact, "ignore_case": True, "ignore_punctuation": True}],
    }


JOURNAL = RunFile.BENCHMARKS_JOURNAL


def benchmark(run: RunFolder, names: Sequence[str], extent: Extent) -> BenchmarkResults:
    """Play the tasks on base and tuned; write benchmarks.json, print a table with paired differences.

    Raises:
        UserError: a task is unknown or cannot be played; what was played before is kept.
        RunFolderError: the run has no adapter yet.
    """
    require(run, RunFile.RECIPE, RunFile.ADAPTER)
    recipe = load_recipe(run.file(RunFile.RECIPE))
    tasks = [find_task(name) for name in dict.fromkeys(names)]
    with run.lock():
        played = _play_all(run, recipe, tasks, extent)
        results = BenchmarkResults(
            limit=extent.limit,
            shots=extent.shots,
            adapter=file_digest(run.file(RunFile.ADAPTER)),
            results=tuple(
                row
                for task in tasks
                for row in compare_values(task.name, played[Arm.BASE, task], played[Arm.TUNED, task])
            ),
        )
        results = _with_earlier(run, results)
        run.write(RunFile.BENCHMARKS, results.model_dump_json(indent=2) + "\n")
    console.table(extent_label(results), *benchmark_table(results))
    console.line(
        f"all figures: {run.file(RunFile.BENCHMARKS).absolute()}; in the report: {command('report', run.path)}"
    )
    return results


def _with_earlier(run: RunFolder, new: BenchmarkResults) -> BenchmarkResults:
    """Return the new results and the earlier ones of other tasks, if of the same adapter and to the same extent."""
    if not run.file(RunFile.BENCHMARKS).is_file():
        return new
    old = BenchmarkResults.model_validate(run.read_json(RunFile.BENCHMARKS))
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
    weights = {Arm.BASE: ModelWeights.of(recipe), Arm.TUNED: ModelWeights.of(recipe, run.file(RunFile.ADAPTER))}
    keys = {
        (arm, task): digest(weights[arm].identity, task.content, extent.limit, extent.shots)
        for arm in weights
        for task in tasks
    }
    missing = [pair for pair, key in keys.items() if key not in known]
    memory = ModelPool()
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
