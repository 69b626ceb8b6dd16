"""The quantities of a text: value, sign, unit and bound, whether written in digits or spelled out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from tunewright.text import normalize

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELLED = {word: value for value, word in enumerate([*_ONES, *_TEENS])}
_SPELLED |= {word: 10 * value for value, word in enumerate(_TENS, 2)}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_LEAST_DEMANDED = 11  # a smaller spelled number may count what the source only lists: "three crops"

_SMALL = rf"(?:(?:{'|'.join(_TENS)})[- ](?:{'|'.join(_ONES[1:])})|{'|'.join(_SPELLED)})"
_WORDS = re.compile(
    rf"\b({_SMALL})(?:[- ]({'|'.join(_SCALES)})(?: (?:and )?({_SMALL}))?)?(fold)?\b"
    r"(?![- ](?:thirds?|quarters?|fourths?|half))"
)
# Digits behind a letter belong to a name (IL-23, p53). A space parts thousands only between groups of three.
_DIGITS = re.compile(
    r"(?<![a-z\d.,])(?<![a-z]-)(?:\d{1,3}(?: \d{3})+(?![\d.,]\d)(?!\d)|\d+(?:[.,]\d+)*)|(?<=[a-z]\.)\d+\.\d+"
)
_SCALE = re.compile(rf" ({'|'.join(_SCALES)})\b")
_BETWEEN = re.compile(r" ?(?:-|to|and|or|,|;|/|±|, (?:and|or)) ?")
_LESS = re.compile(r"(?:<|≤|less than|fewer than|lower than|below|under|at most|up to) ?$")
_MORE = re.compile(r"(?:>|≥|more than|greater than|higher than|above|over|at least) ?$")
_NEGATIVE = re.compile(r"(?:^|[\s(\[=:;,<>])-$|\bminus $")
_NEXT_WORD = re.compile(r"[ -]?([a-z]+)")
_DOWN = re.compile(r"\b(?:decreas|declin|reduc|fell|fall|drop|lower|less|loss|lost|negativ|minus|below)")

_UNITS = {
    "%": ("%", "percent", "per cent", "percentage points?"),
    "ng": ("ng", "nanograms?"),
    "µg": ("μg", "ug", "mcg", "micrograms?"),
    "mg": ("mg", "milligrams?"),
    "g": ("g", "grams?"),
    "kg": ("kg", "kilograms?"),
    "ml": ("ml", "millilit(?:er|re)s?"),
    "l": ("l", "lit(?:er|re)s?"),
    "nm": ("nm",),
    "µm": ("μm",),
    "mm": ("mm", "millimet(?:er|re)s?"),
    "cm": ("cm", "centimet(?:er|re)s?"),
    "m": ("m", "met(?:er|re)s?"),
    "km": ("km", "kilomet(?:er|re)s?"),
    "mile": ("miles?",),
    "s": ("s", "seconds?"),
    "min": ("min", "minutes?"),
    "h": ("h", "hours?", "hrs?"),
    "day": ("days?",),
    "week": ("weeks?",),
    "month": ("months?",),
    "year": ("years?", "yrs?"),
    "°c": ("° ?c",),
    "€": ("€", "euros?", "eur"),
    "$": (r"\$", "dollars?", "usd"),
}
_UNIT_NAMES = {f"u{number}": unit for number, unit in enumerate(_UNITS)}
_UNIT = re.compile(
    r" ?-?(?:"
    + "|".join(f"(?P<u{number}>{'|'.join(forms)})" for number, forms in enumerate(_UNITS.values()))
    + r")(?![a-z])"
)
_CURRENCY = {"€": "€", "$": "$"}


@dataclass(frozen=True)
class Quantity:
    """A number with what stands around it.

    Attributes:
        value: in plain digits: "3440" for 3,440 and for "three thousand four hundred and forty".
        negative: whether a minus stands before it.
        units: what it may be counted in, "" for none; of "4 to 9%" the 4 may be a percentage or a bare number.
        bound: "<" or ">" when it is an upper or a lower bound, else "".
        counted: the word behind it.
        demanded: False for a small spelled number, which may count what a source lists.
    """

    value: str
    negative: bool
    units: frozenset[str]
    bound: str
    counted: str
    demanded: bool = True


def quantities(text: str) -> list[Quantity]:
    """Return the quantities of a text in their order, digits first, then those spelled out."""
    text = normalize(text)
    found = [(match.start(), match.end(), _plain(match.group())) for match in _DIGITS.finditer(text)]
    result: list[Quantity] = []
    later: tuple[int, frozenset[str]] = (len(text), frozenset())
    for start, end, value in reversed(found):
        scale = _SCALE.match(text, end)
        if scale:
            value, end = _times(value, _SCALES[scale[1]]), scale.end()
        units = _units(text, start, end)
        if units == {""} and _BETWEEN.fullmatch(text, end, later[0]):
            units |= later[1]
        result.append(_quantity(text, start, end, value, units))
        later = (start, units)
    return [*reversed(result), *_spelled(text)]


def _spelled(text: str) -> Iterator[Quantity]:
    for match in _WORDS.finditer(text):
        value = _small(match[1]) * _SCALES.get(match[2] or "", 1) + _small(match[3] or "zero")
        if value == 1:  # "one" is mostly no number
            continue
        units, demanded = _units(text, match.start(), match.end()), value >= _LEAST_DEMANDED or bool(match[4])
        yield _quantity(text, match.start(), match.end(), str(value), units, demanded)


def _small(words: str) -> int:
    return sum(_SPELLED[word] for word in re.split("[- ]", words))


def _quantity(text: str, start: int, end: int, value: str, units: frozenset[str], demanded: bool = True) -> Quantity:
    before = text[max(0, start - 15) : start]
    negative = bool(_NEGATIVE.search(before))
    before = before.removesuffix("-") if negative else before
    bound = "<" if _LESS.search(before) else ">" if _MORE.search(before) else ""
    word = _NEXT_WORD.match(text, end)
    return Quantity(value, negative, units, bound, word[1] if word else "", demanded)


def _plain(digits: str) -> str:
    """Return a number without thousands separators and idle zeros; a version such as 1.2.3 stays as it is."""
    digits = re.sub(r"[, ](?=\d{3}(?:\D|$))", "", digits)
    try:
        return f"{Decimal(digits.replace(',', '.')).normalize():f}"
    except InvalidOperation:
        return digits


def _times(value: str, scale: int) -> str:
    try:
        return f"{(Decimal(value) * scale).normalize():f}"
    except InvalidOperation:
        return value


def _units(text: str, start: int, end: int) -> frozenset[str]:
    match = _UNIT.match(text, end)
    before = text[start - 1 : start] if start else ""
    unit = _UNIT_NAMES[match.lastgroup or ""] if match else _CURRENCY.get(before, "")
    return frozenset({unit})


def _same_unit(one: Quantity, other: Quantity) -> bool:
    """Tell whether two may be counted in the same; a missing unit fits any but percent, which changes the meaning."""
    if one.units & other.units:
        return True
    if "%" in one.units | other.units:
        return False
    return "" in one.units | other.units


def quantity_fault(claim: str, source: str) -> str | None:
    """Return what is wrong with the quantities of a claim, measured against those of its source, or None.

    Value, then unit, sign and bound must agree with one and the same quantity of the source. A fall may be told
    without its minus: "-3.2" is "a decrease of 3.2".
    """
    known = quantities(source)
    falls = bool(_DOWN.search(normalize(claim)))
    for quantity in quantities(claim):
        fault = _fault(quantity, known, falls)
        if fault:
            return fault
    return None


def _fault(quantity: Quantity, known: Iterable[Quantity], falls: bool) -> str | None:
    known = list(known)
    fitting = [other for other in known if other.value == quantity.value]
    if not fitting:
        rivals = [other for other in known if quantity.counted and other.counted == quantity.counted]
        return "number that its source lacks" if quantity.demanded or rivals else None
    fitting = [other for other in fitting if _same_unit(quantity, other)]
    if not fitting:
        return "number in another unit than its source"
    fitting = [q for q in fitting if q.negative == quantity.negative or (q.negative and falls)]
    if not fitting:
        return "number with another sign than its source"
    if all({quantity.bound, other.bound} == {"<", ">"} for other in fitting):
        return "number bounded on the other side than in its source"
    return None
