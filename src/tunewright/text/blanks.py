"""Values that a sentence states (a quantity, a year, a name), and whether an answer gives such a value."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

from tunewright.text.normalization import normalize, words
from tunewright.text.perturbation import is_bound

ValueKind = Literal["percentage", "year", "decimal", "count", "name"]

BLANK = "____"
_NUMBER = re.compile(r"(?<![\w.,/–−-])\d+(?:[.,]\d+)*(?![\w/–−-]|[.,]\d)")
_PERCENT = re.compile(r"\s?(?:%|percent\b|per cent\b)")
# A number of the statistics around a result ("p < 0.05", "95% CI", "n = 12") is no fact to ask for.
_BEFORE_STATISTIC = re.compile(
    r"(?:\b(?:p|n|r|t|f|z|d|OR|HR|RR|CI|SD|SE|IQR|alpha|kappa|beta)|[αβκχη]²?)\s?[=<>≤≥:]\s?$|±\s?$", re.I
)
_AFTER_STATISTIC = re.compile(r"\s?%?\s?(?:CI\b|confidence|credible)|\s?[±]")
# One of several numbers in a row ("after 3, 6 and 12 months"), or a part of a name ("Disease 2019", "version 13").
_BEFORE_IN_ROW = re.compile(r"\d%?,?\s(?:and\s|or\s|to\s)?$|\bbetween\s$|(?<!^)\b(?:[A-Z][\w-]*|version)\s$")
_AFTER_IN_ROW = re.compile(r"%?,?\s(?:and\s|or\s|to\s)?\d")
# A part of a longer name: "the iMTA Medical Consumption and Productivity Cost Questionnaire".
_BEFORE_IN_NAME = re.compile(r"(?:[A-Z][\w-]*\s(?:and\s|&\s)?|[A-Z]\w*[-/])$")
_AFTER_IN_NAME = re.compile(r"\s(?:and\s|&\s|of\s(?:the\s)?)?[A-Z\d]|[-/]")
_NAME = re.compile(
    r"\b[A-Z][\w’'-]*[a-z][\w’'-]*(?:\s+(?:(?:of|de|van|von|der|del|la|the)\s+){0,2}[A-Z][\w’'-]*[a-z][\w’'-]*){1,4}"
)
_MOST_BEFORE, _MOST_AFTER = 10, 8  # words of context: together with the blank no run of 13 words of the sentence
_LEAST_CONTEXT = 6
_MENTION = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Blank:
    """A value in a sentence, with the words around it.

    Attributes:
        kind: of the value; values of one kind can stand in for each other.
        value: as the sentence writes it.
        before: up to ten words before it.
        after: up to eight words after it.
    """

    kind: ValueKind
    value: str
    before: str
    after: str

    @property
    def text(self) -> str:
        """The context with the value blanked out."""
        joined = "" if self.after[:1] in "%,.;:)" else " "
        return f"{self.before} {BLANK}{joined}{self.after}".strip(" ,;:")

    @property
    def context(self) -> str:
        """The words right around the blank: another document with the same ones may state another value."""
        return " ".join([*words(self.before)[-3:], BLANK, *words(self.after)[:2]])


def blanks(sentence: str) -> list[Blank]:
    """Return the values of a sentence that a reader of the rest could be asked for, in the order of the text."""
    spans = [*_numbers(sentence), *_names(sentence)]
    result = []
    for kind, start, end in sorted(spans, key=lambda item: item[1]):
        value = sentence[start:end]
        before = " ".join(sentence[:start].split()[-_MOST_BEFORE:])
        after_words = sentence[end:].rstrip(".!? ").split()[:_MOST_AFTER]
        blank = Blank(kind, value, before, " ".join(after_words))
        enough = len(words(before)) + len(words(blank.after)) >= _LEAST_CONTEXT
        if enough and not holds_value(f"{before} {blank.after}", value):
            result.append(blank)
    return result


def _numbers(sentence: str) -> Iterator[tuple[ValueKind, int, int]]:
    for match in _NUMBER.finditer(sentence):
        start, end = match.span()
        head, tail = sentence[:start], sentence[end:]
        if is_bound(sentence, start, end) or _BEFORE_STATISTIC.search(head) or _AFTER_STATISTIC.match(tail):
            continue
        if _BEFORE_IN_ROW.search(head) or _AFTER_IN_ROW.match(tail):
            continue
        if _in_brackets(head) or start == 0:
            continue  # beside the statement, as a sample size or an interval; or its first word
        plain = _value(match.group())
        if plain is None or re.fullmatch(r"\d+,\d{1,2}|\d+,\d{4,}", match.group()):  # "4,4'-bis" is no quantity
            continue
        if _PERCENT.match(tail):
            yield "percentage", start, end
        elif match.group().isdigit() and len(match.group()) == 4 and 1800 <= plain <= 2100:
            yield "year", start, end
        elif "." in match.group():
            yield "decimal", start, end
        elif plain > 2:  # "2 groups" is guessed more than known
            yield "count", start, end


def _names(sentence: str) -> Iterator[tuple[ValueKind, int, int]]:
    for match in _NAME.finditer(sentence):
        head, tail = sentence[: match.start()], sentence[match.end() :]
        inside = _in_brackets(head) or _BEFORE_IN_NAME.search(head) or _AFTER_IN_NAME.match(tail)
        if head and not inside:  # the first word of a sentence has a capital anyway
            yield "name", match.start(), match.end()


def _in_brackets(head: str) -> bool:
    return any(head.count(left) > head.count(right) for left, right in ("()", "[]"))


def _value(number: str) -> Decimal | None:
    """Return a number's value: commas between groups of three part thousands, any other comma is a decimal point."""
    plain = number.replace(",", "") if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number) else number
    try:
        return Decimal(plain.replace(",", ".")).normalize()
    except InvalidOperation:
        return None


def holds_value(text: str, value: str) -> bool:
    """Return whether a text holds a value: a number by its size, anything else word for word after normalization."""
    if (wanted := _value(value)) is not None:
        return any(_value(match) == wanted for match in _MENTION.findall(text))
    return f" {' '.join(words(value))} " in f" {' '.join(words(text))} "


def value_distance(first: str, second: str) -> float:
    """Return how far apart two numbers are, as the absolute logarithm of their ratio; 0 for texts."""
    left, right = _value(first), _value(second)
    if left is None or right is None or left <= 0 or right <= 0:
        return 0.0
    return abs(math.log(left / right))


def gives_value(answer: str, golds: Sequence[str], question: str) -> bool:
    """Return whether an answer gives one of the right values.

    Of a number: the first one in the answer that the question does not hold has the value of a gold ("3,440" for 3440).
    Of any other text: the words of a gold occur in the answer in a row, and the question does not hold them already.
    Articles, case and punctuation do not count.
    """
    for gold in golds:
        number = _value(gold.strip(" .%"))
        if number is None:
            if normalize(gold) and holds_value(answer, gold):
                return True
            continue
        excluded = {_value(match) for match in _MENTION.findall(question)}
        values = [value for match in _MENTION.findall(answer) if (value := _value(match)) not in excluded]
        if values and values[0] == number:
            return True
    return False
