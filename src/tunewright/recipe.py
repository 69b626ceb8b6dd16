"""Every setting with its type, range, default and help. A recipe is a TOML file; unknown keys are errors."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from tunewright.errors import RecipeError

Arm = Literal["base", "few-shot", "rag", "tuned", "tuned+rag"]
Task = Literal["answer-first", "free-qa", "refusal"]
Share = Annotated[float, Field(ge=0, le=1)]

EMBEDDED = "embedded"
SYSTEM_PROMPT = (
    "You answer questions about a collection of documents. If the documents do not give the answer, "
    "say that they do not."
)
REFUSAL = "The documents do not give the answer to this question."


class _Settings(BaseModel):
    """A frozen group of settings."""

    # Defaults are validated too: 60 for a float becomes 60.0, as it reads back from TOML.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class DocumentSettings(_Settings):
    """[documents]: what is read, and how it is cut."""

    paths: tuple[str, ...] = Field((), description="files and folders, relative to this recipe")
    chunk_tokens: int = Field(256, ge=32, le=8192, description="longest chunk, in the student's tokens")
    timeout_s: float = Field(60, gt=0, le=86400, description="longest time that one file may take to read")
    memory_mb: int = Field(1024, ge=128, description="most memory that reading one file may take")


class SplitSettings(_Settings):
    """[split]: which documents the exam keeps for itself."""

    exam_share: Share = Field(0.25, description="share of the documents held out for the exam")
    near_duplicate: Share = Field(0.8, description="Jaccard similarity from which documents stay together")


class ExamSettings(_Settings):
    """[exam]: the questions, written and sealed before any training data exists."""

    file: str = Field("", description="your own exam (.jsonl or .csv) in place of the written one")
    learned_per_document: int = Field(2, ge=0, description="questions on each training document")
    unseen_per_document: int = Field(4, ge=0, description="questions on each held-out document")


class TeacherSettings(_Settings):
    """[teacher]: the model that writes questions and answers."""

    url: str = Field(EMBEDDED, description='"embedded", or an OpenAI-compatible URL such as http://host:8000/v1')
    model: str = Field("", description="the model's name at that URL")
    api_key_env: str = Field("", description="environment variable that holds the key; the key is never stored")
    concurrency: int = Field(8, ge=1, le=512, description="calls under way at once (the embedded one takes 1)")
    temperature: float = Field(0.0, ge=0, le=2, description="0 asks for the likeliest answer")
    timeout_s: float = Field(120, gt=0, le=86400, description="longest wait for one answer")


class SynthesisSettings(_Settings):
    """[synthesis]: the training samples that the teacher writes."""

    tasks: tuple[Task, ...] = Field(
        ("answer-first", "refusal"), min_length=1, description="answer-first suits any teacher, free-qa a strong one"
    )
    samples_per_document: int = Field(8, ge=0, description="questions asked of the teacher per document")
    refusal_share: Share = Field(0.15, description="refusals, as a share of the answered samples")
    data: tuple[str, ...] = Field((), description="your own chat data (.jsonl), beside or instead of synthesis")


class CurationSettings(_Settings):
    """[curation]: what may enter the training set."""

    evidence_match: float = Field(90, ge=50, le=100, description="fuzzy score that evidence must reach, of 100")
    near_duplicate: Share = Field(0.8, description="Jaccard similarity of question+answer that is a duplicate")
    ngram: int = Field(8, ge=3, le=32, description="words in a row shared with the exam that are a leak")


class ModelSettings(_Settings):
    """[model]: the student."""

    base: str = Field(EMBEDDED, description='"embedded" (SmolLM2-135M-Instruct), a folder, or a hub name')
    quantization: Literal["nf4-double", "nf4", "none"] = Field("nf4-double", description="of the frozen base")


class TrainingSettings(_Settings):
    """[training]: the adapter."""

    rank: int = Field(16, ge=1, le=1024, description="LoRA rank: more learns more, takes more memory")
    alpha: float = Field(32, gt=0, description="LoRA scale; alpha / rank multiplies the adapter")
    dropout: float = Field(0.0, ge=0, lt=1, description="LoRA dropout")
    targets: tuple[str, ...] = Field(("all-linear",), min_length=1, description="layers that get an adapter")
    learning_rate: float = Field(2e-4, gt=0, description="peak of the cosine schedule")
    epochs: int = Field(3, ge=1, description="passes over the training set")
    batch_size: int = Field(16, ge=1, description="samples per optimizer step")
    micro_batch_size: int = Field(4, ge=1, description="samples at once; less takes less memory, same result")
    max_tokens: int = Field(1024, ge=16, description="longest sample; longer ones are left out and counted")
    warmup_share: Share = Field(0.05, description="share of the steps with a rising learning rate")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    checkpoint_steps: int = Field(50, ge=1, description="optimizer steps between checkpoints")


class EvaluationSettings(_Settings):
    """[evaluation]: the arms that sit the exam, and the margin of the verdict."""

    arms: tuple[Arm, ...] = Field(
        get_args(Arm), min_length=1, description="who sits the exam; a verdict needs base and tuned"
    )
    few_shot: int = Field(3, ge=1, le=32, description="examples in the few-shot arm")
    rag_passages: int = Field(2, ge=1, le=32, description="passages in the rag arms")
    max_new_tokens: int = Field(64, ge=1, le=8192, description="longest answer; longer ones are cut and counted")
    margin: float = Field(0.10, gt=0, lt=1, description="smallest difference worth having (the verdict's delta)")

    @field_validator("arms")
    @classmethod
    def _each_once(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        if len(set(arms)) < len(arms):
            raise ValueError("an arm is named twice")
        return arms


class Recipe(_Settings):
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
    evaluation: EvaluationSettings = EvaluationSettings()
    folder: Path = Field(Path(), exclude=True)

    def resolve(self, path: str) -> Path:
        """Return a path of this recipe, taken from the recipe's folder when relative."""
        return self.folder / Path(path).expanduser()

    def with_absolute_paths(self) -> Recipe:
        """Return the recipe with no path left that depends on where it stands."""

        def absolute(paths: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(str(self.resolve(path)) for path in paths)

        documents = self.documents.model_copy(update={"paths": absolute(self.documents.paths)})
        synthesis = self.synthesis.model_copy(update={"data": absolute(self.synthesis.data)})
        exam = self.exam.model_copy(update={"file": "".join(absolute((self.exam.file,) if self.exam.file else ()))})
        base = str(self.resolve(self.model.base)) if self.resolve(self.model.base).is_dir() else self.model.base
        model = self.model.model_copy(update={"base": base})
        return self.model_copy(update={"documents": documents, "synthesis": synthesis, "exam": exam, "model": model})


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the name and the class of each section, in the order of the recipe."""
    for name, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


_WORDS = {
    "tuple_type": 'should be a list, such as ["one", "two"]',
    "model_type": "should be a section: a line in [brackets], its settings below",
}


def _known_keys() -> list[str]:
    top = [name for name in Recipe.model_fields if name != "folder"]
    return top + [f"{name}.{key}" for name, kind in sections() for key in kind.model_fields]


def _explain(error: ValidationError) -> str:
    """Return one line per wrong setting; an unknown key names the nearest known one."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, _known_keys(), n=1, cutoff=0.5) or difflib.get_close_matches(
                key.rpartition(".")[2], [k.rpartition(".")[2] for k in _known_keys()], n=1, cutoff=0.5
            )
            lines.append(f"{key}: unknown setting" + (f"; did you mean {near[0]}?" if near else ""))
        else:
            told = _WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
            lines.append(f"{key} = {problem['input']!r}: {told}")
    return "\n  ".join(lines)


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
            "every setting with its range stands in docs/recipe.md",
        ) from error


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def override(content: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return the content with ``section.key=value`` assignments applied; values are TOML, or plain text."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        section, _, inner = key.strip().rpartition(".")
        if not separator or not inner:
            raise RecipeError(f"--set {assignment} is not KEY=VALUE", "", "for example: --set training.epochs=2")
        target = result.setdefault(section, {}) if section else result
        if not isinstance(target, dict):
            raise RecipeError(f"--set {assignment}: {section} is not a section")
        target[inner] = _parse_value(value.strip())
    return result


def load_recipe(path: Path | str, assignments: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply overrides.

    Raises:
        RecipeError: the file is missing, is not TOML, or has wrong settings.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RecipeError(
            f"there is no recipe at {path}", "", f"write one: tunewright init DOCS -o '{path}'"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML", str(error), "text values stand in quotes") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text", str(error), "save it as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"cannot read {path}", str(error), "check the path and its permissions") from error
    return parse_recipe(override(content, assignments), path.parent.absolute(), str(path))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's; only DEL stands free in JSON and may not in TOML.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _setting(name: str, value: Any, field: FieldInfo, notes: dict[str, str], key: str) -> str:
    note = notes.get(key) or field.description or ""
    return f"{name} = {_toml(value)}".ljust(36) + f"  # {note}"


def dump_recipe(recipe: Recipe, notes: dict[str, str] | None = None) -> str:
    """Return the recipe as annotated TOML; ``notes`` replaces the help of single settings ("section.key")."""
    notes = notes or {}
    kinds = dict(sections())
    lines = [
        _setting(name, getattr(recipe, name), field, notes, name)
        for name, field in Recipe.model_fields.items()
        if name not in kinds and name != "folder"
    ]
    for name, kind in kinds.items():
        lines += ["", f"[{name}]"]
        group = getattr(recipe, name)
        lines += [
            _setting(key, getattr(group, key), field, notes, f"{name}.{key}")
            for key, field in kind.model_fields.items()
        ]
    return "\n".join(lines) + "\n"
