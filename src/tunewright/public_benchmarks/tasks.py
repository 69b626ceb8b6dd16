"""Benchmark tasks: lm-eval's by name, YAML and JSONL files, and the bundled agent environment."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.errors import UserError
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.public_benchmarks import agent_database, harness
from tunewright.recipe import at_home
from tunewright.records import digest
from tunewright.reporting.benchmarks import BenchmarkResult
from tunewright.run_folder import Journal
from tunewright.settings import Arm
from tunewright.statistics.intervals import paired

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# metric → item → value; for one model with its tokenizer
Values = dict[str, dict[str, float]]
_FORMS = '{"question": ..., "options": [...], "right": 0} or {"question": ..., "answer": ...}'
_ANSWER_TOKENS = 64


@dataclass(frozen=True)
class Extent:
    """How much of a task is played: the most items (0: all), and worked examples before each (None: the task's own)."""

    limit: int = 0
    shots: int | None = None


@dataclass(frozen=True)
class BenchmarkTask:
    """A task.

    Attributes:
        name: the task's, or a file's stem.
        content: identifies the task's content in the journal.
        play: (model, tokenizer, extent) → the values by metric and item.
    """

    name: str
    content: str
    play: Callable[[PreTrainedModel, PreTrainedTokenizerBase, Extent], Values]


def find_task(name: str) -> BenchmarkTask:
    """Return the task of this name or file.

    Raises:
        UserError: the file is missing or has another form, or lm-eval, which most tasks need, is not installed.
    """
    if name == agent_database.NAME:
        return BenchmarkTask(name, agent_database.content_digest(), _play_agent_database)
    path = at_home(name)
    if path.suffix == ".jsonl":
        rows = _rows(path)
        return _through_harness(path.stem, digest(rows), lambda: _config(path.stem, rows))
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(
                f"{path} is not a task",
                "it does not exist or has another extension",
                "name a YAML task of lm-eval, a .jsonl file, or a task",
            )
        return _through_harness(path.stem, harness.yaml_content(path), lambda: harness.read_yaml(path))
    return _through_harness(name, name, lambda: harness.public_task(name))


def _play_agent_database(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, extent: Extent) -> Values:
    return agent_database.play(model, tokenizer, extent.limit)


def _through_harness(name: str, content: str, load: Callable[[], Any]) -> BenchmarkTask:
    version = harness.installed_version()

    def play(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, extent: Extent) -> Values:
        return harness.play(load(), model, tokenizer, extent.limit, extent.shots)

    return BenchmarkTask(name, f"lm-eval {version} {content}", play)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return a file's questions: all with options, or all with an answer.

    Raises:
        UserError: the file cannot be read, or a line has neither form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}", str(error), "give a UTF-8 file with one JSON object per line") from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{path} line {number} is not JSON", str(error), f"write one JSON object per line: {_FORMS}"
            ) from error
        if not _is_choice(row) and not _is_open(row) or rows and _is_choice(row) != _is_choice(rows[0]):
            raise UserError(f"{path} line {number} has another form", "", f"each line the same: {_FORMS}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} holds no question", "", f"one JSON object per line: {_FORMS}")
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
    common["custom_dataset"] = harness.dataset_loader(rows)  # type: ignore[assignment]
    if _is_choice(rows[0]):
        metrics = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
        metrics += [{**metrics[0], "metric": "acc_norm"}]
        choices = {"doc_to_choice": "{{options}}", "doc_to_target": "{{right}}"}
        return {**common, **choices, "output_type": "multiple_choice", "metric_list": metrics}
    # lm-eval counts " 3" and "3" as different unless white space is removed first.
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


def play_all(
    tasks: Sequence[BenchmarkTask], weights: Mapping[Arm, ModelWeights], extent: Extent, journal: Journal
) -> dict[tuple[Arm, BenchmarkTask], Values]:
    """Return each arm's values of each task: from the journal, else computed now, task by task.

    Args:
        tasks: what to play.
        weights: of each arm; the base comes first, since a full tune replaces it in memory.
        extent: how much of each task.
        journal: holds earlier results, and gets new ones.
    """
    recorded = {entry["key"]: entry["values"] for entry in journal.entries}
    keys = {
        (arm, task): digest(weights[arm].identity, task.content, extent.limit, extent.shots)
        for arm in weights
        for task in tasks
    }
    missing = [pair for pair, key in keys.items() if key not in recorded]
    memory = ModelPool()
    for arm, task in missing:
        console.line(f"{arm} plays {task.name}")
        start = time.monotonic()
        with memory.holding(weights[arm]) as model:
            values = task.play(model, memory.tokenizer(weights[arm]), extent)
        recorded[keys[arm, task]] = values
        seconds = round(time.monotonic() - start, 2)
        journal.append({"key": keys[arm, task], "task": task.name, "arm": arm, "seconds": seconds, "values": values})
    return {pair: recorded[key] for pair, key in keys.items()}


def compare_values(task: str, base: Values, tuned: Values) -> list[BenchmarkResult]:
    """Return a row per metric: both means and the paired difference; a group's tasks are its clusters.

    lm-eval compares two runs as if their items differed; they are the same, so the comparison is paired.
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
