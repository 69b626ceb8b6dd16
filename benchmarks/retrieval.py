"""Recall of the index on labeled questions, and its speed: BM25, sentence vectors, and both fused.

    python benchmarks/retrieval.py [-o benchmarks/results/retrieval.json] [--only recall|speed] [--chunks 100000]

The questions (data/retrieval_questions.jsonl) were written by hand over 48 open-access abstracts: two plain ones for
each, in the source's own words, and two reworded ones, which share no content word with the sentence that answers them.
That sentence is their evidence, verbatim; a question counts as found where the chunk that holds it is among the first k.
Choices were made on every second document ("tuned"); the others are the hold-out.

The chunks of the speed test are perturbed copies of the abstracts' chunks, with vectors drawn at random.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunewright.documents.stage import ingest
from tunewright.examples import abstracts_folder
from tunewright.models.chat_template import passage_text
from tunewright.recipe import load_recipe
from tunewright.records import Chunk, Document
from tunewright.retrieval.index import Index, WordIndex
from tunewright.retrieval.sentence_model import SentenceModel, Vectors, embedded_folder
from tunewright.run_folder import RunFile, RunFolder
from tunewright.statistics.intervals import difference_interval
from tunewright.synthesis.questions import short_title, subjects
from tunewright.text.normalization import words

DATA = Path(__file__).parent / "data"
DEPTHS = (1, 2, 5, 10)
CHUNK_TOKENS = (128, 256)
_NAME_WORDS = 8  # of a title that the exam writes into a question

Search = Callable[[str, int], Sequence[int]]


@dataclass(frozen=True)
class Labeled:
    """A question, the number of the chunk that answers it, and its document."""

    question: str
    wording: str
    evidence: str
    chunk: int
    title: str
    document: str
    held_out: bool

    def asked(self, named: bool) -> str:
        """Return the question, with its document's title as the exam names it."""
        return (
            f'{self.question[:-1]}, according to "{short_title(self.title, _NAME_WORDS)}"?' if named else self.question
        )


def ingested(folders: Sequence[Path], chunk_tokens: int, work: Path) -> tuple[list[Document], list[Chunk]]:
    """Return the documents and chunks that the stage ingest makes of folders."""
    file = work / "recipe.toml"
    paths = json.dumps([str(folder.resolve()) for folder in folders])
    file.write_text(f"[documents]\npaths = {paths}\nchunk_tokens = {chunk_tokens}\n", encoding="utf-8")
    run = RunFolder.create(work / f"run-{chunk_tokens}")
    ingest(run, load_recipe(file))
    return run.read_records(RunFile.DOCUMENTS, Document), run.read_records(RunFile.CHUNKS, Chunk)


