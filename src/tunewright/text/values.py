"""Values (quantity, date, name, phrase): whether a text holds one, and whether an answer gives the right one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from os.path import commonprefix

from tunewright.text.languages import DOTTED_THOUSANDS, language_code
from tunewright.text.normalization import normalize, words
from tunewright.text.quantities import Quantity, quantities

_DOTTED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3})+(?![\d.]*\d)")
_MENTION = re.compile(r"\d+(?:[.,]\d+)*")
# Units of one dimension, each as a multiple of the first.
_MULTIPLES = (
    {"g": "1", "ng": "1e-9", "µg": "1e-6", "mg": "1e-3", "kg": "1000"},
    {"m": "1", "nm": "1e-9", "µm": "1e-6", "mm": "1e-3", "cm": "0.01", "km": "1000"},
    {"l": "1", "ml": "1e-3"},
    {"s": "1", "min": "60", "h": "3600"},
)
_MONTH_NAMES = words("january february march april may june july august september october november december")
_MONTHS = {name[:length]: number for number, name in enumerate(_MONTH_NAMES, 1) for length in (3, 4, len(name))}
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\.?"
_DAY, _YEAR = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?", r"(?P<year>\d{4})"
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})\b",
        r"\b(?P<day>\d{1,2})\.\s?(?P<month>\d{1,2})\.\s?(?P<year>\d{4})\b",
        rf"\b{_DAY}(?: of)? {_MONTH},? {_YEAR}\b",
        rf"\b{_MONTH} {_DAY},? {_YEAR}\b",
        rf"(?<!\d )\b{_MONTH},? {_YEAR}\b",
    )
)
_TITLES = frozenset(["dr", "prof", "professor", "mr", "mrs", "ms", "miss", "sir", "dame", "lord", "phd", "md"])
_ARTICLES = frozenset(("a", "an", "the"))
_MOST_WORDS_OF_QUANTITY = 2  # beside its number: "5 kg", "120 older adults"

Date = tuple[int, int, int]  # year, month, day; day 0: the month alone


def number_value(text: str) -> Decimal | None:
    """Return the value of a number in digits: commas between groups of three part thousands; None of other text."""
    plain = text.replace(",", "") if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", text) else text
    try:
        return Decimal(plain.replace(",", ".")).normalize()
    except InvalidOperation:
        return None


def holds_value(text: str, value: str) -> bool:
    """Return whether a text holds a value: a number by its size, anything else word for word after normalization."""
    if (wanted := number_value(value)) is not None:
        return any(number_value(match) == wanted for match in _MENTION.findall(text))
    return f" {' '.join(words(value))} " in f" {' '.join(words(text))} "


def value_distance(first: str, second: str) -> float:
    """Return how far apart two values are: numbers by the logarithm of their ratio, other text by its form.

    Form is the case of the first letter, the last three letters, which often show the part of speech, and the length.
    """
    left, right = number_value(first), number_value(second)
    if left is None or right is None or left <= 0 or right <= 0:
        ending = len(commonprefix([first[:-4:-1].lower(), second[:-4:-1].lower()]))
        return abs(len(first) - len(second)) + 3.0 * (3 - ending) + 9.0 * (first[:1].isupper() != second[:1].isupper())
    return abs(math.log(left / right))


def gives_value(answer: str, golds: Sequence[str], question: str) -> bool:
    """Return whether an answer gives one of the right values, as a person would mark it.

    - "3.440" is 3440 where the question's language parts thousands by a dot.
    - A quantity: the first one in the answer that the question does not hold has its value and sign, in digits or in
      words; where both have units, they are the same, or convert into each other ("5 kg", "5000 g").
    - A date, however it is written; a gold without a day needs no day.
    - Any other text: its words in a row, apart from articles, titles ("Dr.") and single initials.
    """
    if (_DOTTED.search(answer) or any(map(_DOTTED.search, golds))) and language_code(question) in DOTTED_THOUSANDS:
        answer, golds = _without_dots(answer), [_without_dots(gold) for gold in golds]
    return any(_gives(answer, gold, question) for gold in golds)


def _without_dots(text: str) -> str:
    return _DOTTED.sub(lambda match: match[0].replace(".", ""), text)


def _gives(answer: str, gold: str, question: str) -> bool:
    if date := next(_dates(gold), None):
        return any(given[: 3 if date[2] else 2] == date[: 3 if date[2] else 2] for given in _dates(answer))
    if quantity := _whole_quantity(gold):
        excluded = {other.value for other in quantities(question)}
        given = [other for other in quantities(answer) if other.value not in excluded or other.value == quantity.value]
        return bool(given) and _same(given[0], quantity)
    wanted, spoken = _core(gold), _core(answer)
    return bool(wanted) and any(spoken[i : i + len(wanted)] == wanted for i in range(len(spoken) - len(wanted) + 1))


def _whole_quantity(gold: str) -> Quantity | None:
    """Return the quantity that a gold answer consists of, with a unit or the things it counts; else None."""
    values = quantities(gold)
    others = [word for word in words(gold) if not any(character.isdigit() for character in word)]
    few = len(others) <= _MOST_WORDS_OF_QUANTITY or not _MENTION.search(gold)
    whole = len(values) == 1 and few and gold.strip()[:1] not in "(" and not re.search(r"[A-Za-z]-?\d", gold)
    return values[0] if whole and (_MENTION.search(gold) or len(words(gold)) <= 5) else None


def _same(given: Quantity, gold: Quantity) -> bool:
    if given.negative != gold.negative:
        return False
    left, right = given.units - {""}, gold.units - {""}
    if not left or not right or left & right:
        return given.value == gold.value
    return any(
        unit in table and other in table and _times(given.value, table[unit]) == _times(gold.value, table[other])
        for table in _MULTIPLES
        for unit in left
        for other in right
    )


def _times(value: str, factor: str) -> Decimal | None:
    number = number_value(value)
    return None if number is None else (number * Decimal(factor)).normalize()


def _dates(text: str) -> Iterator[Date]:
    plain = normalize(text)
    for pattern in _DATES:
        for match in pattern.finditer(plain):
            groups = match.groupdict()
            month = _MONTHS.get(groups["month"]) or (int(groups["month"]) if groups["month"].isdigit() else 0)
            if 1 <= month <= 12 and int(groups.get("day") or 1) <= 31:
                yield int(groups["year"]), month, int(groups.get("day") or 0)


def _core(text: str) -> list[str]:
    """Return the words that name something: no articles, titles and single initials."""
    spoken = words(text)
    core = [word for word in spoken if word not in _TITLES | _ARTICLES and (len(word) > 1 or word.isdigit())]
    return core or spoken
