"""Text shared by all stages: normalized form, words, n-grams, quotes, and the wording of questions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence, Set
from typing import Any, TypeVar

import regex
from rapidfuzz import fuzz

Token = TypeVar("Token")

# A word has letters with their marks, and digits; where a script has no spaces, each character is one. Numbers keep
# their inner points and commas.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|(?:(?![{_UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}_])+(?:[.,]\p{{Nd}}+)*")
_ASCII_WORD = re.compile(r"\w+(?:[.,]\d+)*")  # the same, five times faster
_PLAIN = str.maketrans("‘’“”–—−٫٬٪", "''\"\"---.,%")
_HANGUL = regex.compile(r"\p{Hangul}")
_UNSPACED_CHARACTER = regex.compile(rf"[{_UNSPACED}]")
_EXPONENT = re.compile(r"(?<=[0-9])(?=[⁰¹²³⁴-⁹⁺⁻])")  # 10⁶ is not 106
_DIGIT = regex.compile(r"(?![0-9])\p{Nd}")  # of other scripts
# The length and the form of a sentence that can be evidence.
_MIN_WORDS, _MAX_WORDS = 8, 60
_START = regex.compile(r"[\"'“‘«„¿¡(\[]*[\p{Lu}\p{Lt}\p{Lo}\p{Nd}]")
_STOP = regex.compile(r"[.!。！।॥؟۔…][\"'”“’»)\]）」』]*(?: »)?$")
_CASED = regex.compile(r"[\p{Lu}\p{Ll}]")
_CHARACTERS_PER_WORD = 2  # of scripts without spaces
_CAPTION = re.compile(r"(?:fig(?:ure)?|table|key\s?words?|abbreviations|trial registration|©|copyright)\b", re.I)
_REFERS_TO_TEXT = re.compile(
    r"\b(?:the|this|that|given|above|following|provided)\s+(?:given\s+)?"
    r"(?:text|passage|sentence|paragraph|excerpt|context|abstract|document|title|statement|question|answer)\b",
    re.IGNORECASE,
)


def normalize(text: str) -> str:
    """Return the text in compatibility form (NFKC), case-folded, with single spaces, plain quotes and digits."""
    if text.isascii():
        return " ".join(text.casefold().split())
    text = unicodedata.normalize("NFKC", _EXPONENT.sub("^", text)).casefold()
    if not text.isascii():
        text = _DIGIT.sub(lambda match: str(unicodedata.digit(match[0])), text.translate(_PLAIN))
    return " ".join(text.split())


def replace_lone_surrogates(value: Any) -> Any:
    """Return a JSON value that can be written as UTF-8: lone surrogates, such as those of a cut emoji, are replaced."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [replace_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {replace_lone_surrogates(key): replace_lone_surrogates(item) for key, item in value.items()}
    return value


def words(text: str) -> list[str]:
    """Return the words of the normalized text; of scripts without spaces, the characters."""
    plain = normalize(text)
    return list((_ASCII_WORD if plain.isascii() else _WORD).findall(plain))


