"""Which sentences can be evidence, and in which order a document's are asked about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunewright.records import Chunk, Document, Span, digest
from tunewright.text import is_evidence, normalize, sentences

# A sentence that starts so leans on the one before it, and is asked about last.
_LEANING = re.compile(
    r"(?:this|these|those|that|it|its|they|their|he|she|his|her|such|both|here|there|however|thus|therefore|hence|also"
    r"|furthermore|moreover|additionally|consequently|conversely|nevertheless|similarly|finally|further|then|together"
    r"|in addition|in contrast|in conclusion|in summary|as a result|of these|of them|among them|among these|on the"
    r" other hand|for example|for this)\b",
    re.I,
)


@dataclass(frozen=True)
class Evidence:
    """A sentence that a question can be asked about, with its place in the document and its chunk."""

    chunk: Chunk
    span: Span

    @property
    def sentence(self) -> str:
        """The sentence on one line: the answer to its question."""
        return " ".join(self.span.quote.split())


def ranked_evidence(document: Document, chunks: Iterable[Chunk], seed: int) -> list[Evidence]:
    """Return a document's evidence sentences in the order in which they are asked about.

    The order depends on the seed, the source and the sentence alone: no other document, and no other sentence of this
    one, changes it. Sentences that lean on the one before come last; a repeated sentence counts once.
    """
    ranked: dict[str, tuple[bool, str, Evidence]] = {}
    for chunk in chunks:
        for start, end in sentences(chunk.text):
            quote = chunk.text[start:end]
            if not is_evidence(" ".join(quote.split())):
                continue
            span = Span(document=document.id, start=chunk.start + start, end=chunk.start + end, quote=quote)
            found = Evidence(chunk, span)
            order = digest(seed, document.source, found.sentence)
            ranked.setdefault(normalize(quote), (bool(_LEANING.match(quote)), order, found))
    return [found for _, _, found in sorted(ranked.values(), key=lambda item: item[:2])]


def chunks_by_document(chunks: Sequence[Chunk]) -> dict[str, list[Chunk]]:
    """Return the chunks of each document, in order."""
    groups: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        groups.setdefault(chunk.document, []).append(chunk)
    return groups
