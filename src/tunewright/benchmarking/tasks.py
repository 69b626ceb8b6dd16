"""What can be asked: lm-eval's tasks by name, YAML and JSONL files offline, and the bundled environment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.benchmarking import database, harness
from tunewright.errors import UserError
from tunewright.recipe import at_home
from tunewright.records import digest

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
    if name == database.NAME:
        return BenchmarkTask(name, database.content(), database.play)
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
