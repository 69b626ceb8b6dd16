"""Possible sources of an answer: the training samples and passages nearest to it, with their identifiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tunewright.errors import command
from tunewright.models.chat_template import passage_text
from tunewright.records import Chunk, Sample
from tunewright.retrieval.index import WordIndex

_SHOWN = 3
_LONGEST = 300


class Sources:
    """An index of a run's training data.

    Args:
        samples: what was trained on.
        chunks: of the training documents.
        titles: by document.
        folder: the run's, for the hint.
    """

    def __init__(
        self, samples: Sequence[Sample], chunks: Sequence[Chunk], titles: Mapping[str, str], folder: Path
    ) -> None:
        self._samples, self._chunks, self._titles, self._folder = samples, chunks, titles, folder
        self._samples_by_words = WordIndex([f"{sample.question}\n{sample.answer}" for sample in self._samples])
        self._chunks_by_words = WordIndex([passage_text(chunk) for chunk in self._chunks])

    def nearest(self, text: str) -> Iterator[str]:
        """Yield lines about the samples and passages with the highest BM25 score for a text, samples first."""
        samples = self._samples_by_words.rank(text, _SHOWN)
        chunks = self._chunks_by_words.rank(text, _SHOWN)
        if not samples and not chunks:
            yield "no training data shares a word with the last answer"
            return
        for index, score in samples:
            yield from self._sample(self._samples[index], score)
        for index, score in chunks:
            chunk = self._chunks[index]
            yield f"passage {chunk.id}  BM25 {score:.1f}  {self._title(chunk.document)}"
            yield f"  {_short(chunk.text)}"
        yield f"trace one to its source: {command('trace', self._folder, 'ID')}"

    def _sample(self, sample: Sample, score: float) -> Iterator[str]:
        yield f"sample {sample.id}  BM25 {score:.1f}  {self._title(sample.document)}"
        yield f"  question {_short(sample.question)}"
        yield f"  answer   {_short(sample.answer)}"
        for span in (sample.evidence, *sample.further_evidence):
            if span is not None:
                yield f"  evidence characters {span.start}–{span.end}: {_short(span.quote)}"

    def _title(self, document: str | None) -> str:
        return self._titles.get(document or "", "") or "(no document)"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"
