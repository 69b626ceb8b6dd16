"""Some samples as a reader sees them: question, answer, and the source with its evidence marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewright.evaluation.data_funnel import split_turn
from tunewright.evaluation.data_measures import draw
from tunewright.records import Chunk, Document, Sample

if TYPE_CHECKING:
    from markupsafe import Markup

NUM_EXAMPLES = 10


@dataclass(frozen=True)
class Example:
    """One sample: what it shows and asks, its answer, and the marked source where it has evidence."""

    sample: Sample
    shown: str
    asked: str
    document: Document | None
    section: tuple[str, ...]
    source: Markup | None


def marked(text: str, start: int, end: int) -> Markup:
    """Return the text as HTML with its characters from start to end in a ``<mark>``; all else is escaped."""
    from markupsafe import Markup, escape

    start = min(max(0, start), len(text))
    end = min(max(start, end), len(text))
    return escape(text[:start]) + Markup("<mark>") + escape(text[start:end]) + Markup("</mark>") + escape(text[end:])


def _source(sample: Sample, chunk: Chunk | None) -> Markup | None:
    span = sample.evidence
    if span is None:
        return None
    if chunk is None or not chunk.start <= span.start < chunk.end:
        return marked(span.quote, 0, len(span.quote))
    return marked(chunk.text, span.start - chunk.start, span.end - chunk.start)


def examples(
    samples: Sequence[Sample], documents: Iterable[Document], chunks: Iterable[Chunk], seed: int
) -> list[Example]:
    """Return ten samples drawn with the seed, in their order."""
    by_id: Mapping[str, Document] = {document.id: document for document in documents}
    passages = {chunk.id: chunk for chunk in chunks}
    found = []
    for sample in draw(samples, NUM_EXAMPLES, seed):
        chunk = passages.get(sample.chunk or "")
        shown, asked = split_turn(sample.question)
        section = chunk.section if chunk else ()
        found.append(Example(sample, shown, asked, by_id.get(sample.document or ""), section, _source(sample, chunk)))
    return found
