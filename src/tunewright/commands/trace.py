"""Provenance, both ways: document ↔ chunk ↔ sample, document ↔ question ↔ answers, down to the characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunewright import console
from tunewright.errors import RunFolderError
from tunewright.records import Answer, Chunk, Document, Question, Record, Rejection, Sample, Span
from tunewright.run_folder import RunFile, RunFolder

_SHOWN = 20


class _Index:
    """The records of a run that have identifiers."""

    def __init__(self, run: RunFolder) -> None:
        self.documents = run.records_if_any(RunFile.DOCUMENTS, Document)
        self.chunks = run.records_if_any(RunFile.CHUNKS, Chunk)
        self.samples = run.records_if_any(RunFile.SAMPLES, Sample)
        self.kept = run.records_if_any(RunFile.TRAIN, Sample)
        self.questions = run.records_if_any(RunFile.EXAM, Question)
        self.answers = run.records_if_any(RunFile.ANSWERS, Answer)
        self.rejections = run.records_if_any(RunFile.REJECTED, Rejection)

    def named(self) -> Iterator[Document | Chunk | Sample | Question]:
        """Yield every record with an identifier, each once."""
        yield from self.documents
        yield from self.chunks
        yield from {sample.id: sample for sample in [*self.samples, *self.kept]}.values()
        yield from self.questions


def show_trace(run: RunFolder, identifier: str) -> None:
    """Print where a record comes from and what was made of it.

    Args:
        run: a run folder.
        identifier: of a document, chunk, sample or question, or its first characters.

    Raises:
        RunFolderError: nothing, or more than one record, has this identifier.
    """
    index = _Index(run)
    matches = [record for record in index.named() if record.id.startswith(identifier)]
    exact = [record for record in matches if record.id == identifier]
    matches = exact or matches
    if len(matches) != 1:
        listed = ", ".join(f"{type(r).__name__.lower()} {r.id}" for r in matches[:5])
        raise RunFolderError(
            f"{len(matches) or 'no'} records have an identifier that starts with {identifier!r}",
            listed,
            f"use an identifier from the .jsonl files of {run.path}",
        )
    for line in _describe(matches[0], index):
        console.data(line)


def _describe(record: Record, index: _Index) -> Iterator[str]:
    if isinstance(record, Document):
        yield from _document(record, index)
    elif isinstance(record, Chunk):
        yield f"chunk {record.id}  characters {record.start}–{record.end}, {record.num_tokens} tokens"
        yield f"  section  {' › '.join(record.section) or '(none)'}"
        yield from _source(record.document, index)
        yield f"  text     {_short(record.text)}"
        yield from _listed("sample", [s for s in index.samples if s.chunk == record.id], index)
    elif isinstance(record, Sample):
        yield from _sample(record, index)
    elif isinstance(record, Question):
        yield f"question {record.id}  ring {record.ring}, {'answerable' if record.answerable else 'unanswerable'}"
        yield f"  asked    {record.question}"
        yield f"  gold     {record.shown_gold}"
        yield from _evidence(record.evidence)
        yield from _source(record.document, index)
        for answer in index.answers:
            if answer.question == record.id:
                yield f"  {answer.arm.ljust(10)} {_short(answer.text)}"


def _document(document: Document, index: _Index) -> Iterator[str]:
    yield f"document {document.id}  {document.source}"
    yield f"  title    {document.title}"
    yield f"  length   {len(document.text)} characters"
    chunks = [chunk for chunk in index.chunks if chunk.document == document.id]
    for chunk in chunks[:_SHOWN]:
        yield f"  chunk    {chunk.id}  {chunk.start}–{chunk.end}  {' › '.join(chunk.section)}"
    yield from _listed("sample", [s for s in index.samples if s.document == document.id], index)
    for question in [q for q in index.questions if q.document == document.id][:_SHOWN]:
        yield f"  question {question.id}  {question.ring}: {_short(question.question)}"


def _sample(sample: Sample, index: _Index) -> Iterator[str]:
    yield f"sample {sample.id}  task {sample.task}, {_fate(sample, index)}"
    for message in sample.messages:
        yield f"  {message.role.ljust(9)} {_short(message.content)}"
    for span in (sample.evidence, *sample.further_evidence):
        yield from _evidence(span)
    if sample.chunk:
        yield f"  chunk    {sample.chunk}"
    if sample.document:
        yield from _source(sample.document, index)


def _fate(sample: Sample, index: _Index) -> str:
    if any(kept.id == sample.id for kept in index.kept):
        return "in the training set"
    reason = next((r.reason for r in index.rejections if r.id == sample.id), "")
    return f"rejected: {reason}" if reason else "not curated yet"


def _listed(label: str, samples: Sequence[Sample], index: _Index) -> Iterator[str]:
    for sample in samples[:_SHOWN]:
        yield f"  {label}   {sample.id}  {_fate(sample, index)}: {_short(sample.question)}"
    if len(samples) > _SHOWN:
        yield f"  … and {len(samples) - _SHOWN} more {label}s"


def _evidence(span: Span | None) -> Iterator[str]:
    if span is not None:
        yield f"  evidence characters {span.start}–{span.end}: {_short(span.quote)}"


def _source(identifier: str, index: _Index) -> Iterator[str]:
    document = next((document for document in index.documents if document.id == identifier), None)
    if document is not None:
        yield f"  document {document.id}  {document.source}: {_short(document.title)}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 160 else flat[:159] + "…"
