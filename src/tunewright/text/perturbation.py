"""The smallest edits that make a true sentence false: another number, or a comparison turned round."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from tunewright.records import digest
from tunewright.text.normalization import normalize

# A number on its own: not in COVID-19, PM2.5, H1N1 or 10.1371/journal.
_NUMBER = re.compile(r"(?<![\w.,/–-])\d+(?:[.,]\d+)*(?![\w/–-]|[.,]\d)")
_PAIRS = (
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
_FACTORS = (0.25, 0.4, 0.5, 0.6, 0.75, 1.3, 1.5, 1.7, 2.0)  # what a changed number is of the true one
_TURNED = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
_TURNABLE = re.compile(rf"\b(?:{'|'.join(_TURNED)})\b", re.IGNORECASE)


def false_versions(sentence: str, source: str, seed: int) -> Iterator[str]:
    """Yield versions of a sentence that differ in one number or one comparing word, in a seeded order.

    Args:
        sentence: what is true.
        source: the text around it; no version takes a number that stands there.
        seed: decides which number or word comes first, and the new number.
    """
    edits = [(match, "number") for match in _NUMBER.finditer(sentence) if not is_bound(sentence, *match.span())]
    edits += [(match, "word") for match in _TURNABLE.finditer(sentence)]
    for match, kind in sorted(edits, key=lambda edit: digest(seed, sentence, edit[0].start())):
        old = match.group()
        if kind == "number":
            new = other_number(old, partial(_holds, source), int(digest(seed, old, source), 16))
        else:
            new = _like(old, _TURNED[old.casefold()])
        if new:
            yield sentence[: match.start()] + new + sentence[match.end() :]


def is_bound(text: str, start: int, end: int) -> bool:
    """Tell whether the number at ``start:end`` bounds another: "more than 50" does not exclude "more than 12"."""
    return bool(_BEFORE_BOUND.search(text[:start]) or _AFTER_BOUND.match(text[end:]))


def other_number(number: str, is_taken: Callable[[str], bool], draw: int) -> str | None:
    """Return a number of the same form, a quarter to twice as large, that is not taken; None if none fits.

    Years stay years, and what may be a percentage stays below 100.

    Args:
        number: in digits, with or without thousands separators and decimals.
        is_taken: tells whether a candidate would not do, as the source holds it.
        draw: which candidate is tried first; any whole number.
    """
    plain = number.replace(",", "") if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number) else number
    try:
        value = float(plain)
    except ValueError:
        return None  # a list such as 1.2.3, or a decimal comma
    places = len(plain.partition(".")[2])
    is_year = places == 0 and 1900 <= value <= 2100 and plain == number
    for step in range(len(_FACTORS)):
        factor = _FACTORS[(draw + step) % len(_FACTORS)]
        new = value + round(10 * (factor - 1)) if is_year else value * factor
        if value <= 100 < new:
            continue
        told = f"{new:,.{places}f}" if "," in number else f"{new:.{places}f}"
        if told != number and float(told.replace(",", "")) > 0 and not is_taken(told):
            return told
    return None


def _holds(source: str, number: str) -> bool:
    return re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d]|[.,]\d)", normalize(source)) is not None


def _like(model: str, word: str) -> str:
    """Return the word in capitals or not, as the model is."""
    return word.capitalize() if model[0].isupper() else word
