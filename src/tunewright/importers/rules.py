"""Converting another trainer's settings: rules for single settings, for groups of settings, and for the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tunewright.errors import RecipeError
from tunewright.recipe import Recipe, sections

_MOST_SETTINGS = 5000  # aliases in YAML can name the same tree again and again
_DEEPEST = 20
_SECRET = re.compile(r"(?<!pad_)(?<!eos_)(?<!bos_)(?<!unk_)(token|key|secret|password|webhook_url)$", re.IGNORECASE)
_NEVER_WRITTEN = "secrets come from the environment and are never written"
UNKNOWN = "unknown setting: ignored"


class NoCounterpart(ValueError):
    """A value without a counterpart; the message says why, or what happens instead."""


@dataclass(frozen=True)
class Changed:
    """A value that is converted with a change of meaning."""

    value: Any
    why: str


def unchanged(value: Any) -> Any:
    """Return the value."""
    return value


@dataclass(frozen=True)
class Rule:
    """The counterpart of one foreign setting.

    Attributes:
        ours: "section.key" of the recipe; empty without a counterpart.
        note: for the reader: what changes; without a counterpart, why, or what happens instead.
        convert: foreign value → ours, or a ``Changed`` value; raises ``NoCounterpart``.
    """

    ours: str = ""
    note: str = ""
    convert: Callable[[Any], Any] = unchanged


@dataclass
class Decision:
    """The counterpart of several foreign settings together.

    Attributes:
        settings: "section.key" → value.
        taken: foreign setting → the settings of ours that it determines.
        remarks: foreign setting → why it has no counterpart, or what changes.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    taken: dict[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Several foreign settings that are converted together.

    Attributes:
        theirs: their names, for the table.
        ours: the settings they determine, for the table.
        note: for the reader.
        decide: the complete foreign configuration with its defaults → the decision.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    note: str
    decide: Callable[[Mapping[str, Any]], Decision]


@dataclass(frozen=True)
class Tool:
    """Another trainer's settings.

    Attributes:
        name: of the trainer.
        known_by: the keys by which its configurations are recognized, in words.
        is_it: whether a configuration is of this trainer.
        rules: foreign setting → its counterpart; "a.b" is nested, "a[].b" stands for every item of a list.
        groups: settings that are converted together, before the rules.
        families: prefix of names → why none of them has a counterpart.
        defaults: the trainer's defaults that differ from ours.
    """

    name: str
    known_by: str
    is_it: Callable[[Mapping[str, Any]], bool]
    rules: Mapping[str, Rule]
    groups: tuple[Group, ...]
    families: Mapping[str, str]
    defaults: Mapping[str, Any]


@dataclass(frozen=True)
class Listed:
    """A setting that has no counterpart, or whose meaning changes."""

    key: str
    value: Any
    why: str


@dataclass
class Conversion:
    """A converted configuration; each of its keys is in ``taken``, ``listed`` or ``empty``."""

    tool: str
    settings: dict[str, Any] = field(default_factory=dict)
    taken: dict[str, tuple[str, ...]] = field(default_factory=dict)
    listed: list[Listed] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    defaults: list[str] = field(default_factory=list)


def is_secret(key: str) -> bool:
    """Return whether a setting's value must not be repeated."""
    return bool(_SECRET.search(key))


def leaves(tree: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield each setting under its full name: "a.b" in a mapping, "a[0].b" in a list of mappings.

    Raises:
        RecipeError: nested too deeply to be a configuration.
    """
    if depth > _DEEPEST:
        raise RecipeError("the configuration is nested too deeply", f"at {prefix[:60]}", "remove its YAML aliases")
    if isinstance(tree, Mapping) and (tree or not prefix):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    elif isinstance(tree, list) and any(isinstance(item, Mapping | list) for item in tree):
        for index, item in enumerate(tree):
            yield from leaves(item, f"{prefix}[{index}]", depth + 1)
    else:
        yield prefix, tree


def convert(tool: Tool, given: Mapping[str, Any]) -> Conversion:
    """Return the converted configuration: every key is converted, listed, or empty."""
    result = Conversion(tool.name)
    values: dict[str, Any] = {}
    for key, value in leaves(given):
        if len(values) + len(result.empty) >= _MOST_SETTINGS:
            raise RecipeError(
                f"the configuration has more than {_MOST_SETTINGS:,} settings",
                "",
                "name the configuration of one training",
            )
        if value is None or value in ("", [], {}):
            result.empty.append(key)
        else:
            values[key] = value
    defaults = {key: value for key, value in tool.defaults.items() if key not in values}
    complete = {**{key: value for key, value in given.items() if key not in result.empty}, **defaults}
    done: set[str] = set()
    for group in tool.groups:
        decision = group.decide(complete)
        done |= {*decision.taken, *decision.remarks}
        _settle(result, decision, values, defaults)
    for key, value in {**values, **defaults}.items():
        if key not in done:
            _settle(result, _single(tool, key, value), values, defaults)
    return result


def _single(tool: Tool, key: str, value: Any) -> Decision:
    """Return the counterpart of one setting, by its rule or by the family of its name."""
    if is_secret(key):
        return Decision(remarks={key: _NEVER_WRITTEN})
    name = re.sub(r"\[\d+\]", "[]", key)
    rule = tool.rules.get(name)
    if rule is None or not rule.ours:
        family = next((why for beginning, why in tool.families.items() if name.startswith(beginning)), UNKNOWN)
        return Decision(remarks={key: rule.note if rule else family})
    try:
        converted = rule.convert(value)
    except NoCounterpart as error:
        return Decision(remarks={key: str(error)})
    changed = {key: converted.why} if isinstance(converted, Changed) else {}
    ours = converted.value if isinstance(converted, Changed) else converted
    return Decision({rule.ours: ours}, {key: (rule.ours,)}, changed)


def _settle(result: Conversion, decision: Decision, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Add a decision to the result, as far as its values are valid; defaults are added only if they are converted.

    An earlier setting wins: a later setting that contradicts it is listed.
    """
    faults = {
        name: f"not valid for {name}: {fault}"
        for name, value in decision.settings.items()
        if (fault := _fault(name, value))
    }
    first = {name: key for key, ours in reversed(result.taken.items()) for name in ours}
    clashes = {
        name: f"{first[name]} differs and comes first"
        for name, value in decision.settings.items()
        if name in first and result.settings.get(name) != value
    }
    left_out = faults | clashes
    result.settings |= {name: value for name, value in decision.settings.items() if name not in left_out}
    for key, ours in decision.taken.items():
        kept = tuple(name for name in ours if name not in left_out)
        if kept and key in values:
            result.taken[key] = kept
        elif kept and key in defaults:
            result.defaults += [name for name in kept if name not in result.defaults]
        for name in ours:
            if key in values and (name in clashes or (name in faults and key not in decision.remarks)):
                result.listed.append(Listed(key, values[key], left_out[name]))
    for key, why in decision.remarks.items():
        if key in values:
            result.listed.append(Listed(key, values[key], why))


def _fault(name: str, value: Any) -> str:
    """Return why a value is not valid for a setting of ours, or nothing."""
    section, _, key = name.rpartition(".")
    try:
        if section:
            dict(sections())[section].model_validate({key: value})
        else:
            Recipe.model_validate({key: value})
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return ""
