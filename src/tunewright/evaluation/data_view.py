"""Everything that the data report shows, from a run folder's files as far as they are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tunewright import __version__
from tunewright.evaluation import coverage, data_figures, data_funnel
from tunewright.evaluation import data_measures as measures
from tunewright.evaluation.data_examples import examples
from tunewright.evaluation.page import section_name
from tunewright.evaluation.report_parts import STAGES
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Rejection, Sample, SplitEntry, StageSummary
from tunewright.rundir import REJECTED, RunFolder

MOST_ROWS = 60
_CHARACTERS_PER_TOKEN = 4.0  # of English text, when no chunk says better
_GAINS = ("faithfulness", "context_gain")


@dataclass(frozen=True)
class Data:
    """What stands in the run folder; ``kept`` is None before curation."""

    documents: Sequence[Document]
    chunks: Sequence[Chunk]
    written: Sequence[Sample]
    kept: Sequence[Sample] | None
    rejections: Sequence[Rejection]
    summaries: dict[str, StageSummary]

    @property
    def samples(self) -> Sequence[Sample]:
        """The samples that are measured: those kept, or all written ones before curation."""
        return self.written if self.kept is None else self.kept


def read_data(run: RunFolder) -> Data:
    """Return the run's data; of the documents, those on the training side where a split says so.

    Raises:
        RunFolderError: a file is damaged.
    """
    learning = {entry.document for entry in run.records_if_any("split.jsonl", SplitEntry) if entry.side == "train"}
    documents = run.records_if_any("documents.jsonl", Document)
    states = {path.stem for path in run.file("stages").glob("*.json")} - {"report"}
    names = [name for name in STAGES if name in states] + sorted(states - set(STAGES))
    records = {name: run.stage_record(name) for name in names}
    return Data(
        documents=[document for document in documents if document.id in learning or not learning],
        chunks=run.records_if_any("chunks.jsonl", Chunk),
        written=run.records_if_any("samples.jsonl", Sample),
        kept=run.read_records("train.jsonl", Sample) if run.file("train.jsonl").is_file() else None,
        rejections=run.records_if_any(REJECTED, Rejection),
        summaries={name: StageSummary.model_validate(record["summary"]) for name, record in records.items() if record},
    )


def _teacher(run: RunFolder, data: Data) -> dict[str, Any] | None:
    """The teacher's calls by stage, and what a kept sample took; cost where the stages tell it."""
    journal = run.file("teacher.jsonl")
    if not journal.is_file():
        return None
    use = data_funnel.teacher_use(journal)
    own = {stage: values for stage, values in use.items() if stage not in ("exam", "judge")}
    num = sum(sample.task != data_funnel.OWN for sample in data.samples)
    spent: dict[str, float] = {}
    for values in own.values():
        for name, value in values.items():
            spent[name] = spent.get(name, 0.0) + value
    return {
        "stages": use,
        "num": num,
        "per_sample": {name: value / num for name, value in spent.items()} if num else {},
    }


def _diversity(samples: Sequence[Sample], recipe: Recipe) -> list[tuple[str, measures.Diversity]]:
    """Questions and answers apart, of what is answered; what is asked with and without a passage counts once."""
    declines = data_funnel.declines(recipe.refusal)
    exchanges = list(
        dict.fromkeys((data_funnel.split_turn(s.question)[1], s.answer) for s in samples if not declines(s))
    )
    parts = {"questions": [asked for asked, _ in exchanges], "answers": [answer for _, answer in exchanges]}
    return [(name, measures.diversity(texts, recipe.seed)) for name, texts in parts.items() if texts]


def _duplicates(data: Data, recipe: Recipe) -> dict[str, Any]:
    reasons = Counter(r.reason for r in data.rejections if "duplicate" in r.reason and r.stage not in ("exam", "pairs"))
    drawn = measures.draw(data.samples, measures.CLUSTER_TEXTS, recipe.seed)
    items = [
        (
            sample.task,
            measures.shingles(f"{data_funnel.split_turn(sample.question)[1]}\n{sample.answer}"),
            measures.shingles(sample.answer),
        )
        for sample in drawn
    ]
    threshold = recipe.curation.near_duplicate
    share = measures.duplication(items, threshold)
    return {"reasons": reasons, "num": len(items), "threshold": threshold, "duplication": share}


