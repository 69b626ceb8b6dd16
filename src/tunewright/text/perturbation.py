"""Minimal edits that make a true sentence false: a changed number, or a reversed comparison."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from tunewright.records import digest
from tunewright.text.normalization import normalize

# A number on its own: not in COVID-19, PM2.5, H1N1 or 10.1371/journal.
_NUMBER = re.compile(r"(?<![\w.,/–-])\d+(?:[.,]\d+)*(?![\w/–-]|[.,]\d)")
_ANTONYMS = (
    ("higher", "lower"), ("more", "fewer"), ("increased", "decreased"), ("increase", "decrease"),
    ("increases", "decreases"),
    ("improved", "worsened"), ("positive", "negative"), ("positively", "negatively"), ("largest", "smallest"),
    ("greater", "smaller"), ("before", "after"), ("above", "below"), ("most", "least"), ("earlier", "later"),
    ("longer", "shorter"), ("stronger", "weaker"), ("always", "never"), ("first", "last"), ("highest", "lowest"),
)  # fmt: skip
_BEFORE_BOUND = re.compile(
    r"(?:\b(?:at least|at most|(?:more|fewer|less|greater|higher|lower|larger|smaller|older|younger) than"
    r"|over|above|below|under|up to|within|minimum of|maximum of|exceed(?:s|ed|ing)?)|[<>≤≥])\s*[$€£]?$",
    re.IGNORECASE,
)
_AFTER_BOUND = re.compile(
    r"\s?(?:%|percent)?\s?(?:or|and) (?:more|less|fewer|older|younger|above|below|higher|lower)\b|\+"
)
_FACTORS = (0.25, 0.4, 0.5, 0.6, 0.75, 1.3, 1.5, 1.7, 2.0)  # of a changed number, relative to the true one
_OPPOSITES = {word: opposite for pair in _ANTONYMS for word, opposite in (pair, pair[::-1])}
_REVERSIBLE = re.compile(rf"\b(?:{'|'.join(_OPPOSITES)})\b", re.IGNORECASE)


def false_versions(sentence: str, source: str, seed: int) -> Iterator[str]:
    """Yield versions of a sentence that differ in one number or one comparing word, in a seeded order.

    Args:
        sentence: a true sentence.
        source: the text around it; no version uses a number that occurs in it.
        seed: decides the order of the edits, and the new numbers.
    """
    edits = [(match, "number") for match in _NUMBER.finditer(sentence) if not is_bound(sentence, *match.span())]
    edits += [(match, "word") for match in _REVERSIBLE.finditer(sentence)]
    for match, kind in sorted(edits, key=lambda edit: digest(seed, sentence, edit[0].start())):
        old = match.group()
        if kind == "number":
            new = other_number(old, partial(_holds, source), int(digest(seed, old, source), 16))
        else:
            new = _with_case_of(old, _OPPOSITES[old.casefold()])
        if new:
            yield sentence[: match.start()] + new + sentence[match.end() :]


def is_bound(text: str, start: int, end: int) -> bool:
    """Return whether the number at ``start:end`` is a bound: "more than 50" does not contradict "more than 12"."""
    return bool(_BEFORE_BOUND.search(text[:start]) or _AFTER_BOUND.match(text[end:]))


def other_number(number: str, is_taken: Callable[[str], bool], draw: int) -> str | None:
    """Return a number of the same form, a quarter to twice as large, that is not taken; None if no candidate fits.

    Years remain years, and numbers up to 100, which may be percentages, remain at most 100.

    Args:
        number: digits, with or without thousands separators and decimals.
        is_taken: whether a candidate must not be used, because the source holds it.
        draw: any integer; it decides which candidate comes first.
    """
    plain = number.replace(",", "") if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number) else number
    try:
        value = float(plain)
    except ValueError:
        return None  # a list such as 1.2.3, or a decimal comma
    num_decimals = len(plain.partition(".")[2])
    is_year = num_decimals == 0 and 1900 <= value <= 2100 and plain == number
    for step in range(len(_FACTORS)):
        factor = _FACTORS[(draw + step) % len(_FACTORS)]
        new = value + round(10 * (factor - 1)) if is_year else value * factor
        if value <= 100 < new:
            continue
        text = f"{new:,.{num_decimals}f}" if "," in number else f"{new:.{num_decimals}f}"
        if text != number and float(text.replace(",", "")) > 0 and not is_taken(text):
            return text
    return None


def _holds(source: str, number: str) -> bool:
    return re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d]|[.,]\d)", normalize(source)) is not None


def _with_case_of(original: str, word: str) -> str:
    """Return the word, capitalized if the original is."""
    return word.capitalize() if original[0].isupper() else word
