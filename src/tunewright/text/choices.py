"""Questions whose answer is one of several options: how they are shown, and which option is chosen."""

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


def lists_options(question: str, options: Sequence[str]) -> bool:
    """Return whether a question shows its options, as ``listed`` does, so that an answer can name one."""
    return bool(options) and question.endswith(listed("", options))


def question_alone(question: str, options: Sequence[str]) -> str:
    """Return the question without the options that ``listed`` put below it."""
    return question.removesuffix(listed("", options)) if options else question


def gold_of(question: str, options: Sequence[str], index: int) -> str:
    """Return an option as the answer to a question: behind its letter where the question lists it so."""
    return option_text(options, index) if lists_options(question, options) else options[index]


def likeliest_option(nats: Sequence[float], options: Sequence[str]) -> int:
    """Return the index of the option with the highest log-likelihood per character, "acc_norm" of lm-eval.

    Args:
        nats: the negative log-likelihood of each option's text as the answer to the question alone.
        options: their texts.
    """
    per_character = [total / len(option) for total, option in zip(nats, options, strict=True)]
    return per_character.index(min(per_character))


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
