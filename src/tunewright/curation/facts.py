"""The numbers and names of a text, with their kind and place: what a minimal edit swaps, and what a claim rests on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tunewright.text import words

_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
# A number that stands alone: not the 4 of CD4, the 19 of COVID-19 or the 3 of 3D, nor a citation's [1].
_NUMBER = re.compile(r"(?<![\w.,\[])(?<!\w-)\d+(?:[.,]\d+)*(?![\w\]]|[.,]\d|-\w)")
_PERCENT = re.compile(r"\s?(?:%|percent\b|per cent\b)")
_CONFIDENCE = re.compile(r"\s?%?\s*(?:CI\b|confidence|credible)")
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_COUNTED = words("zero one two three four five six seven eight nine ten eleven twelve")
_WRITTEN = {word: str(number) for number, word in enumerate(_COUNTED)}
_NAME = re.compile(r"[^\W\d_][\w-]*(?: [^\W\d_][\w-]*)*")
_WORD = re.compile(r"[^\W\d_][\w-]*")
_MONTHS = frozenset(  # "may" is a verb too
    words("january february march april june july august september october november december")
)
_NO_NAMES = frozenset(words("i a an the ci sd se iqr or aor hr rr irr vs"))  # statistics are no entities
_ACRONYM = re.compile(r"\w*[A-Z]\w*[A-Z]\w*(?:-[A-Z\d]+)*")
_LONGEST_ACRONYM = 6  # longer capitals are headings and shouting


@dataclass(frozen=True)
class Fact:
    """A number or name at ``start:end`` of its text; facts of one kind can stand in each other's place."""

    start: int
    end: int
    text: str
    kind: str


def plain_number(number: str) -> str:
    """Return a number's value as text: 3,440 and 3440.0 are the same, and so are three and 3."""
    number = _WRITTEN.get(number.casefold(), number)
    number = re.sub(r",(?=\d{3}(?!\d))", "", number)
    number = number.replace(",", ".")
    if number.count(".") != 1:
        return number
    whole, _, decimals = number.partition(".")
    return f"{whole}.{decimals}".rstrip("0").rstrip(".")


def number_values(text: str) -> set[str]:
    """Return the values of all numbers of a text, in digits or (to twelve) in words."""
    told = {plain_number(number) for number in _DIGITS.findall(text)}
    return told | {_WRITTEN[word] for word in words(text) if word in _WRITTEN}


def numbers(text: str) -> list[Fact]:
    """Return the numbers that can be swapped: percentages, years, decimals and whole numbers, told apart.

    The 95 of "95% CI" is left out: it says how, not what.
    """
    found = []
    for match in _NUMBER.finditer(text):
        number, after = match.group(), text[match.end() : match.end() + 24]
        if _CONFIDENCE.match(after):
            continue
        if _PERCENT.match(after):
            kind = "percent"
        elif _YEAR.fullmatch(number):
            kind = "year"
        else:
            kind = "decimal" if "." in plain_number(number) or "." in number else "whole"
        found.append(Fact(match.start(), match.end(), number, kind))
    return found


def _starts_sentence(text: str, start: int) -> bool:
    before = text[max(0, start - 4) : start].rstrip(" \t\"'([*_")
    return start == 0 or not before or before.endswith((".", "!", "?", ":", ";", "\n", "#", "-", "|"))


def _is_name(word: str, starts: bool) -> bool:
    capitals = sum(map(str.isupper, word))
    if word.casefold() in _NO_NAMES or (word.isupper() and len(word) > _LONGEST_ACRONYM):
        return False
    return capitals > 1 or (word[0].isupper() and not starts and len(word) > 1)


def _runs(text: str) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the runs of name words that only single spaces part."""
    for stretch in _NAME.finditer(text):
        run: list[tuple[int, int, str]] = []
        for match in _WORD.finditer(text, stretch.start(), stretch.end()):
            if _is_name(match.group(), _starts_sentence(text, match.start())):
                run.append((match.start(), match.end(), match.group()))
                continue
            if run:
                yield run[0][0], run[-1][1], [word for _, _, word in run]
            run = []
        if run:
            yield run[0][0], run[-1][1], [word for _, _, word in run]


def names(text: str) -> list[Fact]:
    """Return the names: acronyms, and runs of words whose capital does not start a sentence.

    The kind is "acronym", "month", or "name" with its number of words.
    """
    found = []
    for start, end, run in _runs(text):
        if len(run) == 1 and run[0].casefold() in _MONTHS:
            kind = "month"
        elif len(run) == 1 and _ACRONYM.fullmatch(run[0]):
            kind = "acronym"
        else:
            kind = f"name of {len(run)}"
        found.append(Fact(start, end, text[start:end], kind))
    return found


def name_words(text: str) -> set[str]:
    """Return the normalized words of all names of a text."""
    return {word for name in names(text) for word in words(name.text.replace("-", " "))}


def unsupported(text: str, source: str) -> bool:
    """Tell whether a text has a number or a name that its source lacks."""
    if not number_values(text) <= number_values(source):
        return True
    return not name_words(text) <= set(words(source.replace("-", " ")))
