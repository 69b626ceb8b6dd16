"""The bridge to lm-eval: a task on a loaded model, with the values of every item.

lm-eval caches by a model's arguments, which are the same for base and tuned, and so would report the base's scores for
the tuned model. Its cache is not used; the journal keeps results under a digest of the weights (tasks.py).
"""

from __future__ import annotations

import difflib
import importlib.metadata
import math
import numbers
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.errors import TunewrightError, UserError, regular
from tunewright.models.capped_programs import RefusedError
from tunewright.models.chat_template import apply
from tunewright.records import digest
from tunewright.storage import file_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH = {"cpu": 8, "cuda": 32}


def installed_version() -> str:
    """Return lm-eval's version.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "lm-eval is not installed",
            "public tasks and task files need it; agent-database does not",
            "install it: pip install 'tunewright[benchmarks]'",
        ) from error


def dataset_loader(rows: list[dict[str, Any]]) -> Callable[..., Any]:
    """Return the function that lm-eval calls for a task's data; it returns these rows."""

    def load(**_: Any) -> Any:
        from datasets import Dataset

        return {"test": Dataset.from_list(rows)}

    return load


def read_yaml(path: Path) -> Any:
    """Return the task of a YAML file in lm-eval's form.

    Raises:
        UserError: lm-eval cannot read it.
    """
    from lm_eval.tasks import TaskManager

    try:
        manager = TaskManager(include_path=str(path.parent), include_defaults=False)
        for name in manager.all_tasks:
            entry = manager.task_index[name]
            if Path(str(_yaml_path(entry))).resolve() == path.resolve():
                return (manager, name)
    except Exception as error:
        raise UserError(f"lm-eval cannot read {path}", f"{type(error).__name__}: {error}", "fix the task") from error
    raise UserError(f"lm-eval finds no task in {path}", "", "a task needs the key `task` with its name")


def yaml_content(path: Path) -> str:
    """Return a digest of a YAML task: the file, the YAML and Python files beside it, its local data files."""
    parts = [path, *(p for p in path.parent.iterdir() if p.suffix in {".yaml", ".yml", ".py"} and p != path)]
    return digest(*sorted(file_digest(part) for part in {*parts, *_data_files(path)} if part.is_file()))


def _data_files(path: Path) -> list[Path]:
    """Return the data files in the YAML, relative to the current folder as for lm-eval."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Reads lm-eval's tags as None."""

    Loader.add_multi_constructor("!", lambda *_: None)
    try:
        config = yaml.load(regular(path).read_text(encoding="utf-8"), Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, RecursionError, OSError):
        return []  # lm-eval reports the error
    kwargs = config.get("dataset_kwargs") if isinstance(config, dict) else None
    named = kwargs.get("data_files") if isinstance(kwargs, dict) else None
    values = list(named.values()) if isinstance(named, dict) else [named]
    names = [name for value in values for name in (value if isinstance(value, list) else [value])]
    return [Path(name) for name in names if isinstance(name, str) and "://" not in name]


def _yaml_path(entry: Any) -> Any:
    return entry["yaml_path"] if isinstance(entry, Mapping) else getattr(entry, "yaml_path", "")


def public_task(name: str) -> Any:
    """Return one of lm-eval's own tasks or groups: ifeval, mmlu, truthfulqa_mc2, hellaswag and many more.

    Raises:
        UserError: there is none of this name; the error lists similar names.
    """
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    if name not in manager.all_tasks:
        near = difflib.get_close_matches(name, manager.all_tasks, n=3)
        raise UserError(
            f"lm-eval has no task {name!r}",
            f"did you mean {', '.join(near)}?" if near else "",
            "list all: lm_eval ls tasks; the name of your own file ends in .jsonl or .yaml",
        )
    return (manager, name)


def play(
    task: Any, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, limit: int, shots: int | None
) -> dict[str, dict[str, float]]:
    """Return metric → item → value of one task, from the model as it is: with or without its adapter.

    Items of a group's tasks are named TASK/ITEM. The chat template is used where the tokenizer has one. No cache, no
    remote code, no code of the task's that lm-eval calls unsafe.

    Raises:
        UserError: the task's data cannot be fetched, or the task has no values by item.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager, spec = task if isinstance(task, tuple) else (TaskManager(include_defaults=False), task)
    wrapped = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=_BATCH["cpu" if model.device.type == "cpu" else "cuda"],
        device=str(model.device),
    )
    wrapped.apply_chat_template = partial(_written, tokenizer)  # its own would run the template without limits
    try:
        results = simple_evaluate(
            model=wrapped,
            tasks=[spec],
            task_manager=manager,
            num_fewshot=shots,
            limit=limit or None,
            apply_chat_template=bool(tokenizer.chat_template),
            fewshot_as_multiturn=bool(tokenizer.chat_template),
            bootstrap_iters=0,
            log_samples=True,
            verbosity="ERROR",
        )
    except TunewrightError:
        raise
    except Exception as error:
        raise _refused(spec, error) from error
    values = _values(results["samples"] if results else {})
    if not values:
        raise UserError(f"{_name(spec)} gives no values by item", "base and tuned cannot be compared in pairs", "")
    return values


def _written(tokenizer: Any, turns: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """Return a chat as lm-eval writes it: a template that refuses a system turn gets none."""
    options = {} if add_generation_prompt else {"continue_final_message": True}
    try:
        return apply(tokenizer, turns, add_generation_prompt, **options)
    except RefusedError:
        return apply(tokenizer, [t for t in turns if t["role"] != "system"], add_generation_prompt, **options)


def _name(spec: Any) -> str:
    return str(spec["task"]) if isinstance(spec, Mapping) else str(spec)


def _refused(spec: Any, error: Exception) -> UserError:
    cause = f"{type(error).__name__}: {error}"[:300]
    offline = any(word in cause.lower() for word in ("connection", "offline", "resolve", "couldn't reach", "timed out"))
    return UserError(
        f"lm-eval could not play {_name(spec)}",
        cause,
        "its data comes from the hub, which cannot be reached: name a local .jsonl or .yaml task"
        if offline
        else "check that the task runs with lm_eval alone, or name another",
    )


def _values(samples: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return metric → item → value."""
    values: dict[str, dict[str, float]] = {}
    for task, entries in samples.items():
        for entry in entries:
            item = f"{task}/{entry['doc_id']}" if len(samples) > 1 else str(entry["doc_id"])
            for metric in entry["metrics"]:
                value = _number(entry[metric])
                if value is not None:
                    name = metric if entry["filter"] in ("none", "stripped") else f"{metric}, {entry['filter']}"
                    values.setdefault(name, {})[item] = value
    return values


def _number(value: Any) -> float | None:
    """Return a value as a number, the mean of a list of booleans (ifeval's instructions), or None for anything else."""
    if isinstance(value, list | tuple) and value and all(isinstance(part, bool) for part in value):
        return sum(value) / len(value)
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    return None
