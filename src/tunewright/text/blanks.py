"""Values that a sentence states (a quantity, a year, a name), each with its context and a blank in its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import regex

from tunewright.text.normalization import is_unspaced, words
from tunewright.text.perturbation import is_bound
from tunewright.text.values import holds_value, number_value

ValueKind = Literal["percentage", "year", "decimal", "count", "name", "word"]

BLANK = "____"
_LETTER = r"(?![\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])\w"  # of a script with spaces: it would belong to the number
# Korean writes the unit and the particle behind the number: 1948년에.
_NUMBER = regex.compile(rf"(?<!{_LETTER}|[.,/–−-])\d+(?:[.,]\d+)*(?!(?!\p{{Hangul}}){_LETTER}|[/–−-]|[.,]\d)")
_PERCENT = re.compile(r"\s?(?:%|٪|percent\b|per cent\b|Prozent\b|por ciento\b|процент|퍼센트)")
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
_CHARACTERS_BEFORE, _CHARACTERS_AFTER = 12, 10  # of scripts without spaces, where a character counts as a word
# Words that name something: long ones, or runs between the characters that most sentences have.
_WORD = regex.compile(r"(?<=\s[«„“\"'(]*)[\p{L}\p{M}]{5,}(?=[\s,.;:!?،؛।)»“”\"]|$)")
# Korean puts particles behind nouns: the stem before one, but of no verb ("받을", "있느냐에"), nor of "민주주의".
_PARTICLES = "(?<![받있없않했였았었겠같많좋얻찾먹읽믿죽낳높낮놓넣])을|를|에게|에서|(?<!냐)에|으로|(?<!주)의"
_STEM = regex.compile(rf"(?<!\p{{L}})\p{{Hangul}}{{2,}}?(?=(?:{_PARTICLES})(?:[\s,.;:!?)”\"]|$))")
_OBJECT, _TO = re.compile(r"^[을를](?=\W|$)"), re.compile(r"^(?:으로|로)(?=\W|$)")
_HANGUL = regex.compile(r"\p{Hangul}")
# Vietnamese parts its words into syllables, of which four letters are long. Romanian has "ă" as well.
_TONES = regex.compile(r"[đơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]")
_SYLLABLE = regex.compile(r"(?<=\s[«„“\"'(]*)[\p{L}\p{M}]{4,}(?=[\s,.;:!?)»“”\"]|$)")
_RUN = regex.compile(r"(?<!\p{Katakana})\p{Katakana}{3,}(?!\p{Katakana})|(?<!\p{Han})\p{Han}{2,4}(?!\p{Han})")
_FUNCTION = (
    "的了在和与或及对不是有为以于其之者所而且并由被把从到等中上下都也就"
    "要会可能应任何人个这那一各凡该此无论若如因使得地过着与"
)


@dataclass(frozen=True)
class Blank:
    """A value in a sentence, with the words around it.

    Attributes:
        kind: of the value; values of one kind can stand in for each other.
        value: as the sentence writes it.
        before: up to ten words before it.
        after: up to eight words after it.
        is_joined: whether nothing parts the value from what is after it: a unit or a particle in Korean.
    """

    kind: ValueKind
    value: str
    before: str
    after: str
    is_joined: bool = False

    @property
    def text(self) -> str:
        """The context with the value blanked out."""
        if is_unspaced(self.before + self.after):
            return f"{self.before}{BLANK}{self.after}".strip("，、；：。 ")
        if self.is_joined:  # particles that follow the value's last sound are written for both, as Korean exams do
            after = _TO.sub("(으)로", _OBJECT.sub("을(를)", self.after))
            return f"{self.before} {BLANK}{after}".strip(" ,;:")
        joined = "" if self.after[:1] in "%,.;:)" else " "
        return f"{self.before} {BLANK}{joined}{self.after}".strip(" ,;:")

    @property
    def context(self) -> str:
        """The words right around the blank: another document with the same ones may state another value."""
        return " ".join([*words(self.before)[-3:], BLANK, *words(self.after)[:2]])


def blanks(sentence: str) -> list[Blank]:
    """Return the values of a sentence that a reader of the rest could be asked for, in the order of the text."""
    spans = [*_numbers(sentence), *_names(sentence)]
    return _of_spans(sentence, sorted(spans, key=lambda item: item[1]))


def word_blanks(sentence: str) -> list[Blank]:
    """Return the words of a sentence that name something, for texts that state few values: laws, letters, rules.

    Of scripts with spaces, words of five letters or more, not the first; of Korean, nouns before a particle; of
    Vietnamese, long syllables. Of other scripts, runs of two to four characters between those of grammar.
    """
    if is_unspaced(sentence):
        plain = sentence.translate(dict.fromkeys(map(ord, _FUNCTION), "，"))
        spans = [match.span() for match in _RUN.finditer(plain)]
    else:
        is_korean = len(_HANGUL.findall(sentence)) >= len(sentence) / 3
        is_vietnamese = len(_TONES.findall(sentence)) >= len(sentence.split()) / 4
        pattern = _STEM if is_korean else _SYLLABLE if is_vietnamese else _WORD
        spans = [match.span() for match in pattern.finditer(sentence)]
    return _of_spans(sentence, [("word", start, end) for start, end in spans])


def _of_spans(sentence: str, spans: Iterable[tuple[ValueKind, int, int]]) -> list[Blank]:
    result = []
    for kind, start, end in spans:
        value = sentence[start:end]
        if is_unspaced(sentence):
            before, after = (
                sentence[max(0, start - _CHARACTERS_BEFORE) : start],
                sentence[end : end + _CHARACTERS_AFTER],
            )
        else:
            before = " ".join(sentence[:start].split()[-_MOST_BEFORE:])
            after = " ".join(sentence[end:].rstrip(".!? ।۔").split()[:_MOST_AFTER])
        enough = len(words(before)) + len(words(after)) >= _LEAST_CONTEXT
        is_joined = bool(_HANGUL.match(sentence, end))
        is_given = holds_value(f"{before} {after}", value) or is_joined and value in f"{before} {after}"
        if enough and not is_given:
            result.append(Blank(kind, value, before, after, is_joined))
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
        plain = number_value(match.group())
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
