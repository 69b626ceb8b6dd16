"""Cells of tables that people open in a spreadsheet: safe to open, and read back unchanged."""

from __future__ import annotations

import re

# What a spreadsheet runs as a formula, full-width forms too; apostrophes before it are counted in, so that a text
# which starts with our own escape is escaped once more and unescape is its exact inverse.
_FORMULA = re.compile(r"[\s']*[=+\-@＝＋－＠]|'*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?%?")


def _runs(text: str) -> bool:
    return _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None


def escape(text: str) -> str:
    """Return the text with a leading apostrophe when a spreadsheet would run it; plain numbers stay as they are."""
    return f"'{text}" if _runs(text) else text


def unescape(text: str) -> str:
    """Return what ``escape`` was given."""
    return text[1:] if text.startswith("'") and _runs(text[1:]) else text
