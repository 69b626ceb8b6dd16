"""The tables of docs/coming-from.md, made from those of ``tunewright import-config``."""

from __future__ import annotations

from collections.abc import Iterator

from tunewright.importers.import_config import TOOLS
from tunewright.importers.rules import Tool


def tables() -> dict[str, str]:
    """Return two tables per trainer by their marks: the counterparts, and the settings without one."""
    made = {}
    for tool in TOOLS:
        mark = tool.name.lower()
        made[mark] = "\n".join([f"| {tool.name} | recipe | note |", "|---|---|---|", *_counterparts(tool)])
        made[f"{mark}-without"] = "\n".join(
            [f"| {tool.name} | why, or what happens instead |", "|---|---|", *_without(tool)]
        )
    return made


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _counterparts(tool: Tool) -> Iterator[str]:
    for group in tool.groups:
        yield f"| {_code(group.theirs)} | {_code(group.ours)} | {group.note} |"
    for name, rule in tool.rules.items():
        if rule.ours:
            yield f"| `{name}` | `{rule.ours}` | {rule.note} |"


def _without(tool: Tool) -> Iterator[str]:
    """Yield a row per reason with the settings that share it; families are named by their prefix."""
    reasons: dict[str, list[str]] = {}
    for name, rule in tool.rules.items():
        if not rule.ours:
            reasons.setdefault(rule.note, []).append(f"`{name}`")
    for beginning, why in tool.families.items():
        reasons.setdefault(why, []).append(f"`{beginning}…`")
    for why, names in reasons.items():
        yield f"| {', '.join(names)} | {why} |"
