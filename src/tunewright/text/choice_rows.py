"""The rows of exams and benchmarks: their answer or answers, their options, and the option that is right."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from tunewright.errors import is_text
from tunewright.text.choices import MOST_OPTIONS, SEVERAL, option_text
from tunewright.text.rows import Row

_ANSWER = ("gold", "answer", "answers", "answerkey", "answer_index", "completion")
_MOST_COLUMNS = "k"  # a row's options may be in the columns a to j


class RowFault(ValueError):
    """Why a row is no question."""


def sound(text: str) -> str:
    """Return a text that can be written as UTF-8."""
    if not is_text(text):
        raise RowFault("a text holds half a surrogate pair, such as a cut emoji")
    return text


def answer_of(row: Mapping[str, Any]) -> Any:
    """Return the answer of a row, as it is written; None where it has none."""
    return next((row[key] for key in _ANSWER if row.get(key) not in (None, "", [], {})), None)


def texts_of(value: object, name: str) -> list[str]:
    """Return the texts of a list, of a JSON list in a cell, of a cell with ``||``, or of {"text": [...]}."""
    if isinstance(value, dict):
        value = value.get("text", list(value.values()))
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = [value]
    values = value.split(SEVERAL) if isinstance(value, str) else value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | float) for item in values):
        raise RowFault(f"{name} is not text, nor a list of texts")
    return [sound(str(item).strip()) for item in values if str(item).strip()]


def _bare(answer: object) -> str:
    """Return the letter of "(B)" or "b." in lower case."""
    return str(answer).strip().strip("().: ").lower()


def options_of(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return a row's options and the labels that its answer may name them by; none where it is no choice."""
    value = row.get("options") or row.get("choices")
    letters = list(ascii_lowercase[:MOST_OPTIONS])
    if not value:
        named = [letter for letter in letters[: letters.index(_MOST_COLUMNS)] if row.get(letter) not in (None, "")]
        is_choice = len(named) > 1 and _bare(answer_of(row)) in named
        return ([str(row[letter]).strip() for letter in named], named) if is_choice else ([], [])
    options = texts_of(value, "options")
    labels = letters[: len(options)]
    if isinstance(value, dict):
        labels = [
            str(label).strip().lower() for label in value.get("label", () if "text" in value else value)
        ] or labels
    if not 2 <= len(options) <= MOST_OPTIONS or len(labels) != len(options):
        raise RowFault(f"options are {len(options)}: 2 to {MOST_OPTIONS} are needed, each with a text")
    return options, labels


UNCLEAR = -1


def first_index(rows: Sequence[Row]) -> int | None:
    """Return the index that a file's answers give the first option, 0 or 1; UNCLEAR, or None where they are no indexes.

    They are indexes where most of them are numbers of at most the number of options, and not texts of the options.
    """
    num_choices, indexes = 0, []
    for row in rows:
        try:
            options, labels = options_of(row.content) if isinstance(row.content, dict) else ([], [])
        except RowFault:
            continue
        if options:
            num_choices += 1
            answer = str(answer_of(row.content)).strip()
            if re.fullmatch(r"\d{1,2}", answer) and answer not in labels and int(answer) <= len(options):
                indexes.append((int(answer), len(options), answer in options))
    if not num_choices or len(indexes) <= num_choices / 2:
        return None
    if all(is_option for *_, is_option in indexes):
        return UNCLEAR
    if any(index == 0 for index, *_ in indexes):
        return 0
    return 1 if any(index == num for index, num, _ in indexes) else UNCLEAR


def right_option(row: Mapping[str, Any], options: Sequence[str], labels: Sequence[str], first: int | None) -> int:
    """Return the index of a row's right option: named by its letter, label, text or index."""
    answer = answer_of(row)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, str | int):
        raise RowFault("answer is missing or empty" if answer is None else "answer names no single option")
    plain = str(answer).strip()
    if _bare(answer) in labels:
        return labels.index(_bare(answer))
    if first is not None and re.fullmatch(r"\d{1,2}", plain):
        if first == UNCLEAR:
            raise RowFault("whether answer counts the options from 0 or from 1 is not clear: write letters")
        if 0 <= int(plain) - first < len(options):
            return int(plain) - first
    behind_letters = [option_text(options, index) for index in range(len(options))]
    for names in (options, behind_letters):
        matches = [index for index, name in enumerate(names) if name.lower() == plain.lower()]
        if len(matches) == 1:
            return matches[0]
    raise RowFault(f"answer {plain[:40]!r} names none of its {len(options)} options")
