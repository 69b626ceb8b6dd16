"""Questions whose answer is one of several options: how they are shown, and which option a text chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from tunewright.text.normalization import normalize, words

MOST_OPTIONS = len(ascii_uppercase)
SEVERAL = "||"  # between several texts in one cell of a table
# "B", "(B)", "B. Paris", "**B**": the letter alone, or with a mark behind it; "A dog" is no choice.
_LEADING = re.compile(r"[\s\"'“*(\[]*([A-Z])(?:\s*$|[\s\"'”*]*[).:,\]]|[\"'”*]|(?<![AI])\s)")
_NAMED = re.compile(r"\b(?:answer|option|choice)\b\W*(?:is\b|would be\b)?[\s:*\"'(]*([A-Z])\b(?!['’])", re.IGNORECASE)
_ARTICLE = re.compile(r"(?:^|[.!?]\s)([AI])\s[a-z]")  # "A city ...", "I think ...": a word of English
_ALONE = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z'’])")


def option_text(options: Sequence[str], index: int) -> str:
    """Return an option behind its letter, as it is listed."""
    return f"{ascii_uppercase[index]}. {options[index]}"


def listed(question: str, options: Sequence[str]) -> str:
    """Return the question with its options below, a letter before each."""
    return "\n".join([question, "", *(option_text(options, index) for index in range(len(options)))])


def question_alone(question: str, options: Sequence[str]) -> str:
    """Return the question without the options that ``listed`` put below it."""
    return question.removesuffix(listed("", options)) if options else question


def chosen_option(text: str, options: Sequence[str]) -> int | None:
    """Return the index of the option that a text chooses; None where it chooses none, or more than one.

    In this order: a letter that the text starts with, an option's whole text, the letter that follows "answer",
    "option" or "choice", the only letter of an option that stands alone, the only option whose words occur.
    """
    letters = ascii_uppercase[: len(options)]
    plain = text.strip()
    if len(plain) == 1 and plain.upper() in letters:
        return letters.index(plain.upper())
    if (match := _LEADING.match(plain)) and match[1] in letters:
        return letters.index(match[1])
    same = [index for index, option in enumerate(options) if normalize(option) == normalize(plain)]
    if len(same) == 1:
        return same[0]
    named = {match for match in _NAMED.findall(plain) if match in letters}
    alone = {match for match in _ALONE.findall(plain) if match in letters}
    alone -= {match[0] for match in _ARTICLE.findall(plain)} if len(alone) == 1 else set()
    for letter_set in (named, alone):
        if len(letter_set) == 1:
            return letters.index(letter_set.pop())
    spoken = f" {' '.join(words(normalize(plain)))} "
    held = [i for i, option in enumerate(options) if f" {' '.join(words(normalize(option)))} " in spoken]
    held = [i for i in held if not any(i != j and normalize(options[i]) in normalize(options[j]) for j in held)]
    return held[0] if len(held) == 1 else None
