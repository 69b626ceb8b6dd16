"""The bridge to lm-eval: one task on a model that is loaded already, every item's values, nothing cached by a name.

lm-eval caches by the arguments a model was made of, which are the same for base and tuned, and so reports the base's
scores for the tuned model. Its cache is not used; what is kept is kept under the weights' own digest (play.py).
"""

from __future__ import annotations

import difflib
import importlib.metadata
import math
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunewright.errors import TunewrightError, UserError
from tunewright.records import digest
from tunewright.storage import file_digest

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
            "public tasks and task files are played by it; agent-database is not",
            "pip install 'tunewright[benchmarks]'",
        ) from error


def held(rows: list[dict[str, Any]]) -> Callable[..., Any]:
    """Return what lm-eval calls for a task's data: these rows, from memory."""

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
        raise UserError(f"lm-eval cannot read {path}", f"{type(error).__name__}: {error}", "mend the task") from error
    raise UserError(f"lm-eval finds no task in {path}", "", "a task needs the key `task`, its name")


def yaml_content(path: Path) -> str:
    """Return what names all that a YAML task asks: itself, what it may take from its folder, its local data files."""
    parts = [path, *(p for p in path.parent.iterdir() if p.suffix in {".yaml", ".yml", ".py"} and p != path)]
    return digest(*sorted(file_digest(part) for part in {*parts, *_data_files(path)} if part.is_file()))


def _data_files(path: Path) -> list[Path]:
    """Return the data files that the YAML names, from the current folder as lm-eval finds them."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Reads lm-eval's own tags as nothing."""

    Loader.add_multi_constructor("!", lambda *_: None)
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, UnicodeDecodeError):
        return []  # lm-eval says what is wrong with it
    kwargs = config.get("dataset_kwargs") if isinstance(config, dict) else None
    named = kwargs.get("data_files") if isinstance(kwargs, dict) else None
    values = list(named.values()) if isinstance(named, dict) else [named]
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return [Path(one) for one in flat if isinstance(one, str) and "://" not in one]


def _yaml_path(entry: Any) -> Any:
    return entry["yaml_path"] if isinstance(entry, Mapping) else getattr(entry, "yaml_path", "")


def public_task(name: str) -> Any:
    """Return one of lm-eval's own tasks or groups: ifeval, mmlu, truthfulqa_mc2, hellaswag and many more.

    Raises:
        UserError: there is none of this name; near names are told.
    """
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    if name not in manager.all_tasks:
        near = difflib.get_close_matches(name, manager.all_tasks, n=3)
        raise UserError(
            f"lm-eval has no task {name!r}",
            f"did you mean {', '.join(near)}?" if near else "",
            "see all: lm_eval ls tasks; for a file of yours, end its name in .jsonl or .yaml",
        )
    return (manager, name)


def play(task: Any, model: Any, tokenizer: Any, limit: int, shots: int | None) -> dict[str, dict[str, float]]:
    """Return metric → item → value of one task, from the model as it stands: with its adapter on, or off.

    Items of a group's tasks are named TASK/ITEM. The chat template is used where the tokenizer has one. No cache, no
    remote code, no code of the task's that lm-eval calls unsafe.

    Raises:
        UserError: the task's data cannot be fetched, or the task measures nothing by item.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager, asked = task if isinstance(task, tuple) else (TaskManager(include_defaults=False), task)
    wrapped = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=_BATCH["cpu" if model.device.type == "cpu" else "cuda"],
        device=str(model.device),
    )
    try:
        found = simple_evaluate(
            model=wrapped,
            tasks=[asked],
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
        raise _refused(asked, error) from error
    values = _values(found["samples"] if found else {})
    if not values:
        raise UserError(f"{_name(asked)} gives no value by item", "base and tuned cannot be compared in pairs", "")
    return values


def _name(asked: Any) -> str:
    return str(asked["task"]) if isinstance(asked, Mapping) else str(asked)


def _refused(asked: Any, error: Exception) -> UserError:
    told = f"{type(error).__name__}: {error}"[:300]
    offline = any(word in told.lower() for word in ("connection", "offline", "resolve", "couldn't reach", "timed out"))
    return UserError(
        f"lm-eval could not play {_name(asked)}",
        told,
        "its data comes from the hub, which cannot be reached from here: name a local .jsonl or .yaml task"
        if offline
        else "see that the task runs with lm_eval alone, or name another",
    )


def _values(samples: Mapping[str, Any]) -> dict[str, dict[str, float]]:
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
    """Return a value as a number, a list of them by its mean (ifeval's instructions); None of anything else."""
    if isinstance(value, list | tuple) and value and all(isinstance(part, bool) for part in value):
        return sum(value) / len(value)
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    return None
