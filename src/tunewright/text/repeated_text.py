"""Text that many documents repeat (licenses, notices, banners): kept out of their sections, and so of all evidence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from tunewright.records import Document, Section
from tunewright.text.normalization import normalize, words

SHARE = 0.1  # of the texts that repeat a line or an instruction: then it is boilerplate
LEAST = 5  # texts: fewer may be versions of one
_LEAST_WORDS = 8  # of the line that makes a run of repeated lines boilerplate
_LICENSE = 2000  # characters: of a longer repetition, the documents are versions of each other
_LEAST_LEFT = 20  # words of a document
_LINE = re.compile(r"[^\n]+")


def without_repeated_text(documents: Sequence[Document]) -> tuple[list[Document], dict[str, str]]:
    """Return the documents with sections around what many of them repeat, and what that is by source.

    A line of eight words or more that at least 5 documents and a tenth of all have is boilerplate, with the lines
    beside it that are as frequent. No digit is ignored: in documents that follow a template, the lines of facts differ.
    Documents that share most of their text are versions of each other and keep all. The texts stay as they are.
    """
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update({normalize(match[0]) for match in _LINE.finditer(document.text)})
    least = max(LEAST, SHARE * len(documents))
    frequent = {line for line, count in counts.items() if count >= least and line}
    result: list[Document] = []
    removed: dict[str, str] = {}
    for document in documents:
        spans = list(_runs(document.text, frequent))
        size = sum(end - start for start, end in spans)
        sections = tuple(part for section in document.sections for part in _around(document.text, section, spans))
        if not sections or sections == document.sections or _is_version(document.text, sections, size):
            result.append(document)
            continue
        start, end = max(spans, key=lambda span: span[1] - span[0])
        removed[document.source] = f"{size} characters, as in other documents: {document.text[start:end][:120]}"
        result.append(document.model_copy(update={"sections": sections}))
    return result, removed


def _is_version(text: str, sections: Sequence[Section], size: int) -> bool:
    """Return whether a document that repeats ``size`` characters of others is a version of them: little is its own."""
    left = " ".join(text[section.start : section.end] for section in sections)
    return size > len(text) / 2 and (size > _LICENSE or len(words(left)) < _LEAST_LEFT)


def _runs(text: str, frequent: set[str]) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each run of frequent lines with at least one long line."""
    start = end = 0
    is_long = False
    for match in _LINE.finditer(text):
        if normalize(match[0]) in frequent:
            start = start if end else match.start()
            end = match.end()
            is_long = is_long or len(words(match[0])) >= _LEAST_WORDS
        else:
            if end and is_long:
                yield start, end
            start, end, is_long = 0, 0, False
    if end and is_long:
        yield start, end


def _around(text: str, section: Section, spans: Sequence[tuple[int, int]]) -> Iterator[Section]:
    """Yield the parts of a section outside of the spans, without white space at their ends."""
    at = section.start
    for start, end in [*(span for span in spans if span[1] > section.start), (section.end, section.end)]:
        piece = text[at : max(at, min(start, section.end))]
        if piece.strip():
            first = at + len(piece) - len(piece.lstrip())
            yield Section(path=section.path, start=first, end=first + len(piece.strip()))
        at = max(at, end)
        if at >= section.end:
            return