def labeled_questions(documents: Sequence[Document], chunks: Sequence[Chunk]) -> Iterator[Labeled]:
    """Yield the questions with their chunk: the one that holds most of the evidence.

    Raises:
        ValueError: a document is missing, or evidence is not in it, verbatim and once.
    """
    by_name = {Path(document.source).name: document for document in documents}
    names = sorted(by_name)
    for line in (DATA / "retrieval_questions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        document = by_name[row["file"]]
        if document.text.count(row["evidence"]) != 1:
            raise ValueError(f"{row['file']} does not hold this once: {row['evidence']}")
        start = document.text.index(row["evidence"])
        end = start + len(row["evidence"])
        overlaps = [min(c.end, end) - max(c.start, start) if c.document == document.id else 0 for c in chunks]
        yield Labeled(
            row["question"],
            row["wording"],
            row["evidence"],
            int(np.argmax(overlaps)),
            document.title,
            document.id,
            held_out=names.index(row["file"]) % 2 == 1,
        )


def shared_words(questions: Sequence[Labeled], chunks: Sequence[Chunk]) -> dict[str, Any]:
    """Return, by wording, the mean share of a question's content words (5-letter stems) in its evidence and its chunk."""
    result: dict[str, Any] = {}
    for wording in ("plain", "reworded"):
        chosen = [question for question in questions if question.wording == wording]
        stems = [(subjects(q.question), subjects(q.evidence), subjects(passage_text(chunks[q.chunk]))) for q in chosen]
        result[wording] = {
            "in_evidence": round(float(np.mean([len(own & evidence) / len(own) for own, evidence, _ in stems])), 3),
            "in_chunk_with_title": round(float(np.mean([len(own & chunk) / len(own) for own, _, chunk in stems])), 3),
        }
    return result


def searches(chunks: Sequence[Chunk], model: SentenceModel) -> dict[str, Search]:
    """Return the rankings that are compared; each sees the same texts."""
    texts = [passage_text(chunk) for chunk in chunks]
    index, by_words, vectors = Index(texts, model, [c.title for c in chunks]), WordIndex(texts), model.passages(texts)

    def nearest(query: str, number: int) -> Sequence[int]:
        return [int(i) for i in np.argsort(-(vectors @ model.queries([query])[0]), kind="stable")[:number]]

    return {
        "bm25": lambda query, number: [i for i, _ in by_words.rank(query, number)],
        "vectors": nearest,
        "fused": lambda query, number: [i for i, _ in index.search(query, number)],
    }


def recall(questions: Sequence[Labeled], chunks: Sequence[Chunk], model: SentenceModel) -> dict[str, Any]:
    """Return the recall of each search by wording, half and whether the title is named, and fused minus BM25 at 2."""
    arms, result = searches(chunks, model), {}
    for named in (False, True):
        found = {name: [list(search(q.asked(named), max(DEPTHS))) for q in questions] for name, search in arms.items()}
        hits = {name: _ranks(questions, lists) for name, lists in found.items()}
        for wording in ("plain", "reworded"):
            for half, chosen in _halves(questions, wording).items():
                rows: dict[str, Any] = {"num_questions": len(chosen)}
                for name, ranks in hits.items():
                    rows[name] = {k: round(float(np.mean([ranks[i] < k for i in chosen])), 4) for k in DEPTHS}
                at_two = [float(hits["fused"][i] < 2) - float(hits["bm25"][i] < 2) for i in chosen]
                gain = difference_interval(at_two, [questions[i].document for i in chosen])
                rows["fused_minus_bm25_at_2"] = [round(v, 4) for v in (gain.mean, gain.low, gain.high)]
                result[f"{wording}, {'title named' if named else 'no title'}, {half}"] = rows
    return result


def _ranks(questions: Sequence[Labeled], lists: Sequence[Sequence[int]]) -> list[int]:
    return [
        found.index(question.chunk) if question.chunk in found else max(DEPTHS)
        for question, found in zip(questions, lists, strict=True)
    ]


def _halves(questions: Sequence[Labeled], wording: str) -> dict[str, list[int]]:
    of_wording = [i for i, question in enumerate(questions) if question.wording == wording]
    return {
        "all": of_wording,
        "tuned": [i for i in of_wording if not questions[i].held_out],
        "held out": [i for i in of_wording if questions[i].held_out],
    }


class RandomVectors:
    """Random unit vectors for passages; queries by the real model."""

    def __init__(self, model: SentenceModel) -> None:
        self._model, self.queries = model, model.queries

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Return vectors, shape (texts, dimensions)."""
        size = self._model.queries(["size"]).shape[1]
        drawn = np.random.default_rng(0).standard_normal((len(texts), size), dtype=np.float32)
        vectors: Vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        return vectors


def perturbed(texts: Sequence[str], number: int) -> list[str]:
    """Return texts that repeat the given ones, a third of the words of each replaced by others of the collection."""
    draw = random.Random(0)
    pool = [word for text in texts for word in words(text)]
    made = []
    for copy in range(number):
        tokens = words(texts[copy % len(texts)])
        for place in draw.sample(range(len(tokens)), len(tokens) // 3):
            tokens[place] = draw.choice(pool)
        made.append(" ".join([*tokens, f"item{copy}"]))
    return made


def speed(questions: Sequence[Labeled], chunks: Sequence[Chunk], model: SentenceModel, number: int) -> dict[str, Any]:
    """Return the pace of the sentence model, the seconds to index without it, and the time of a search.

    On a busy machine the wall clock measures its load too; seconds of the CPU do not.
    """
    load = os.getloadavg()[0]
    texts = [passage_text(chunk) for chunk in chunks]
    model.passages(texts[:16])
    embedding = _seconds(lambda: model.passages(texts))
    many, titles = perturbed(texts, number), [f"A made title, number {i // 5}" for i in range(number)]
    built: list[Index] = []
    indexing = _seconds(lambda: built.append(Index(many, RandomVectors(model), titles)))
    queries = [question.asked(i % 2 == 1) for i, question in enumerate(questions)]
    built[0].search(queries[0], 10)
    searched = [_seconds(lambda query=query: built[0].search(query, 10)) for query in queries]  # type: ignore[misc]
    embedded = [_seconds(lambda query=query: model.queries([query])) for query in queries]  # type: ignore[misc]
    return {
        "num_chunks": number,
        "threads": torch.get_num_threads(),
        "load_average": round(load, 1),
        "mean_words_of_a_text": round(float(np.mean([len(text.split()) for text in texts]))),
        "vectors_texts_per_s": round(len(texts) / embedding[0], 1),
        "vectors_texts_per_cpu_s": round(len(texts) / embedding[1], 1),
        "index_without_vectors_s": round(indexing[0], 1),
        "index_without_vectors_cpu_s": round(indexing[1], 1),
        "search_ms": _quantiles([wall for wall, _ in searched]),
        "search_cpu_ms": _quantiles([cpu for _, cpu in searched]),
        "of_it_the_query_vector_ms": _quantiles([wall for wall, _ in embedded]),
        "of_it_the_query_vector_cpu_ms": _quantiles([cpu for _, cpu in embedded]),
    }


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of the wall clock and of the CPU, all threads together."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    return {name: round(1000 * float(np.quantile(seconds, q)), 1) for name, q in (("median", 0.5), ("p95", 0.95))}


def show(title: str, rows: dict[str, Any]) -> None:
    """Print a table of recall."""
    print(title)
    for name, row in rows.items():
        shares = "  ".join(
            f"{arm} {' '.join(f'{row[arm][k]:.2f}' for k in DEPTHS)}" for arm in ("bm25", "vectors", "fused")
        )
        print(f"  {name:34} n={row['num_questions']:3}  {shares}  gain {row['fused_minus_bm25_at_2']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/retrieval.json"))
    parser.add_argument("--only", choices=("recall", "speed"))
    parser.add_argument("--chunks", type=int, default=100_000)
    options = parser.parse_args()
    results = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    results |= {"date": datetime.date.today().isoformat(), "cores": os.cpu_count(), "python": platform.python_version()}
    model = SentenceModel(embedded_folder())
    with tempfile.TemporaryDirectory() as work:
        for size in CHUNK_TOKENS:
            documents, chunks = ingested([abstracts_folder(), DATA / "abstracts"], size, Path(work))
            questions = list(labeled_questions(documents, chunks))
            results[f"shared words, chunks of {size}"] = shared_words(questions, chunks)
            if options.only != "speed":
                rows = recall(questions, chunks, model)
                results[f"recall, chunks of {size}"] = {"num_chunks": len(chunks), **rows}
                show(f"{len(chunks)} chunks of at most {size} tokens", rows)
            if options.only != "recall":
                results[f"speed, chunks of {size}"] = speed(questions, chunks, model, options.chunks)
                print(json.dumps(results[f"speed, chunks of {size}"]))
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
