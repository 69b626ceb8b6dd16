"""Chunks of a document that respect its sections and sentences, with exact offsets."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from tunewright.records import Chunk, Document, Section, digest
from tunewright.text.sentences import sentences

_WORD_END = re.compile(r"(?<=\S)(?=\s|$)")


def chunk_document(document: Document, count_tokens: Callable[[str], int], max_tokens: int) -> list[Chunk]:
    """Return the document's chunks in reading order; together they hold all text of its sections.

    Sentences are packed greedily. A sentence longer than a chunk is cut at word borders, a word longer than a chunk
    between characters.

    Args:
        document: its sections must not overlap; without sections, its text is one section.
        count_tokens: returns the number of tokens of a text, in the student's vocabulary.
        max_tokens: the size limit of a chunk; a single character is never cut, even if it has more tokens.
    """
    full_text = Section(path=(), start=0, end=len(document.text))
    return [
        Chunk(
            id=digest(document.id, start, end),
            document=document.id,
            title=document.title,
            section=section.path,
            start=start,
            end=end,
            text=document.text[start:end],
            num_tokens=count_tokens(document.text[start:end]),
        )
        for section in document.sections or (full_text,)
        for start, end in _spans(document.text, section, count_tokens, max_tokens)
    ]


def _spans(
    text: str, section: Section, count_tokens: Callable[[str], int], max_tokens: int
) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) offsets of a section's chunks, in time linear to its length."""
    bounds = [(section.start + a, section.start + b) for a, b in sentences(text[section.start : section.end])]
    sentence_ends = [end for _, end in bounds]
    start = bounds[0][0] if bounds else section.end
    guess = _CHARS_PER_TOKEN * max_tokens
    while start < section.end:
        window = _window(text, start, section.end, count_tokens, max_tokens, guess)
        if window.num_tokens <= max_tokens:
            yield start, sentence_ends[-1]
            return
        end = _end(text, start, sentence_ends, window, count_tokens, max_tokens)
        yield start, end
        guess, start = end - start, end
        while start < section.end and text[start].isspace():
            start += 1


_CHARS_PER_TOKEN = 4  # before the first chunk is known
_SECANTS = 6  # then by bisection: token counts may be far from even


@dataclass(frozen=True)
class _Window:
    """A stretch of text that is longer than a chunk, or the whole rest; the search for a chunk's end stays inside."""

    end: int
    num_tokens: int


def _window(
    text: str, start: int, end: int, count_tokens: Callable[[str], int], max_tokens: int, guess: int
) -> _Window:
    """Return the window for the next chunk, from the characters of the one before: the whole rest is never counted."""
    length = guess + guess // 4 + 1
    while True:
        window = _Window(min(end, start + length), 0)
        window = _Window(window.end, count_tokens(text[start : window.end]))
        if window.num_tokens > max_tokens or window.end == end:
            return window
        length *= 2


def _end(
    text: str,
    start: int,
    sentence_ends: Sequence[int],
    window: _Window,
    count_tokens: Callable[[str], int],
    max_tokens: int,
) -> int:
    """Return where the chunk ends: after the last sentence that fits, else the last word, else the last character."""

    def last_fitting(ends: Sequence[int]) -> int | None:
        """Return the last of the ends inside the window that fits, by the secant method."""
        good, bad = (start, 0), (window.end, window.num_tokens)
        low, high = 0, len(ends) + 1  # numbers of ends
        for attempt in count():
            if high - low <= 1:
                return ends[low - 1] if low else None
            share = (max_tokens - good[1]) / (bad[1] - good[1])
            near = bisect_right(ends, good[0] + share * (bad[0] - good[0]))
            middle = min(max(near, low + 1), high - 1) if attempt < _SECANTS else (low + high) // 2
            point = (ends[middle - 1], count_tokens(text[start : ends[middle - 1]]))
            if point[1] <= max_tokens:
                low, good = middle, point
            else:
                high, bad = middle, point
        return None

    first = bisect_right(sentence_ends, start)
    last = bisect_left(sentence_ends, window.end, first)
    if (end := last_fitting(sentence_ends[first:last])) is not None:
        return end
    limit = min(sentence_ends[first], window.end)
    words = [match.start() for match in _WORD_END.finditer(text, start, limit) if match.start() < limit]
    if (end := last_fitting(words)) is not None:
        return end
    return last_fitting(range(start + 1, limit)) or start + 1
