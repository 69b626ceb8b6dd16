"""The quantities of a text: value, sign, unit and bound, whether written in digits or spelled out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from tunewright.text.normalization import normalize, words

_UNITS_IN_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELLED = {word: value for value, word in enumerate([*_UNITS_IN_WORDS, *_TEENS])}
_SPELLED |= {word: 10 * value for value, word in enumerate(_TENS, 2)}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_LEAST_DEMANDED = 11  # a smaller spelled number may count items that the source lists: "three crops"

_SMALL = rf"(?:(?:{'|'.join(_TENS)})[- ](?:{'|'.join(_UNITS_IN_WORDS[1:])})|{'|'.join(_SPELLED)})"
_WORDS = re.compile(
    rf"\b({_SMALL})(?:[- ]({'|'.join(_SCALES)})(?: (?:and )?({_SMALL}))?)?(fold)?\b"
    r"(?![- ](?:thirds?|quarters?|fourths?|half))"
)
# Digits after a letter belong to a name (IL-23, p53). A space parts thousands only between groups of three.
_DIGITS = re.compile(
    r"(?<![a-z\d.,])(?<![a-z]-)(?:\d{1,3}(?: \d{3})+(?![\d.,]\d)(?!\d)|\d+(?:[.,]\d+)*)|(?<=[a-z]\.)\d+\.\d+"
)
_HAN_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_SCALES = {"十": 10, "百": 100, "千": 1_000, "万": 10_000, "萬": 10_000, "亿": 100_000_000, "億": 100_000_000}
_HAN = f"[{''.join(_HAN_DIGITS)}]"
_CHARACTERS = re.compile(
    rf"(?={_HAN[:-1]}十百千]{{2}}|{_HAN}[万萬亿億]){_HAN[:-1]}{''.join(_HAN_SCALES)}]*[{''.join(_HAN_SCALES)}]{_HAN}?"
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
    """A number with its context.

    Attributes:
        value: in plain digits: "3440" for 3,440 and for "three thousand four hundred and forty".
        negative: whether a minus precedes it.
        units: its possible units, "" for none; the 4 of "4 to 9%" may be a percentage or a bare number.
        bound: "<" or ">" when it is an upper or a lower bound, else "".
        counted: the word after it.
        demanded: whether the source must have it; False for a small spelled number, which may count listed items.
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
    digits = [(match.start(), match.end(), _plain(match.group())) for match in _DIGITS.finditer(text)]
    result: list[Quantity] = []
    later: tuple[int, frozenset[str]] = (len(text), frozenset())
    for start, end, value in reversed(digits):
        scale = _SCALE.match(text, end)
        if scale:
            value, end = _times(value, _SCALES[scale[1]]), scale.end()
        units = _units(text, start, end)
        if units == {""} and _BETWEEN.fullmatch(text, end, later[0]):
            units |= later[1]
        result.append(_quantity(text, start, end, value, units))
        later = (start, units)
    return [*reversed(result), *_spelled(text), *_in_characters(text)]


def _spelled(text: str) -> Iterator[Quantity]:
    for match in _WORDS.finditer(text):
        value = _small(match[1]) * _SCALES.get(match[2] or "", 1) + _small(match[3] or "zero")
        if value == 1:  # "one" is mostly no number
            continue
        units, demanded = _units(text, match.start(), match.end()), value >= _LEAST_DEMANDED or bool(match[4])
        yield _quantity(text, match.start(), match.end(), str(value), units, demanded)


def _in_characters(text: str) -> Iterator[Quantity]:
    """Yield the numbers in Chinese characters, such as 一百二十; a single one rather counts things."""
    for match in _CHARACTERS.finditer(text):
        value = _value_of_characters(match[0])
        units = _units(text, match.start(), match.end())
        yield _quantity(text, match.start(), match.end(), str(value), units, demanded=False)


def _value_of_characters(characters: str) -> int:
    total = section = digit = 0
    for character in characters:
        if character in _HAN_DIGITS:
            digit = 10 * digit + _HAN_DIGITS[character] if digit else _HAN_DIGITS[character]
            continue
        scale = _HAN_SCALES[character]
        if scale >= 10_000:
            total, section = total + max(1, section + digit) * scale, 0
        else:
            section += max(1, digit) * scale
        digit = 0
    return total + section + digit


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


