"""Chunks of a document that respect its sections and sentences, with exact offsets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from tunewright.records import Chunk, Document, Section, digest
from tunewright.text.normalization import sentences

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
    """Yield the (start, end) offsets of a section's chunks."""
    bounds = [(section.start + a, section.start + b) for a, b in sentences(text[section.start : section.end])]
    next_sentence = 0
    start = bounds[0][0] if bounds else section.end
    while next_sentence < len(bounds):

        def fits(end: int, start: int = start) -> bool:
            return count_tokens(text[start:end]) <= max_tokens

        ends = [end for _, end in bounds[next_sentence:]]
        num_fitting = _num_fitting(ends, fits)
        if num_fitting:
            end = ends[num_fitting - 1]
            next_sentence += num_fitting
        else:
            end = _cut(text, start, ends[0], fits)
            next_sentence += end == ends[0]
        yield start, end
        start = end
        while start < section.end and text[start].isspace():
            start += 1


def _cut(text: str, start: int, end: int, fits: Callable[[int], bool]) -> int:
    """Return where to cut a stretch that is too long: after the last word that fits, else the last character."""
    word_ends = [match.start() for match in _WORD_END.finditer(text, start, end)]
    num_fitting = _num_fitting(word_ends, fits)
    if num_fitting:
        return word_ends[num_fitting - 1]
    return start + max(1, _num_fitting(range(start + 1, end + 1), fits))


def _num_fitting(ends: Sequence[int], fits: Callable[[int], bool]) -> int:
    """Return how many of the ends fit, by doubling and bisection: few token counts, none of a far too long text."""
    good, bad = 0, 1
    while bad <= len(ends) and fits(ends[bad - 1]):
        good, bad = bad, 2 * bad
    bad = min(bad, len(ends) + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(ends[middle - 1]) else (good, middle)
    return good
