"""A run folder with documents, chunks, samples, rejections and no model: real abstracts, made-up questions."""

from __future__ import annotations

from pathlib import Path

from support import finished_run
from tunewright.documents.chunking import chunk_document
from tunewright.models.chat_template import chat, passage_text
from tunewright.recipe import dump_recipe
from tunewright.records import Chunk, Document, Rejection, Sample, Section, Span, SplitEntry, StageSummary, digest
from tunewright.run_folder import RunFolder
from tunewright.text.normalization import is_evidence
from tunewright.text.sentences import sentences

RECIPE = finished_run.RECIPE


def sections(document: Document) -> Document:
    """Return the document in two halves, each a section."""
    middle = sentences(document.text)[len(sentences(document.text)) // 2][0]
    parts = (("First", 0, middle), ("Second", middle, len(document.text)))
    return document.model_copy(update={"sections": tuple(Section(path=(n,), start=a, end=b) for n, a, b in parts)})


def sample(task: str, document: Document, part: Chunk, start: int, end: int) -> Sample:
    quote = document.text[start:end]
    question = f"What does {document.title.split()[0]} say about {' '.join(quote.split()[:3])}?"
    answer = RECIPE.refusal if task == "refusal" else " ".join(quote.split())
    shown = (passage_text(part),) if task != "answer-first" else ()
    return Sample(
        id=digest(task, document.id, start),
        task=task,
        messages=chat(RECIPE.system_prompt, question, shown, answer),
        document=document.id,
        chunk=None if task == "refusal" else part.id,
        evidence=None if task == "refusal" else Span(document=document.id, start=start, end=end, quote=quote),
    )


def write_samples(run: RunFolder, documents: list[Document]) -> list[Sample]:
    """Write documents, chunks, split, and per chunk its first sentence asked; every third also grounded and declined."""
    documents = [sections(document) for document in documents]
    chunks = [part for document in documents for part in chunk_document(document, lambda text: len(text.split()), 60)]
    by_id = {document.id: document for document in documents}
    samples = []
    for number, part in enumerate(chunks):
        spans = [(part.start + a, part.start + b) for a, b in sentences(part.text)]
        spans = [(a, b) for a, b in spans if is_evidence(" ".join(by_id[part.document].text[a:b].split()))]
        for task in ("answer-first", "grounded", "refusal") if number % 3 == 0 else ("answer-first",):
            samples += [sample(task, by_id[part.document], part, a, b) for a, b in spans[:1]]
    run.write_records("documents.jsonl", documents)
    run.write_records("chunks.jsonl", chunks)
    run.write_records("split.jsonl", [SplitEntry(document=d.id, side="train", group=d.id) for d in documents])
    run.write_records("samples.jsonl", samples)
    rejected = [
        Rejection(stage="synth", id=digest(n), reason="question too short", task="answer-first") for n in range(3)
    ]
    run.write_records("rejected.jsonl", [Rejection(stage="exam", id="e", reason="question too short"), *rejected])
    run.write("teacher.jsonl", '{"stage": "synth", "num_prompt_tokens": 90, "num_tokens": 10, "seconds": 0.5}\n' * 20)
    return samples


def curate(run: RunFolder, samples: list[Sample]) -> list[Sample]:
    """Keep all but the first four samples, which leave as duplicates; return those kept."""
    reasons = ("exact duplicate", "near duplicate", "near duplicate", "leaks an exam question")
    dropped = [
        Rejection(stage="curate", id=s.id, reason=reason, task=s.task)
        for s, reason in zip(samples[:4], reasons, strict=True)
    ]
    run.reject("curate", dropped)
    run.write_records("train.jsonl", samples[4:])
    figures: dict[str, float | int | str] = {"leaks_removed": 1, "leaks_left": 0, "context_gain_mean": 0.75}
    summary = StageSummary(num_in=len(samples), num_out=len(samples) - 4, figures=figures)
    run.write_json("stages/curate.json", {"summary": summary.model_dump(mode="json"), "outputs": {}})
    return samples[4:]


def write(path: Path, curated: bool = True, documents: list[Document] | None = None) -> RunFolder:
    """Write a run folder up to synth, or up to curate."""
    run = RunFolder.create(path)
    run.write("recipe.toml", dump_recipe(RECIPE))
    samples = write_samples(run, finished_run.documents(12) if documents is None else documents)
    if curated:
        curate(run, samples)
        run.write("exam.jsonl", "")
    return run
