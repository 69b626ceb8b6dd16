"""A recipe: all sections in one TOML file. Unknown keys are errors."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from tunewright import console
from tunewright.console import without_secrets
from tunewright.errors import RecipeError, cause_of, command, is_text, regular
from tunewright.settings import (
    ANSWERING,
    BUILDING,
    HUB,
    LOCAL,
    PATH,
    REFUSAL,
    SELF,
    SYSTEM_PROMPT,
    Arm,
    CurationSettings,
    DistillationSettings,
    DocumentSettings,
    EvaluationSettings,
    ExamSettings,
    JudgeSettings,
    ModelSettings,
    PreferenceSettings,
    RetrievalSettings,
    Settings,
    SplitSettings,
    SynthesisSettings,
    TeacherSettings,
    TrainingSettings,
    is_url,
    path_kind,
)

RUN_MARKER = "run.json"  # the file by which a folder is a run's


def at_home(path: str | Path) -> Path:
    """Return a path with "~" expanded; unlike pathlib, leave the "~name" of an unknown user as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


class Recipe(Settings):
    """A whole recipe. ``folder`` is where relative paths start; it is no setting."""

    seed: int = Field(0, ge=0, le=2**32 - 1, description="of every random choice")
    system_prompt: str = Field(SYSTEM_PROMPT, description="first message of every sample and exam prompt")
    refusal: str = Field(REFUSAL, min_length=1, description="what the model is to say when it cannot know")
    documents: DocumentSettings = DocumentSettings()
    split: SplitSettings = SplitSettings()
    exam: ExamSettings = ExamSettings()
    teacher: TeacherSettings = TeacherSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    curation: CurationSettings = CurationSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    distillation: DistillationSettings = DistillationSettings()
    preference: PreferenceSettings = PreferenceSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    judge: JudgeSettings = JudgeSettings()
    folder: Path = Field(Path(), exclude=True)

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.training.epochs == 0 and not self.preference.wanted:
            raise ValueError("training.epochs = 0 leaves nothing to train; name pairs in preference.data, or raise it")
        if self.exam.held_out_share and self.exam.file:
            raise ValueError("exam.held_out_share makes an exam of synthesis.data, and exam.file names one: set one")
        if self.exam.held_out_share and not self.synthesis.data:
            raise ValueError("exam.held_out_share holds out a part of synthesis.data, which names no data")
        if "best-of-n" in self.preference.make and not self.curation.reward:
            raise ValueError('preference.make = ["best-of-n"] needs a reward model: name one in curation.reward')
        if self.training.method == "full" and self.model.quantization != "none":
            raise ValueError('training.method = "full" needs model.quantization = "none": 4-bit weights cannot move')
        if self.model.sharded and self.model.quantization != "none":
            raise ValueError('model.sharded needs model.quantization = "none": quantized bases are copied to each GPU')
        if self.model.sharded and self.training.method == "full":
            raise ValueError('model.sharded trains adapters; training.method = "full" has to fit one GPU')
        plain = self.training.method in ("lora", "rslora") and not self.training.dropout
        if self.model.fp8 and (self.model.sharded or not plain or self.training.kernels == "off"):
            raise ValueError(
                'model.fp8 is for the fast path: LoRA or rsLoRA without dropout, training.kernels = "auto", not sharded'
            )
        if self.training.text_share and not self.documents.paths:
            raise ValueError("training.text_share needs documents.paths: the text comes from them")
        if Arm.PLACEBO in self.evaluation.arms and self.training.text_share:
            raise ValueError("the placebo arm shuffles the answers of chats; raw text (training.text_share) has none")
        if self.evaluation.use == "assistant" and not self.exam.retention_items:
            raise ValueError(
                'evaluation.use = "assistant" guards general ability, and exam.retention_items = 0 leaves '
                'nothing to measure it: raise exam.retention_items, or set evaluation.use = "task"'
            )
        if self.training.start and self.training.method == "full":
            raise ValueError('training.start goes on from an adapter; training.method = "full" has none')
        if self.synthesis.focus and not self.synthesis.coverage:
            raise ValueError("synthesis.focus names sentences to cover: set synthesis.coverage to 1 or more")
        built = set(self.synthesis.tasks) & set(BUILDING)
        if built and not set(self.synthesis.tasks) & set(ANSWERING):
            names = ", ".join(sorted(built))
            raise ValueError(f"synthesis.tasks: {names} build on answered samples; add {' or '.join(ANSWERING)}")
        if "extraction" in self.synthesis.tasks and not self.synthesis.extraction_schema:
            raise ValueError('the task extraction needs a JSON schema: set synthesis.extraction_schema = "schema.json"')
        if self.synthesis.views and not self.training.text_share:
            raise ValueError("synthesis.views are trained on as raw text: set training.text_share above 0")
        return self

    @model_validator(mode="after")
    def _can_distill(self) -> Recipe:
        training = self.training
        if training.objective != "distillation":
            if self.distillation != DistillationSettings():
                raise ValueError('[distillation] is of training.objective = "distillation": set it, or remove them')
            return self
        if not self.documents.paths:
            raise ValueError(
                'training.objective = "distillation" needs documents.paths: the teacher reads the passage of each '
                'question, and chats of your own have none; train on those with training.objective = "sft"'
            )
        if training.method == "full":
            raise ValueError(
                'training.objective = "distillation" needs an adapter: the teacher is the base, and '
                'training.method = "full" moves it'
            )
        if not training.epochs or training.text_share == 1:
            raise ValueError(
                'training.objective = "distillation" learns from chats: raise training.epochs above 0 and keep '
                "training.text_share below 1"
            )
        if self.model.sharded:
            raise ValueError(
                'training.objective = "distillation" cannot share out the base (model.sharded): processes would wait '
                "for each other's teachers; several GPUs train with the base on each"
            )
        if Arm.PLACEBO in self.evaluation.arms:
            raise ValueError("the placebo arm shuffles answers; distillation would learn the right ones from passages")
        return self

    @property
    def writer(self) -> TeacherSettings:
        """[teacher], with the recipe's base in place of "self": what writes questions and answers."""
        if self.teacher.url != SELF:
            return self.teacher
        own = {"url": LOCAL, "model": self.model.base, "quantization": self.model.quantization}
        return self.teacher.model_copy(update=own)

    @property
    def distills(self) -> bool:
        """Whether the base with passages teaches the adapter."""
        return self.training.objective == "distillation"

    @property
    def teacher_passage_tokens(self) -> int:
        """About the most tokens of passages in the prompt of a teacher of distillation; 0 without."""
        return (1 + self.distillation.distractors) * (self.documents.chunk_tokens + 64) if self.distills else 0

    @property
    def needs_samples(self) -> bool:
        """Whether written samples are trained on: chats, rewrites as raw text, or pairs made of them."""
        chats = self.training.epochs > 0 and (self.training.text_share < 1 or self.synthesis.views > 0)
        return chats or bool(self.preference.make)

    @property
    def holds_out_data(self) -> bool:
        """Whether a part of the user's own chats is the exam."""
        return self.exam.held_out_share > 0

    def resolve(self, path: str) -> Path:
        """Return a path of this recipe, taken from the recipe's folder when relative."""
        return self.folder / at_home(path)

    def comparing(self, others: Sequence[str]) -> Recipe:
        """Return the recipe with these in ``evaluation.compare`` too; folders as seen from the current one.

        A name whose parent folder exists is a path, even where it is missing itself; otherwise it may be a hub name.
        """
        paths = {name: at_home(name) for name in others}
        local = {
            name for name, path in paths.items() if path.is_dir() or (path.parent != Path() and path.parent.is_dir())
        }
        more = [str(paths[name].absolute()) if name in local else name for name in others]
        compare = tuple(dict.fromkeys([*self.evaluation.compare, *more]))
        evaluation = self.evaluation.model_dump() | {"compare": compare}
        return parse_recipe(self.model_dump() | {"evaluation": evaluation}, self.folder)

    def with_absolute_paths(self) -> Recipe:
        """Return the recipe with absolute paths; a model that may be a hub name is a path where its folder exists."""

        def absolute(value: Any, kind: str) -> Any:
            if isinstance(value, tuple):
                return tuple(absolute(item, kind) for item in value)
            if value.startswith(HUB) or is_url(value):
                return value
            path = self.resolve(value)
            return str(path) if value and (kind == PATH or path.is_dir()) else value

        update: dict[str, Settings] = {}
        for name, section in sections():
            group = getattr(self, name)
            kinds = {key: kind for key, field in section.model_fields.items() if (kind := path_kind(field))}
            if name in ("teacher", "judge") and group.url != LOCAL:
                kinds.pop("model")  # a name at a server
            changed = {key: absolute(getattr(group, key), kind) for key, kind in kinds.items()}
            update[name] = group.model_copy(update=changed)
        return self.model_copy(update=update)


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the name and the class of each section, in the order of the recipe."""
    for name, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


_MESSAGES = {
    "tuple_type": 'should be a list, such as ["one", "two"]',
    "model_type": "should be a section: a line in [brackets], its settings below",
}


# Settings of version 0.1 that have another name now, and those that are gone: what took their place.
_MOVED = {
    "exam.kept": "exam.retention_items",
    "split.near_duplicate": "curation.near_duplicate",
    "evaluation.rag_passages": "retrieval.passages",
}
_GONE = {
    "documents.timeout_s": "every file may take 60 s; remove the line",
    "documents.memory_mb": "every file may take 1 GiB of memory; remove the line",
    "training.activation_checkpointing": "what is recomputed follows from the memory; remove the line",
    "teacher.user_header": "the header follows from teacher.model; remove the line",
    "teacher.turn_end": "the end of a turn follows from teacher.model; remove the line",
    "teacher.price_prompt": "use teacher.price = [PROMPT, COMPLETION]",
    "teacher.price_completion": "use teacher.price = [PROMPT, COMPLETION]",
    "judge.price_prompt": "use judge.price = [PROMPT, COMPLETION]",
    "judge.price_completion": "use judge.price = [PROMPT, COMPLETION]",
}


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings that version 0.1 recorded, by the names of today: {"section": {...}, "section.key": ...}."""
    result: dict[str, Any] = {}
    moved: dict[str, Any] = {}
    for name, value in values.items():
        leaves = {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
        kept = {key: item for key, item in leaves.items() if key not in _MOVED and key not in _GONE}
        moved |= {_MOVED[key]: item for key, item in leaves.items() if key in _MOVED}
        if isinstance(value, dict):
            result[name] = {key.removeprefix(f"{name}."): item for key, item in kept.items()}
            prices = [value.get(f"price_{part}") for part in ("prompt", "completion")]
            if prices != [None, None]:
                result[name]["price"] = [price or 0.0 for price in prices]
        else:
            result |= kept
    for key, item in moved.items():
        section, _, name = key.partition(".")
        if isinstance(result.get(section), dict):
            result[section].setdefault(name, item)
        else:
            result[key] = item
    return result


def _in_sections(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings with each "section.key" in its section, which an earlier version may not have had."""
    result = {name: value for name, value in values.items() if "." not in name}
    for name, value in values.items():
        section, dot, key = name.partition(".")
        if dot:
            result.setdefault(section, {}).setdefault(key, value)
    return result


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    """Return parsed TOML with the settings that have a new name under it, and warn of each."""
    result = {name: dict(value) if isinstance(value, dict) else value for name, value in content.items()}
    for old, new in _MOVED.items():
        (section, key), (new_section, new_key) = old.split("."), new.split(".")
        if isinstance(group := result.get(section), dict) and key in group:
            console.warning(f"{old} is called {new} now; please rename it in the recipe")
            target = result.setdefault(new_section, {})
            if isinstance(target, dict):
                target.setdefault(new_key, group.pop(key))
    return result


def _known_keys() -> list[str]:
    top = [name for name in Recipe.model_fields if name != "folder"]
    return top + [f"{name}.{key}" for name, kind in sections() for key in kind.model_fields]


def _explain(error: ValidationError) -> str:
    """Return one line per wrong setting; an unknown key names the nearest known one."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        former = _GONE.get(key) or (f"is now {_MOVED[key]}" if key in _MOVED else "")
        if problem["type"] == "secret":
            name = ".".join(filter(None, (key, problem["ctx"]["setting"])))
            lines.append(f"{name}: {problem['msg']}")
        elif former:
            lines.append(f"{key}: no longer a setting; {former}")
        elif problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, _known_keys(), n=1, cutoff=0.5) or difflib.get_close_matches(
                key.rpartition(".")[2], [k.rpartition(".")[2] for k in _known_keys()], n=1, cutoff=0.5
            )
            lines.append(f"{key}: unknown setting" + (f"; did you mean {near[0]}?" if near else ""))
        else:
            message = _MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
            lines.append(f"{key} = {problem['input']!r}: {message}" if key else message)
    return without_secrets("\n  ".join(lines))


def parse_recipe(content: dict[str, Any], folder: Path, name: str = "recipe") -> Recipe:
    """Return the recipe for parsed TOML.

    Raises:
        RecipeError: with every unknown key and wrong value, not just the first.
    """
    try:
        if "folder" in content:
            raise RecipeError(f"{name}: folder: unknown setting", "", "remove it")
        return Recipe.model_validate({**content, "folder": folder})
    except ValidationError as error:
        raise RecipeError(
            f"{name} has {error.error_count()} wrong setting{'s' if error.error_count() > 1 else ''}",
            _explain(error),
            "docs/recipe.md lists every setting with its range",
        ) from error


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # tomllib's own error is a ValueError, as is that of a number too long
        return text


def override(content: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return the content with ``section.key=value`` assignments applied; values are TOML, or plain text."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        section, _, inner = key.strip().rpartition(".")
        if not separator or not inner:
            raise RecipeError(f"--set {assignment} is not KEY=VALUE", "", "use for example --set training.epochs=2")
        if not is_text(assignment):
            raise RecipeError(f"--set {key} has bytes that are no text", "it is not UTF-8", "write it in a recipe file")
        target = result.setdefault(section, {}) if section else result
        if not isinstance(target, dict):
            raise RecipeError(
                f"--set {assignment}: {section} is not a section", "", "docs/recipe.md lists the sections and settings"
            )
        target[inner] = _parse_value(value.strip())
    return result


def load_recipe(path: Path | str, assignments: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply overrides; one that a run of version 0.1 recorded is read by the names of today.

    Raises:
        RecipeError: the file is missing, is not TOML, or has wrong settings.
    """
    path = Path(path)
    try:
        content = tomllib.loads(regular(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        words = (path, "-o", "recipe.toml") if path.is_dir() else ("DOCS", "-o", path)
        raise RecipeError(f"there is no recipe at {path}", "", f"write one: {command('init', *words)}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text", str(error), "save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not valid TOML", cause_of(error), "put text values in quotes") from error
    except OSError as error:
        raise RecipeError(f"cannot read {path}", str(error), "check the path and its permissions") from error
    if (path.parent / RUN_MARKER).is_file():
        content = _in_sections(upgraded(content))
    content = _renamed(override(content, assignments))
    return parse_recipe(content, path.parent.absolute(), str(path))


def toml_value(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's; only DEL stands free in JSON and may not in TOML.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_value(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _setting(name: str, value: Any, field: FieldInfo, notes: Mapping[str, str], key: str) -> str:
    note = notes.get(key) or field.description or ""
    return f"{name} = {toml_value(value)}".ljust(36) + f"  # {note}\n"


def dump_recipe(recipe: Recipe, notes: Mapping[str, str] | None = None, only: Collection[str] | None = None) -> str:
    """Return the recipe as annotated TOML.

    Args:
        recipe: its values.
        notes: replaces the help of single settings ("section.key").
        only: the settings to write, and no others; None writes all.
    """
    notes = notes or {}
    kinds = dict(sections())
    parts = [
        "".join(
            _setting(name, getattr(recipe, name), field, notes, name)
            for name, field in Recipe.model_fields.items()
            if name not in kinds and name != "folder" and (only is None or name in only)
        )
    ]
    for name, kind in kinds.items():
        group = getattr(recipe, name)
        lines = [
            _setting(key, getattr(group, key), field, notes, f"{name}.{key}")
            for key, field in kind.model_fields.items()
            if only is None or f"{name}.{key}" in only
        ]
        if lines:
            parts.append(f"\n[{name}]\n" + "".join(lines))
    return "".join(parts)
