"""Text shared by all stages: normalized form, words, sentences, n-grams, quotes, and the wording of questions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence, Set
from typing import Any

from rapidfuzz import fuzz

_WORD = re.compile(r"\w+(?:[.,]\d+)*", re.UNICODE)
_PLAIN = str.maketrans("‘’“”–—−", "''\"\"---")
# A sentence ends at . ! or ? before white space and something that can start a sentence.
_END = re.compile(r"[.!?][\"')\]]*(?=\s+[\"'(\[]?[A-Z0-9])|\n\s*\n")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|et al|vs|cf|ca|approx|Fig|Figs|Eq|Dr|Mr|Mrs|Ms|Prof|No|Nos|St|Chr|spp?|pv|var|resp)|\b[A-Z])\.$"
)
# The length and the form of a sentence that can be evidence.
_MIN_WORDS, _MAX_WORDS = 8, 60
_START = re.compile(r"[\"'“‘(\[]?[A-Z0-9À-Þ]")
_STOP = re.compile(r"[.!][\"'”’)\]]*$")
_CAPTION = re.compile(r"(?:fig(?:ure)?|table|key\s?words?|abbreviations|trial registration|©|copyright)\b", re.I)
_REFERS_TO_TEXT = re.compile(
    r"\b(?:the|this|that|given|above|following|provided)\s+(?:given\s+)?"
    r"(?:text|passage|sentence|paragraph|excerpt|context|abstract|document|title|statement|question|answer)\b",
    re.IGNORECASE,
)


def normalize(text: str) -> str:
    """Return the text in compatibility form (NFKC), case-folded, with single spaces, plain quotes and dashes."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.translate(_PLAIN).split())


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
    """Return the words of the normalized text; numbers keep their inner points and commas."""
    return _WORD.findall(normalize(text))


def ngrams(tokens: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """Return the n-grams of ``size`` tokens."""
    return {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}


def shingles(tokens: Sequence[str], size: int) -> frozenset[tuple[str, ...]]:
    """Return the n-grams of ``size`` tokens; of a shorter text, all its tokens as one; of no tokens, none."""
    return frozenset(ngrams(tokens, min(size, len(tokens)))) if tokens else frozenset()


def jaccard(a: Set[tuple[str, ...]], b: Set[tuple[str, ...]]) -> float:
    """Return the Jaccard similarity of two sets of n-grams, in [0, 1]; 1 for two empty sets."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0


def sentences(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) offsets of the sentences of a text, in order, without outer white space."""
    bounds = []
    start = 0
    for match in _END.finditer(text):
        if _ABBREVIATION.search(text[start : match.end()]):
            continue
        bounds.append((start, match.end()))
        start = match.end()
    bounds.append((start, len(text)))
    spans = []
    for low, high in bounds:
        piece = text[low:high]
        if piece.strip():
            spans.append((low + len(piece) - len(piece.lstrip()), low + len(piece.rstrip())))
    return spans


def is_evidence(sentence: str) -> bool:
    """Return whether a sentence is a statement: not a heading, list of keywords, caption, question or fragment."""
    tokens = sentence.split()
    if not _MIN_WORDS <= len(tokens) <= _MAX_WORDS:
        return False
    if not _START.match(sentence) or not _STOP.search(sentence) or _CAPTION.match(sentence):
        return False
    letters = sum(map(str.isalpha, sentence))
    lower = sum(token[:1].islower() for token in tokens)
    separators = sum(token.endswith((",", ";")) for token in tokens)
    return letters >= 0.6 * sum(map(len, tokens)) and lower >= 0.4 * len(tokens) and separators <= 0.35 * len(tokens)


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
    if len(question_words) > 60:
        return "question too long"
    if not question.strip().endswith("?"):
        return "not a question"
    if _REFERS_TO_TEXT.search(question):
        return "question refers to the text"
    if len(answer_words) >= 4 and normalize(answer).rstrip(".") in normalize(question):
        return "question holds the answer"
    if len(question_words) >= len(answer_words) >= 6:
        likeness = fuzz.token_set_ratio(" ".join(question_words), " ".join(answer_words))
        return "question copies the answer" if likeness >= 97 else None
    return None
