"""Markdown in which the text of documents, recipes and models stays text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from importlib import resources
from typing import Any

_MOST = 1000  # characters of a text inside a sentence or a table
_FREE = frozenset(" ,;'\"/%()?!")  # punctuation that begins nothing


class Raw(str):
    """Markdown that we wrote, inserted as it is."""


def plain(text: str, most: int = _MOST) -> Raw:
    """Return a text on one line, with every character that Markdown or HTML could interpret as an entity.

    An entity never opens or closes anything (CommonMark 0.31, section 2.5).
    """
    line = " ".join("".join(c if _is_shown(c) else " " for c in text).split())
    line = line if len(line) <= most else line[:most].rstrip() + "…"
    return Raw("".join(c if _is_free(line, at) else f"&#{ord(c)};" for at, c in enumerate(line)))


def _is_shown(character: str) -> bool:
    """Return whether a character is neither a control character nor one that changes the direction of text."""
    return unicodedata.category(character)[0] != "C"


def _is_free(line: str, at: int) -> bool:
    """Return whether the character at this index needs no entity."""
    character, before, after = line[at], line[at - 1 : at], line[at + 1 : at + 2]
    if not character.isascii() or character.isalnum() or (character in _FREE and character != ")"):
        return True
    if character in ".)":  # "1." and "1)" begin a list, "www." an address
        counts = line[:at].isdigit()
        return (before.isdigit() and after.isdigit()) if character == "." and after.strip() else not counts
    if character == "-":
        return after.isalnum()
    if character == "+":
        return after.isdigit() or (before.isalnum() and after.isalnum())
    if character == ":":
        return after != "/"
    return character == "_" and before.isalnum() and after.isalnum()


def fence(text: str, language: str = "") -> Raw:
    """Return a text as a fenced block that its own backticks cannot end."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    shown = "".join(c if c in "\n\t" or _is_shown(c) else "�" for c in lines).strip("\n")
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Raw(f"{ticks}{language}\n{shown}\n{ticks}")


def render(name: str, view: Mapping[str, Any]) -> str:
    """Return the template of this name, rendered; every value that is not ``Raw`` is escaped."""
    from jinja2 import FunctionLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def read(template: str) -> str:
        return resources.files("tunewright.hub").joinpath(template).read_text(encoding="utf-8")

    environment = ImmutableSandboxedEnvironment(
        loader=FunctionLoader(read),
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Raw) else plain(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(view)
