"""Benchmark tasks: lm-eval's by name, YAML and JSONL files, and the bundled agent environment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.errors import UserError, reading
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.public_benchmarks import agent_database, harness
from tunewright.recipe import at_home
from tunewright.records import digest
from tunewright.reporting.benchmarks import BenchmarkResult
from tunewright.run_folder import Journal
from tunewright.settings import Arm
from tunewright.statistics.intervals import paired
from tunewright.text.choice_rows import RowFault, first_index, options_of, right_option
from tunewright.text.rows import Row, file_rows, folded, listed_faults
from tunewright.text.tables import TABLES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# metric → item → value; for one model with its tokenizer
Values = dict[str, dict[str, float]]
_FORMS = '{"question": ..., "options": [...], "right": 0} or {"question": ..., "answer": ...}'
_ANSWER_TOKENS = 64
_OWN_FILES = frozenset({".jsonl", ".json", *TABLES})


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
    if path.suffix.lower() in _OWN_FILES:
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

    The right option may also be named as MMLU and ARC do: by a letter, a label, an index, or its text.

    Raises:
        UserError: the file cannot be read, or rows have neither form; all of them are named.
    """
    with reading("benchmark", path, f"one JSON object per line: {_FORMS}"):
        read = list(file_rows(path))
    first = first_index([folded(row) for row in read])
    rows: list[dict[str, Any]] = []
    faults: list[tuple[Row, str]] = []
    for row in read:
        try:
            question = _with_right_option(row, first)
            if rows and _is_choice(question) != _is_choice(rows[0]):
                raise RowFault("has another form than the first row")
            rows.append(question)
        except RowFault as fault:
            faults.append((row, str(fault)))
    if faults:
        headline = f"{len(faults)} of {len(read)} {read[0].unit}s of {path} cannot be played"
        raise UserError(headline, "\n  ".join(listed_faults(faults)), f"each row the same: {_FORMS}")
    if not rows:
        raise UserError(f"{path} holds no question", "", f"one JSON object per line: {_FORMS}")
    return rows


def _with_right_option(row: Row, first: int | None) -> dict[str, Any]:
    """Return the question of a row; of one with options in another form, with ``options`` and ``right``."""
    if row.fault:
        raise RowFault(f"not JSON: {row.fault}" if row.unit == "line" else row.fault)
    content: Any = folded(row).content
    if not isinstance(content, dict) or not isinstance(content.get("question"), str):
        raise RowFault("has another form")
    if _is_choice(content):
        return dict(content)
    options, labels = options_of(content)
    if options:
        right = right_option(content, options, labels, first)
        return {"question": content["question"], "options": options, "right": right}
    if not _is_open(content):
        raise RowFault("has another form")
    return dict(content)


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
