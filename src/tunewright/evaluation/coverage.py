"""Which sentences of the training documents the samples reach."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunewright.records import Chunk, Document, Sample, Span
from tunewright.text import is_evidence, sentences


@dataclass(frozen=True)
class Sentence:
    """A sentence that can be evidence: its place in the document, its section, how many samples reach it."""

    start: int
    end: int
    section: tuple[str, ...]
    num_samples: int = 0


@dataclass(frozen=True)
class SectionCoverage:
    """A section's sentences that can be evidence, and how many of them a sample reaches."""

    path: tuple[str, ...]
    num_sentences: int
    num_reached: int


@dataclass(frozen=True)
class DocumentCoverage:
    """A document's sentences that can be evidence, in order."""

    document: str
    title: str
    source: str
    sentences: tuple[Sentence, ...]

    @property
    def num_reached(self) -> int:
        """The sentences that at least one sample reaches."""
        return sum(sentence.num_samples > 0 for sentence in self.sentences)

    @property
    def share(self) -> float:
        """The share reached, 0 to 1; of a document without such sentences, 1."""
        return self.num_reached / len(self.sentences) if self.sentences else 1.0

    @property
    def sections(self) -> list[SectionCoverage]:
        """The sections in their order."""
        groups: dict[tuple[str, ...], list[Sentence]] = {}
        for sentence in self.sentences:
            groups.setdefault(sentence.section, []).append(sentence)
        return [
            SectionCoverage(path, len(group), sum(sentence.num_samples > 0 for sentence in group))
            for path, group in groups.items()
        ]


def eligible(chunks: Iterable[Chunk]) -> dict[str, list[Sentence]]:
    """Return each document's sentences that can be evidence (``text.is_evidence``), in order, each once."""
    found: dict[str, dict[tuple[int, int], Sentence]] = {}
    for chunk in chunks:
        own = found.setdefault(chunk.document, {})
        for start, end in sentences(chunk.text):
            if is_evidence(" ".join(chunk.text[start:end].split())):
                place = (chunk.start + start, chunk.start + end)
                own.setdefault(place, Sentence(*place, chunk.section))
    return {document: [own[place] for place in sorted(own)] for document, own in found.items()}


def reached(found: Sequence[Sentence], spans: Iterable[Span]) -> list[int]:
    """Return, for each sentence, how many spans reach it.

    A span reaches a sentence when they share at least half of the shorter one: a quote inside a sentence counts, and a
    quote that takes a word too many of the next one does not count for that.

    Args:
        found: in their order, without overlaps.
        spans: of the same document.
    """
    counts = [0] * len(found)
    ends = [sentence.end for sentence in found]
    for span in spans:
        for place in range(bisect_left(ends, span.start + 1), len(found)):
            sentence = found[place]
            if sentence.start >= span.end:
                break
            shared = min(sentence.end, span.end) - max(sentence.start, span.start)
            counts[place] += 2 * shared >= min(sentence.end - sentence.start, span.end - span.start)
    return counts


def coverage(
    documents: Iterable[Document], chunks: Iterable[Chunk], samples: Iterable[Sample]
) -> list[DocumentCoverage]:
    """Return the coverage of each document, in their order.

    Args:
        documents: those that samples may be written from.
        chunks: of any documents.
        samples: the kept ones; those without evidence reach nothing.
    """
    by_document: dict[str, list[Span]] = {}
    for sample in samples:
        if sample.evidence is not None:
            by_document.setdefault(sample.evidence.document, []).append(sample.evidence)
    there = eligible(chunks)
    found = []
    for document in documents:
        own = there.get(document.id, [])
        counts = reached(own, by_document.get(document.id, ()))
        counted = (Sentence(s.start, s.end, s.section, num) for s, num in zip(own, counts, strict=True))
        found.append(DocumentCoverage(document.id, document.title, document.source, tuple(counted)))
    return found


def unreached_sections(found: Sequence[DocumentCoverage]) -> list[tuple[DocumentCoverage, SectionCoverage]]:
    """Return the sections that no sample reaches, the longest first."""
    bare = [(document, part) for document in found for part in document.sections if not part.num_reached]
    return sorted(bare, key=lambda item: -item[1].num_sentences)


def overall(found: Sequence[DocumentCoverage]) -> tuple[int, int]:
    """Return (sentences reached, sentences that can be evidence) of all documents."""
    return sum(document.num_reached for document in found), sum(len(document.sentences) for document in found)