def _same_unit(first: Quantity, second: Quantity) -> bool:
    """Return whether two may have the same unit; a missing unit fits all but percent, which changes the meaning."""
    if first.units & second.units:
        return True
    if "%" in first.units | second.units:
        return False
    return "" in first.units | second.units


def quantity_fault(claim: str, source: str) -> str | None:
    """Return the fault of the first quantity of a claim that its source does not have, or None.

    Value, then unit, sign and bound must agree with a single quantity of the source. A decrease may be stated without
    its minus: "-3.2" is "a decrease of 3.2".
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


_DIGIT_GROUPS = re.compile(r"\d+(?:[.,]\d+)*")
# A number on its own: not the 4 of CD4, the 19 of COVID-19 or the 3 of 3D, nor a citation's [1].
_NUMBER = re.compile(r"(?<![\w.,\[])(?<!\w-)\d+(?:[.,]\d+)*(?![\w\]]|[.,]\d|-\w)")
_PERCENT = re.compile(r"\s?(?:%|percent\b|per cent\b)")
_CONFIDENCE = re.compile(r"\s?%?\s*(?:CI\b|confidence|credible)")
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_COUNTED = words("zero one two three four five six seven eight nine ten eleven twelve")
_WRITTEN = {word: str(number) for number, word in enumerate(_COUNTED)}
_NAME = re.compile(r"[^\W\d_][\w-]*(?: [^\W\d_][\w-]*)*")
_WORD = re.compile(r"[^\W\d_][\w-]*")
_MONTHS = frozenset(  # "may" is also a verb
    words("january february march april june july august september october november december")
)
_NO_NAMES = frozenset(words("i a an the ci sd se iqr or aor hr rr irr vs"))  # statistics are no entities
_ACRONYM = re.compile(r"\w*[A-Z]\w*[A-Z]\w*(?:-[A-Z\d]+)*")
_LONGEST_ACRONYM = 6  # longer capitals are headings and shouting


@dataclass(frozen=True)
class Fact:
    """A number or name at ``start:end`` of its text; facts of the same kind can replace each other."""

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
    digits = {plain_number(number) for number in _DIGIT_GROUPS.findall(text)}
    return digits | {_WRITTEN[word] for word in words(text) if word in _WRITTEN}


def number_facts(text: str) -> list[Fact]:
    """Return the numbers that can be swapped, by kind: percentages, years, decimals and whole numbers.

    The 95 of "95% CI" is left out: it is the method's.
    """
    facts = []
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
        facts.append(Fact(match.start(), match.end(), number, kind))
    return facts


def _starts_sentence(text: str, start: int) -> bool:
    before = text[max(0, start - 4) : start].rstrip(" \t\"'([*_")
    return start == 0 or not before or before.endswith((".", "!", "?", ":", ";", "\n", "#", "-", "|"))


def _is_name(word: str, starts: bool) -> bool:
    capitals = sum(map(str.isupper, word))
    if word.casefold() in _NO_NAMES or (word.isupper() and len(word) > _LONGEST_ACRONYM):
        return False
    return capitals > 1 or (word[0].isupper() and not starts and len(word) > 1)


def _runs(text: str) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the runs of name words with single spaces between them."""
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


def name_facts(text: str) -> list[Fact]:
    """Return the names: acronyms, and runs of words whose capital does not start a sentence.

    The kind is "acronym", "month", or "name" with its number of words.
    """
    facts = []
    for start, end, run in _runs(text):
        if len(run) == 1 and run[0].casefold() in _MONTHS:
            kind = "month"
        elif len(run) == 1 and _ACRONYM.fullmatch(run[0]):
            kind = "acronym"
        else:
            kind = f"name of {len(run)}"
        facts.append(Fact(start, end, text[start:end], kind))
    return facts


def name_words(text: str) -> set[str]:
    """Return the normalized words of all names of a text."""
    return {word for name in name_facts(text) for word in words(name.text.replace("-", " "))}


def states_unknown_facts(text: str, source: str) -> bool:
    """Return whether a text has a number or a name that its source lacks."""
    if not number_values(text) <= number_values(source):
        return True
    return not name_words(text) <= set(words(source.replace("-", " ")))
