"""What an answer may rest on: the training samples and source passages nearest to it, with their identifiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunewright.errors import command
from tunewright.evaluation.arms import bm25_ranker
from tunewright.evaluation.stage import read_training_chunks, read_training_samples
from tunewright.models.chat_template import passage_text
from tunewright.recipe import load_recipe
from tunewright.records import Document, Sample
from tunewright.run_folder import RunFile, RunFolder

_SHOWN = 3
_LONGEST = 300


class Sources:
    """The training side of a run, ready to be asked which of it lies nearest to a text."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._samples = read_training_samples(run, load_recipe(run.file(RunFile.RECIPE)))
        self._chunks = read_training_chunks(run)
        documents = run.records_if_any(RunFile.DOCUMENTS, Document)
        self._titles: Mapping[str, str] = {document.id: document.title for document in documents}
        self._rank_samples = bm25_ranker([f"{sample.question}\n{sample.answer}" for sample in self._samples])
        self._rank_chunks = bm25_ranker([passage_text(chunk) for chunk in self._chunks])

    def nearest(self, text: str) -> Iterator[str]:
        """Yield lines about what shares the most telling words with a text (BM25), samples first."""
        samples = self._best(self._rank_samples(text, _SHOWN))
        chunks = self._best(self._rank_chunks(text, _SHOWN))
        if not samples and not chunks:
            yield "nothing that was trained on shares a word with the last answer"
            return
        for place, score in samples:
            yield from self._sample(self._samples[place], score)
        for place, score in chunks:
            chunk = self._chunks[place]
            yield f"passage {chunk.id}  BM25 {score:.1f}  {self._title(chunk.document)}"
            yield f"  {_short(chunk.text)}"
        yield f"follow one to its source: {command('trace', self._run.path, 'ID')}"

    @staticmethod
    def _best(ranked: list[tuple[int, float]]) -> list[tuple[int, float]]:
        return [(place, score) for place, score in ranked if score > 0]

    def _sample(self, sample: Sample, score: float) -> Iterator[str]:
        yield f"sample {sample.id}  BM25 {score:.1f}  {self._title(sample.document)}"
        yield f"  asked    {_short(sample.question)}"
        yield f"  answered {_short(sample.answer)}"
        for span in (sample.evidence, *sample.further_evidence):
            if span is not None:
                yield f"  evidence characters {span.start}–{span.end}: {_short(span.quote)}"

    def _title(self, document: Any) -> str:
        return self._titles.get(document, "") or "(no document)"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"
