"""What becomes of another tool's settings: rules for single ones, for several that decide together, for the rest."""

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
_NEVER_WRITTEN = "secrets come from the environment, and are never written"
UNKNOWN = "not known here: nothing is done for it"


class Unlike(ValueError):
    """A value without a counterpart; its text says why, or what happens instead."""


@dataclass(frozen=True)
class Changed:
    """A value that is taken over but no longer means quite the same."""

    value: Any
    why: str


def as_given(value: Any) -> Any:
    """Return the value itself."""
    return value


@dataclass(frozen=True)
class Rule:
    """What one setting of theirs becomes.

    Attributes:
        ours: "section.key" of the recipe; empty where there is no counterpart.
        note: for people: what changes; without a counterpart, why there is none or what happens instead.
        convert: their value → ours, or a ``Changed`` one; raises ``Unlike``.
    """

    ours: str = ""
    note: str = ""
    convert: Callable[[Any], Any] = as_given


@dataclass
class Decision:
    """What several of their settings become together.

    Attributes:
        settings: "section.key" → value.
        taken: their setting → those of ours that it decided.
        remarks: their setting → why it has no counterpart, or what changes.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    taken: dict[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Joint:
    """Several of their settings that decide together.

    Attributes:
        theirs: their names, for the table.
        ours: what they decide, for the table.
        note: for people.
        decide: their whole configuration, defaults included → the decision.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    note: str
    decide: Callable[[Mapping[str, Any]], Decision]


@dataclass(frozen=True)
class Tool:
    """Another tool's settings.

    Attributes:
        name: of the tool.
        known_by: in words, what a configuration of it is recognized by.
        is_it: whether a configuration is one of this tool.
        rules: their setting → what it becomes; "a.b" is nested, "a[].b" stands for every item of a list.
        joints: what several become together; their settings come before the rules.
        families: beginnings of names → why none of them has a counterpart.
        defaults: what the tool takes where the configuration is silent, as far as ours differs.
    """

    name: str
    known_by: str
    is_it: Callable[[Mapping[str, Any]], bool]
    rules: Mapping[str, Rule]
    joints: tuple[Joint, ...]
    families: Mapping[str, str]
    defaults: Mapping[str, Any]


@dataclass(frozen=True)
class Listed:
    """A setting that has no counterpart, or that changes its meaning."""

    key: str
    value: Any
    why: str


@dataclass
class Conversion:
    """What came of a configuration; every key of it is in ``taken``, ``listed`` or ``empty``."""

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
        RecipeError: nested deeper than any configuration is.
    """
    if depth > _DEEPEST:
        raise RecipeError("that configuration is nested too deep", f"at {prefix[:60]}", "remove its YAML aliases")
    if isinstance(tree, Mapping) and (tree or not prefix):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    elif isinstance(tree, list) and any(isinstance(item, Mapping | list) for item in tree):
        for place, item in enumerate(tree):
            yield from leaves(item, f"{prefix}[{place}]", depth + 1)
    else:
        yield prefix, tree


def convert(tool: Tool, given: Mapping[str, Any]) -> Conversion:
    """Return what becomes of a configuration of that tool: every key is taken over, listed, or empty there."""
    result = Conversion(tool.name)
    values: dict[str, Any] = {}
    for key, value in leaves(given):
        if len(values) + len(result.empty) >= _MOST_SETTINGS:
            raise RecipeError(f"more than {_MOST_SETTINGS:,} settings", "", "is that a configuration of a training?")
        if value is None or value in ("", [], {}):
            result.empty.append(key)
        else:
            values[key] = value
    silent = {key: value for key, value in tool.defaults.items() if key not in values}
    whole = {**{key: value for key, value in given.items() if key not in result.empty}, **silent}
    done: set[str] = set()
    for joint in tool.joints:
        decision = joint.decide(whole)
        done |= {*decision.taken, *decision.remarks}
        _settle(result, decision, values, silent)
    for key, value in {**values, **silent}.items():
        if key not in done:
            _settle(result, _single(tool, key, value), values, silent)
    return result


def _single(tool: Tool, key: str, value: Any) -> Decision:
    """Return what one setting becomes by its rule, or by the family of its name."""
    if is_secret(key):
        return Decision(remarks={key: _NEVER_WRITTEN})
    name = re.sub(r"\[\d+\]", "[]", key)
    rule = tool.rules.get(name)
    if rule is None or not rule.ours:
        family = next((why for beginning, why in tool.families.items() if name.startswith(beginning)), UNKNOWN)
        return Decision(remarks={key: rule.note if rule else family})
    try:
        told = rule.convert(value)
    except Unlike as error:
        return Decision(remarks={key: str(error)})
    changed = {key: told.why} if isinstance(told, Changed) else {}
    ours = told.value if isinstance(told, Changed) else told
    return Decision({rule.ours: ours}, {key: (rule.ours,)}, changed)


def _settle(result: Conversion, decision: Decision, values: Mapping[str, Any], silent: Mapping[str, Any]) -> None:
    """Enter a decision, as far as its values are in the range of ours; of their defaults, only what is taken over.

    What an earlier setting of theirs decided stays: a later one that says otherwise is listed.
    """
    faults = {
        name: f"{name} cannot be that: {fault}"
        for name, value in decision.settings.items()
        if (fault := _fault(name, value))
    }
    first = {name: key for key, ours in reversed(result.taken.items()) for name in ours}
    clashes = {
        name: f"{first[name]} says otherwise, and comes first"
        for name, value in decision.settings.items()
        if name in first and result.settings.get(name) != value
    }
    left_out = faults | clashes
    result.settings |= {name: value for name, value in decision.settings.items() if name not in left_out}
    for key, ours in decision.taken.items():
        kept = tuple(name for name in ours if name not in left_out)
        if kept and key in values:
            result.taken[key] = kept
        elif kept and key in silent:
            result.defaults += [name for name in kept if name not in result.defaults]
        for name in ours:
            if key in values and (name in clashes or (name in faults and key not in decision.remarks)):
                result.listed.append(Listed(key, values[key], left_out[name]))
    for key, why in decision.remarks.items():
        if key in values:
            result.listed.append(Listed(key, values[key], why))


def _fault(name: str, value: Any) -> str:
    """Return why a setting of ours cannot have that value, or nothing."""
    section, _, key = name.rpartition(".")
    try:
        if section:
            dict(sections())[section].model_validate({key: value})
        else:
            Recipe.model_validate({key: value})
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return ""