def ngrams(tokens: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """Return the n-grams of ``size`` tokens."""
    return set(runs(tokens, size))


def runs(tokens: Sequence[Token], size: int) -> Iterator[tuple[Token, ...]]:
    """Yield the runs of ``size`` tokens, in order."""
    return zip(*(tokens[start:] for start in range(size)), strict=False)


def shingles(tokens: Sequence[str], size: int) -> frozenset[tuple[str, ...]]:
    """Return the n-grams of ``size`` tokens; of a shorter text, all its tokens as one; of no tokens, none."""
    return frozenset(ngrams(tokens, min(size, len(tokens)))) if tokens else frozenset()


def jaccard(a: Set[tuple[str, ...]], b: Set[tuple[str, ...]]) -> float:
    """Return the Jaccard similarity of two sets of n-grams, in [0, 1]; 1 for two empty sets."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0


def is_unspaced(text: str) -> bool:
    """Return whether a third of the text or more is in a script without spaces between words."""
    return len(_UNSPACED_CHARACTER.findall(text)) >= len(text) / 3 > 0


def num_words(text: str) -> int:
    """Return how many words a text has; of scripts without spaces, and of Hangul, two characters count as one.

    What a space parts in Korean is a word with its particles, which other languages write as two or three.
    """
    if is_unspaced(text):
        return len(_UNSPACED_CHARACTER.findall(text)) // _CHARACTERS_PER_WORD
    syllables = len(_HANGUL.findall(text)) if not text.isascii() else 0
    return syllables // _CHARACTERS_PER_WORD if syllables >= len(text) / 3 > 0 else len(text.split())


def is_evidence(sentence: str) -> bool:
    """Return whether a sentence is a statement: not a heading, list of keywords, caption, question or fragment."""
    tokens = sentence.split()
    if not _MIN_WORDS <= num_words(sentence) <= _MAX_WORDS:
        return False
    if not _START.match(sentence) or not _STOP.search(sentence) or _CAPTION.match(sentence):
        return False
    letters = sum(character.isalpha() or unicodedata.category(character)[0] == "M" for character in sentence)
    if letters < 0.6 * sum(map(len, tokens)):
        return False
    if 2 * len(_CASED.findall(sentence)) < letters:  # a script without capitals
        return True
    lower = sum(token[:1].islower() for token in tokens)
    separators = sum(token.endswith((",", ";")) for token in tokens)
    return lower >= 0.4 * len(tokens) and separators <= 0.35 * len(tokens)


def find_quote(quote: str, text: str, bound: float) -> tuple[int, int, float] | None:
    """Return (start, end, score) of the best match of a quote in a text, or None if it scores below the bound.

    A match that is exact after normalization scores 100; others score the edit similarity of the best alignment
    (rapidfuzz partial_ratio).

    Args:
        quote: the text to find.
        text: the text to search.
        bound: the lowest accepted score, 0 to 100.
    """
    quote = quote.strip()
    if not quote or not text:
        return None
    start = text.find(quote)
    if start >= 0:
        return start, start + len(quote), 100.0
    needle, (haystack, origin) = normalize(quote), _normalize_with_origin(text)
    at = haystack.find(needle)
    if at >= 0:
        return origin[at], origin[at + len(needle) - 1] + 1, 100.0
    if len(needle) > len(haystack):
        return None
    match = fuzz.partial_ratio_alignment(needle, haystack, score_cutoff=bound)
    if match is None or match.score < bound or match.dest_end <= match.dest_start:
        return None
    start, end = _whole_words(text, origin[match.dest_start], origin[match.dest_end - 1] + 1)
    return start, end, float(match.score)


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span extended to word borders, without outer white space."""
    while start < end and text[start].isspace():
        start += 1
    while start > 0 and text[start].isalnum() and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return start, end


def _normalize_with_origin(text: str) -> tuple[str, list[int]]:
    """Return the normalized text and, for each of its characters, the offset of its source in the text."""
    characters: list[str] = []
    origin: list[int] = []
    for offset, character in enumerate(text):
        for piece in normalize(character) or (" " if character.isspace() else ""):
            if piece == " " and (not characters or characters[-1] == " "):
                continue
            characters.append(piece)
            origin.append(offset)
    return "".join(characters).rstrip(), origin


def question_fault(question: str, answer: str) -> str | None:
    """Return why a question is unfit for an exam or a training set, or None.

    The rules need no model: length, form, references to a text that the reader does not see, and questions that
    give the answer away.
    """
    question_words, answer_words = words(question), words(answer)
    if len(question_words) < 4:
        return "question too short"
    if num_words(question) > 60:
        return "question too long"
    if not question.strip().endswith(("?", "？", "؟", "\u037e")):
        return "not a question"
    if _REFERS_TO_TEXT.search(question):
        return "question refers to the text"
    if len(answer_words) >= 4 and normalize(answer).rstrip(".") in normalize(question):
        return "question holds the answer"
    if len(question_words) >= len(answer_words) >= 6:
        likeness = fuzz.token_set_ratio(" ".join(question_words), " ".join(answer_words))
        return "question copies the answer" if likeness >= 97 else None
    return None
