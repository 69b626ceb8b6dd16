"""The form of a recipe: the settings that matter first, errors at their field, and the text edited in place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo

from tunewright.errors import RecipeError, cause_of
from tunewright.recipe import Recipe, dump_recipe, parse_recipe, sections, toml_value

# The settings of the form by group; all others are in the text beside it.
GROUPS = (
    ("Base", ("model.base", "model.quantization")),
    ("Teacher", ("teacher.url", "teacher.model", "teacher.api_key_env", "teacher.price", "teacher.budget")),
    ("Samples", ("synthesis.tasks", "synthesis.samples_per_document", "synthesis.refusal_share")),
    ("Exam", ("exam.learned_per_document", "exam.unseen_per_document", "exam.held_out_share", "exam.retention_items")),
    (
        "Training",
        ("training.epochs", "training.learning_rate", "training.batch_size", "training.rank", "training.max_tokens"),
    ),
    ("Evaluation", ("evaluation.use", "evaluation.primary", "evaluation.max_new_tokens", "evaluation.few_shot")),
    ("Wording", ("system_prompt", "refusal")),
)  # fmt: skip
NAMES = tuple(name for _, names in GROUPS for name in names)
_SUGGESTIONS = {
    "model.base": ("embedded",),
    "teacher.url": ("embedded", "self", "local", "https://api.openai.com/v1", "http://127.0.0.1:8000/v1"),
}


class Field(NamedTuple):
    """A field of the form; ``value`` and ``error`` are as entered, where the entry is wrong."""

    name: str
    label: str
    help: str
    value: str
    choices: tuple[str, ...]
    suggestions: tuple[str, ...]
    is_long: bool
    error: str


def _info(name: str) -> FieldInfo:
    section, _, key = name.rpartition(".")
    return dict(sections())[section].model_fields[key] if section else Recipe.model_fields[key]


def _setting(recipe: Recipe, name: str) -> Any:
    value: Any = recipe
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _shown(value: Any) -> str:
    """Return a value as the form shows it: text as it is, everything else as TOML."""
    return value if isinstance(value, str) else toml_value(value)


def form_groups(recipe: Recipe, entered: Mapping[str, str], errors: Mapping[str, str]) -> list[tuple[str, list[Field]]]:
    """Return the fields by group; what was entered last stands in its field until it is right."""
    return [(title, [_field(recipe, name, entered, errors) for name in names]) for title, names in GROUPS]


def _field(recipe: Recipe, name: str, entered: Mapping[str, str], errors: Mapping[str, str]) -> Field:
    info = _info(name)
    kind = info.annotation
    choices = tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()
    return Field(
        name=name,
        label=name.replace("_", " ").replace(".", ": "),
        help=info.description or "",
        value=entered.get(name, _shown(_setting(recipe, name))),
        choices=choices,
        suggestions=_SUGGESTIONS.get(name, ()),
        is_long=name in ("system_prompt", "refusal"),
        error=errors.get(name, ""),
    )


def _parsed(name: str, text: str) -> Any:
    """Return what was entered as a value of TOML: text stays text where the setting takes some."""
    kind = _info(name).annotation
    takes_text = kind is str or get_origin(kind) is Literal
    if takes_text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return [part.strip() for part in text.split(",")] if get_origin(kind) is tuple else text


def changed_values(recipe: Recipe, entered: Mapping[str, str]) -> dict[str, Any]:
    """Return the entries of a form that differ from the recipe."""
    now = {name: _setting(recipe, name) for name in NAMES}
    return {
        name: _parsed(name, text) for name, text in entered.items() if name in now and text != _shown(now[name]).strip()
    }


def checked(text: str, folder: Path) -> Recipe:
    """Return the recipe of a text.

    Raises:
        RecipeError: it is no TOML, or has wrong settings.
    """
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError("the recipe is not valid TOML", cause_of(error), "put text values in quotes") from error
    return parse_recipe(content, folder)


def field_errors(error: RecipeError) -> dict[str, str]:
    """Return the faults of a recipe by setting; what names no field of the form is under ""."""
    errors: dict[str, str] = {}
    for line in error.cause.splitlines():
        match = re.match(r"\s*([a-z_]+(?:\.[a-z_]+)?)(?:[.\[][^:= ]*)?(?: = .*?)?: (.+)", line)
        name = match[1] if match and match[1] in NAMES else next((n for n in NAMES if line.strip().startswith(n)), "")
        text = match[2] if match and name == match[1] else line.strip()
        errors[name] = f"{errors[name]}; {text}" if name in errors else text
    return errors or {"": error.headline}


def with_values(text: str, values: Mapping[str, Any], folder: Path) -> str:
    """Return the recipe's text with these settings: its other lines and their notes stay as they are.

    Raises:
        RecipeError: a value is wrong.
    """
    wanted = tomllib.loads(text)
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (wanted.setdefault(section, {}) if section else wanted)[key] = value
    recipe = parse_recipe(wanted, folder)
    edited = text
    for name, value in values.items():
        edited = _with_line(edited, name, toml_value(value))
    try:
        if checked(edited, folder) == recipe:
            return edited
    except RecipeError:
        pass
    return dump_recipe(recipe)  # a value over several lines: the whole recipe is written again


def _with_line(text: str, name: str, value: str) -> str:
    """Return the text with the line of a setting replaced, or added to its section."""
    section, _, key = name.rpartition(".")
    lines, current, end_of_section = text.splitlines(), "", None
    for number, line in enumerate(lines):
        if header := re.match(r"\s*\[([\w-]+)\]\s*(#.*)?$", line):
            current = header[1]
        if current == section:
            if re.match(rf"\s*{re.escape(key)}\s*=", line):
                note = re.search(r"\s{2}# .*$", line)
                lines[number] = f"{key} = {value}".ljust(36) + (note[0] if note else "")
                return "\n".join(lines) + "\n"
            if line.strip():
                end_of_section = number + 1
    new = f"{key} = {value}"
    if end_of_section is not None:
        return "\n".join([*lines[:end_of_section], new, *lines[end_of_section:]]) + "\n"
    return "\n".join([new, *lines]) + "\n" if not section else "\n".join([*lines, "", f"[{section}]", new]) + "\n"