def _coverage(data: Data) -> dict[str, Any] | None:
    """Coverage of the source with its heat map; None without documents, or when no sentence can be evidence."""
    found = coverage.coverage(data.documents, data.chunks, data.samples)
    there = [document for document in found if document.sentences]
    if not there:
        return None
    num_reached, num = coverage.overall(there)
    shown = sorted(there, key=lambda document: document.share)[:MOST_ROWS] if len(there) > MOST_ROWS else there
    rows = [_strip(document) for document in shown]
    bare = coverage.unreached_sections(there)
    label = (
        f"Sentences of {len(shown)} documents by the samples that reach them; of all {num} sentences {num_reached} "
        f"are reached; the least: {min(there, key=lambda d: d.share).title[:80]}"
    )
    return {
        "num_reached": num_reached,
        "num": num,
        "num_documents": len(there),
        "num_bare_documents": sum(document.num_reached == 0 for document in there),
        "num_left_out": len(found) - len(there),
        "shown": shown,
        "figure": data_figures.heat_map(rows, label),
        "per_cell": data_figures.sentences_per_cell(rows),
        "bare": bare[:MOST_ROWS],
        "num_bare": len(bare),
        "num_sections": sum(len(document.sections) for document in there),
    }


def _runs(document: coverage.DocumentCoverage, depth: int | None) -> list[tuple[str, list[int]]]:
    """The samples per sentence of each run of sentences with the same first ``depth`` headings."""
    groups = groupby(document.sentences, key=lambda sentence: sentence.section[:depth])
    return [(section_name(path), [sentence.num_samples for sentence in run]) for path, run in groups]


def _parts(document: coverage.DocumentCoverage) -> list[tuple[str, list[int]]]:
    """The runs of one section; of its first heading, or all as one, where there are too many to be seen."""
    for depth in (None, 1):
        runs = _runs(document, depth)
        if len(runs) <= MOST_ROWS:
            return runs
    return [("all sections", [sentence.num_samples for sentence in document.sentences])]


def _strip(document: coverage.DocumentCoverage) -> data_figures.Strip:
    sections = [
        (f"{name}: {sum(map(bool, own))} of {len(own)} sentences reached", own) for name, own in _parts(document)
    ]
    title = document.title or document.source
    value = f"{document.num_reached} of {len(document.sentences)}"
    return data_figures.Strip(title if len(title) <= 72 else title[:71] + "…", value, sections)


def _lengths(data: Data) -> dict[str, Any]:
    """Histograms of the lengths of prompts and answers, in tokens as estimated from characters."""
    num_tokens, characters = sum(c.num_tokens for c in data.chunks), sum(len(c.text) for c in data.chunks)
    per_token = characters / num_tokens if num_tokens else _CHARACTERS_PER_TOKEN
    prompts = [sum(len(m.content) for m in sample.messages[:-1]) / per_token for sample in data.samples]
    answers = [len(sample.answer) / per_token for sample in data.samples]
    parts = []
    for name, values in (("prompts", prompts), ("answers", answers)):
        ranked = sorted(values)
        middle, most = ranked[len(ranked) // 2], ranked[-1]
        label = f"Tokens of the {name}: median {middle:.0f}, longest {most:.0f}"
        parts.append((name, middle, most, data_figures.histogram(values, label)))
    return {"parts": parts, "per_token": per_token, "measured": bool(num_tokens)}


def _missing(run: RunFolder, data: Data, parts: dict[str, Any]) -> list[str]:
    """What the page cannot tell, and why."""
    told = {
        "what curation drops and keeps: it has not run; all figures are of the samples as written": data.kept is None,
        "leaks: there is no exam yet": not run.file("exam.jsonl").is_file(),
        "teacher calls and tokens: there is no teacher.jsonl": parts["teacher"] is None,
        "coverage of the source: there are no documents with sentences that can be evidence": parts["coverage"] is None,
        "faithfulness and context gain: no stage of this run measured them": not parts["gains"],
    }
    return [text for text, holds in told.items() if holds]


def data_view(run: RunFolder, recipe: Recipe) -> dict[str, Any] | None:
    """Return everything that the data report shows, or None when the run has no samples."""
    data = read_data(run)
    if not data.samples:
        return None
    rows = data_funnel.funnel(data.written, data.rejections, data.kept)
    parts: dict[str, Any] = {
        "teacher": _teacher(run, data),
        "coverage": _coverage(data),
        "gains": data_funnel.named_figures(data.summaries, *_GAINS),
        "leaks": data_funnel.named_figures(data.summaries, "leak"),
    }
    return {
        **parts,
        "title": run.path.resolve().name,
        "version": __version__,
        "curated": data.kept is not None,
        "num_samples": len(data.samples),
        "funnel": rows,
        "total": data_funnel.total(rows),
        "refusals": data_funnel.refusals(data.samples, recipe.refusal),
        "diversity": _diversity(data.samples, recipe),
        "duplicates": _duplicates(data, recipe),
        "lengths": _lengths(data),
        "examples": examples(data.samples, data.documents, data.chunks, recipe.seed),
        "seed": recipe.seed,
        "missing": _missing(run, data, parts),
    }
