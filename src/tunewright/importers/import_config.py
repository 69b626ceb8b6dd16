"""A recipe from another trainer's configuration, and the list of what has no counterpart in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.environment import __version__
from tunewright.errors import RecipeError
from tunewright.importers.axolotl import AXOLOTL
from tunewright.importers.llama_factory import LLAMA_FACTORY
from tunewright.importers.rules import Conversion, Listed, Tool, convert, is_secret
from tunewright.importers.unsloth import UNSLOTH
from tunewright.recipe import Recipe, at_home, dump_recipe, parse_recipe
from tunewright.storage import write_output

_WIDEST = 60  # characters of a value that is told


def import_config(file: Path, output: Path | None, force: bool) -> None:
    """Write the recipe to a file or to stdout, and tell on stderr what has no counterpart.

    Raises:
        RecipeError: the configuration cannot be read or is of no known tool, or the output exists.
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
    for line in told(conversion):
        console.line(line)
    if not recipe.documents.paths:
        console.line(
            "next: name your documents in documents.paths, or your own exam in exam.file: both are measured on"
        )


def read_config(file: Path) -> dict[str, Any]:
    """Return a configuration in YAML or JSON.

    Raises:
        RecipeError: it is missing, malformed (with the line), or not a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RecipeError(f"{file} is not valid YAML", f"{where}{error.problem}", "mend that line") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{file} is not valid YAML", str(error), "save it as UTF-8 YAML or JSON") from error
    except OSError as error:
        raise RecipeError(f"cannot read {file}", str(error), "check the path and its permissions") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise RecipeError(f"{file} is not a configuration", f"it holds {found}, not settings", _known())
    return {str(key): value for key, value in content.items()}


def tool_of(given: Mapping[str, Any], file: Path) -> Tool:
    """Return the tool that a configuration is for, told from its keys."""
    found = next((tool for tool in TOOLS if tool.is_it(given)), None)
    if found is None:
        keys = ", ".join(sorted(given)[:8]) or "none"
        raise RecipeError(f"{file} is of no trainer that is known here", f"its first keys: {keys}", _known())
    return found


def _known() -> str:
    return "known are " + "; ".join(f"{tool.name} (by {tool.known_by})" for tool in TOOLS)


def recipe_of(conversion: Conversion, folder: Path) -> Recipe:
    """Return the recipe; local paths, which start here there, start at the recipe's folder."""
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
    """Return the recipe as TOML: beside each setting where it comes from, at the end what has no counterpart."""
    sources: dict[str, list[str]] = {}
    for key, ours in conversion.taken.items():
        for setting in ours:
            sources.setdefault(setting, []).append(key)
    notes = {setting: f"{conversion.tool}'s default" for setting in conversion.defaults}
    notes |= {setting: " and ".join(_name(key) for key in keys) for setting, keys in sources.items()}
    header = [
        f"# A recipe of tunewright {__version__}, from {_name(name)} of {conversion.tool}.",
        "# Settings that came from there name their source; the others are tunewright's defaults.",
        "",
    ]
    footer = ["", *(f"# {line}".rstrip() for line in told(conversion))]
    return "\n".join(header) + "\n" + dump_recipe(recipe, notes) + "\n".join(footer) + "\n"


def told(conversion: Conversion) -> list[str]:
    """Return what has no counterpart or changed its meaning, a line each, and what was empty."""
    lines = []
    if conversion.listed:
        lines += [f"Of {conversion.tool}, without a counterpart or with another meaning:"]
        lines += [f"  {_name(one.key)} = {_value(one)}: {_plain(one.why)}" for one in conversion.listed]
    if conversion.empty:
        lines += [f"Empty there: {', '.join(_name(key) for key in conversion.empty)}"]
    return lines or [f"Every setting of {conversion.tool} has a counterpart."]


def _name(key: str) -> str:
    """Return a setting's name; an odd one in quotes, so that it can stand in a comment."""
    return key if key.isascii() and key.isprintable() and key == key.strip() else json.dumps(key)


def _plain(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


def _value(one: Listed) -> str:
    """Return a value in one line; that of a secret is not repeated."""
    if is_secret(one.key):
        return "(not repeated)"
    value = json.dumps(one.value, default=str)
    return value if len(value) <= _WIDEST else f"{value[: _WIDEST - 3]}..."


TOOLS = (AXOLOTL, LLAMA_FACTORY, UNSLOTH)
