"""Converting another trainer's configuration to a recipe, with the list of settings without a counterpart."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.console import without_secrets
from tunewright.environment import __version__
from tunewright.errors import RecipeError, cause_of, regular
from tunewright.importers.axolotl import AXOLOTL
from tunewright.importers.llama_factory import LLAMA_FACTORY
from tunewright.importers.rules import Conversion, Listed, Tool, convert, is_secret
from tunewright.importers.unsloth import UNSLOTH
from tunewright.recipe import Recipe, at_home, dump_recipe, parse_recipe
from tunewright.storage import write_output

_MAX_VALUE = 60  # characters of a value that is printed


def import_config(file: Path, output: Path | None, force: bool) -> None:
    """Write the recipe to a file or to stdout, and print on stderr which settings have no counterpart.

    Raises:
        RecipeError: the configuration cannot be read or is of no supported trainer, or the output exists.
    """
    given = read_config(file)
    conversion = convert(tool_of(given, file), given)
    folder = (output.parent if output else Path()).absolute()
    recipe = recipe_of(conversion, folder)
    text = render(conversion, recipe, file.name)
    if output is None:
        console.data(text)
    else:
        write_output(output, text, force)
        console.line(f"wrote {output} from {file.name} of {conversion.tool}")
    for line in report_lines(conversion):
        console.line(line)
    if not recipe.documents.paths:
        console.line(
            "next: set documents.paths to your documents, or exam.file to your own exam: the verdict needs one of them"
        )


def read_config(file: Path) -> dict[str, Any]:
    """Return a configuration in YAML or JSON.

    Raises:
        RecipeError: it is missing, malformed (with the line), or not a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(regular(file).read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RecipeError(f"{file} is not valid YAML", f"{where}{error.problem}", "fix that line") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{file} is not valid YAML", cause_of(error), "save it as UTF-8 YAML or JSON") from error
    except OSError as error:
        raise RecipeError(f"cannot read {file}", str(error), "check the path and its permissions") from error
    if not isinstance(content, dict):
        content_type = "nothing" if content is None else f"a {type(content).__name__}"
        raise RecipeError(f"{file} is not a configuration", f"it holds {content_type}, not settings", _supported())
    return {str(key): value for key, value in content.items()}


def tool_of(given: Mapping[str, Any], file: Path) -> Tool:
    """Return the trainer that a configuration is for, recognized by its keys."""
    tool = next((tool for tool in TOOLS if tool.is_it(given)), None)
    if tool is None:
        keys = ", ".join(sorted(given)[:8]) or "none"
        raise RecipeError(f"{file} is not of a supported trainer", f"its first keys: {keys}", _supported())
    return tool


def _supported() -> str:
    return "supported: " + "; ".join(f"{tool.name} (by {tool.known_by})" for tool in TOOLS)


def recipe_of(conversion: Conversion, folder: Path) -> Recipe:
    """Return the recipe; local paths, which are relative to the current folder, become relative to the recipe's."""
    content: dict[str, Any] = {}
    for name, value in conversion.settings.items():
        section, _, key = name.rpartition(".")
        target = content.setdefault(section, {}) if section else content
        if name in ("synthesis.data", "preference.data"):
            value = tuple(_from(folder, path) for path in value)
        elif name == "model.base" and "\0" not in value and value.startswith((".", "~")):
            value = _from(folder, value)
        target[key] = value
    return parse_recipe(content, folder, f"the recipe from {conversion.tool}")


def _from(folder: Path, path: str) -> str:
    absolute = at_home(path).absolute()
    return str(absolute) if Path(path).is_absolute() else os.path.relpath(absolute, folder)


def render(conversion: Conversion, recipe: Recipe, name: str) -> str:
    """Return the recipe as TOML: the source beside each setting, and at the end the settings without a counterpart."""
    sources: dict[str, list[str]] = {}
    for key, ours in conversion.taken.items():
        for setting in ours:
            sources.setdefault(setting, []).append(key)
    notes = {setting: f"{conversion.tool}'s default" for setting in conversion.defaults}
    notes |= {setting: " and ".join(_name(key) for key in keys) for setting, keys in sources.items()}
    header = [
        f"# A recipe for tunewright {__version__}, converted from {_name(name)} of {conversion.tool}.",
        "# Converted settings name their source; the others are tunewright's defaults.",
        "",
    ]
    footer = ["", *(f"# {line}".rstrip() for line in report_lines(conversion))]
    return "\n".join(header) + "\n" + dump_recipe(recipe, notes) + "\n".join(footer) + "\n"


def report_lines(conversion: Conversion) -> list[str]:
    """Return a line for each setting without a counterpart or with another meaning, and one for the empty settings."""
    lines = []
    if conversion.listed:
        lines += [f"Settings of {conversion.tool} without a counterpart or with another meaning:"]
        lines += [f"  {_name(item.key)} = {_value(item)}: {_plain(item.why)}" for item in conversion.listed]
    if conversion.empty:
        lines += [f"Empty settings: {', '.join(_name(key) for key in conversion.empty)}"]
    return lines or [f"Every setting of {conversion.tool} has a counterpart."]


def _name(key: str) -> str:
    """Return a setting's name; quoted if it has unusual characters, so that it fits into a comment."""
    return key if key.isascii() and key.isprintable() and key == key.strip() else json.dumps(key)


def _plain(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


def _value(item: Listed) -> str:
    """Return a value in one line; the value of a secret is not repeated."""
    if is_secret(item.key):
        return "(not repeated)"
    value = without_secrets(json.dumps(item.value, default=str))
    return value if len(value) <= _MAX_VALUE else f"{value[: _MAX_VALUE - 3]}..."


TOOLS = (AXOLOTL, LLAMA_FACTORY, UNSLOTH)
