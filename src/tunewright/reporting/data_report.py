"""The data report: the view of data.html, and its rows for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tunewright.environment import __version__
from tunewright.html import figures
from tunewright.html.render import count, mark_span, render, section_name, share
from tunewright.recipe import Recipe
from tunewright.records import OWN, Chunk, Document, Rejection, Sample, SplitEntry, StageSummary
from tunewright.reporting import data_statistics
from tunewright.statistics.intervals import number
from tunewright.text.normalization import shingles, words
from tunewright.text.prompts import split_prompt

if TYPE_CHECKING:
    from markupsafe import Markup


NUM_EXAMPLES = 10


@dataclass(frozen=True)
class SampleExample:
    """A sample with its context and question apart and, where it has evidence, the source with the evidence marked."""

    sample: Sample
    context: str
    question: str
    document: Document | None
    section: tuple[str, ...]
    source: Markup | None


def _source(sample: Sample, chunk: Chunk | None) -> Markup | None:
    span = sample.evidence
    if span is None:
        return None
    if chunk is None or not chunk.start <= span.start < chunk.end:
        return mark_span(span.quote, 0, len(span.quote))
    return mark_span(chunk.text, span.start - chunk.start, span.end - chunk.start)


def sample_examples(
    samples: Sequence[Sample], documents: Iterable[Document], chunks: Iterable[Chunk], seed: int
) -> list[SampleExample]:
    """Return ten samples drawn with the seed, in their order."""
    document_of = {document.id: document for document in documents}
    chunk_of = {chunk.id: chunk for chunk in chunks}
    examples = []
    for sample in data_statistics.draw(samples, NUM_EXAMPLES, seed):
        chunk, document = chunk_of.get(sample.chunk or ""), document_of.get(sample.document or "")
        context, question = split_prompt(sample.question)
        section = chunk.section if chunk else ()
        examples.append(SampleExample(sample, context, question, document, section, _source(sample, chunk)))
    return examples


MOST_ROWS = 60
_CHARACTERS_PER_TOKEN = 4.0  # of English text; used where there are no chunks
_GAINS = ("faithfulness", "context_gain")


@dataclass(frozen=True)
class DataRecords:
    """The records of a run that the data report rests on.

    Attributes:
        title: name of the run.
        documents: all documents of the run.
        split: which documents samples may be written from; empty where no split is recorded.
        written: of samples.jsonl.
        kept: of train.jsonl; None before curation.
        summaries: of the finished stages, by name.
        teacher_use: as ``data_statistics.teacher_use`` returns it; None without teacher.jsonl.
        has_exam: whether there is an exam.
    """

    title: str
    documents: Sequence[Document]
    split: Sequence[SplitEntry]
    chunks: Sequence[Chunk]
    written: Sequence[Sample]
    kept: Sequence[Sample] | None
    rejections: Sequence[Rejection]
    summaries: Mapping[str, StageSummary]
    teacher_use: Mapping[str, Mapping[str, float]] | None
    has_exam: bool

    @property
    def samples(self) -> Sequence[Sample]:
        """The samples that the figures are of: the kept samples or, before curation, all written samples."""
        return self.written if self.kept is None else self.kept

    @property
    def train_documents(self) -> list[Document]:
        """The documents of the training side; all where no split is recorded."""
        train = {entry.document for entry in self.split if entry.side == "train"}
        return [document for document in self.documents if document.id in train or not train]


def _teacher(data: DataRecords) -> dict[str, Any] | None:
    """Return the calls of the teacher by stage, and the use per sample."""
    if data.teacher_use is None:
        return None
    own = {stage: values for stage, values in data.teacher_use.items() if stage not in ("exam", "judge")}
    num = sum(sample.task != OWN for sample in data.samples)
    spent: dict[str, float] = {}
    for values in own.values():
        for name, value in values.items():
            spent[name] = spent.get(name, 0.0) + value
    return {
        "stages": data.teacher_use,
        "num": num,
        "per_sample": {name: value / num for name, value in spent.items()} if num else {},
    }


def _diversity(samples: Sequence[Sample], recipe: Recipe) -> list[tuple[str, data_statistics.Diversity]]:
    """Return the diversity of questions and of answers, refusals left out; repeats with another passage count once."""
    declines = data_statistics.declines(recipe.refusal)
    exchanges = list(dict.fromkeys((split_prompt(s.question)[1], s.answer) for s in samples if not declines(s)))
    parts = {"questions": [question for question, _ in exchanges], "answers": [answer for _, answer in exchanges]}
    return [(name, data_statistics.diversity(texts, recipe.seed)) for name, texts in parts.items() if texts]


def _duplicates(data: DataRecords, recipe: Recipe) -> dict[str, Any]:
    reasons = Counter(r.reason for r in data.rejections if "duplicate" in r.reason and r.stage not in ("exam", "pairs"))
    drawn = data_statistics.draw(data.samples, data_statistics.CLUSTER_TEXTS, recipe.seed)
    items = [
        (
            sample.task,
            shingles(words(f"{split_prompt(sample.question)[1]}\n{sample.answer}"), data_statistics.SHINGLE_WORDS),
            shingles(words(sample.answer), data_statistics.SHINGLE_WORDS),
        )
        for sample in drawn
    ]
    threshold = recipe.curation.near_duplicate
    duplication = data_statistics.duplication(items, threshold)
    return {"reasons": reasons, "num": len(items), "threshold": threshold, "duplication": duplication}


def _coverage(data: DataRecords) -> dict[str, Any] | None:
    """Return the coverage of the source with its heat map; None where no sentence can be evidence."""
    every = data_statistics.coverage(data.train_documents, data.chunks, data.samples)
    covered = [document for document in every if document.sentences]
    if not covered:
        return None
    num_reached, num = data_statistics.overall(covered)
    shown = covered if len(covered) <= MOST_ROWS else sorted(covered, key=lambda d: d.share)[:MOST_ROWS]
    rows = [_strip(document) for document in shown]
    bare = data_statistics.unreached_sections(covered)
    label = (
        f"Sentences of {len(shown)} documents by the samples that reach them; of all {num} sentences {num_reached} "
        f"are reached; the least: {min(covered, key=lambda d: d.share).title[:80]}"
    )
    return {
        "num_reached": num_reached,
        "num": num,
        "num_twice": sum(sentence.num_samples > 1 for document in covered for sentence in document.sentences),
        "num_documents": len(covered),
        "num_bare_documents": sum(document.num_reached == 0 for document in covered),
        "num_left_out": len(every) - len(covered),
        "shown": shown,
        "figure": figures.heat_map(rows, label),
        "per_cell": figures.sentences_per_cell(rows),
        "bare": bare[:MOST_ROWS],
        "num_bare": len(bare),
        "num_sections": sum(len(document.sections) for document in covered),
    }


def _runs(document: data_statistics.DocumentCoverage, depth: int | None) -> list[tuple[str, list[int]]]:
    """Return the samples per sentence for each run of sentences with the same first ``depth`` headings."""
    groups = groupby(document.sentences, key=lambda sentence: sentence.section[:depth])
    return [(section_name(path), [sentence.num_samples for sentence in run]) for path, run in groups]


def _parts(document: data_statistics.DocumentCoverage) -> list[tuple[str, list[int]]]:
    """Return the runs by section; by first heading, or all in one, where there are too many to be visible."""
    for depth in (None, 1):
        runs = _runs(document, depth)
        if len(runs) <= MOST_ROWS:
            return runs
    return [("all sections", [sentence.num_samples for sentence in document.sentences])]


def _strip(document: data_statistics.DocumentCoverage) -> figures.Strip:
    sections = [
        (f"{name}: {sum(map(bool, own))} of {len(own)} sentences reached", own) for name, own in _parts(document)
    ]
    title = document.title or document.source
    value = f"{document.num_reached} of {len(document.sentences)}"
    return figures.Strip(title if len(title) <= 72 else title[:71] + "…", value, sections)


def _lengths(data: DataRecords) -> dict[str, Any]:
    """Return histograms of the lengths of prompts and answers, in tokens estimated from characters."""
    num_tokens, characters = sum(c.num_tokens for c in data.chunks), sum(len(c.text) for c in data.chunks)
    per_token = characters / num_tokens if num_tokens else _CHARACTERS_PER_TOKEN
    prompts = [sum(len(m.content) for m in sample.messages[:-1]) / per_token for sample in data.samples]
    answers = [len(sample.answer) / per_token for sample in data.samples]
    parts = []
    for name, values in (("prompts", prompts), ("answers", answers)):
        ranked = sorted(values)
        middle, most = ranked[len(ranked) // 2], ranked[-1]
        label = f"Tokens of the {name}: median {middle:.0f}, longest {most:.0f}"
        parts.append((name, middle, most, figures.histogram(values, label)))
    return {"parts": parts, "per_token": per_token, "measured": bool(num_tokens)}


def _missing(data: DataRecords, parts: Mapping[str, Any]) -> list[str]:
    """Return what the page does not show, and why."""
    reasons = {
        "what curation drops and keeps: it has not run; all figures are of the samples as written": data.kept is None,
        "leaks: there is no exam yet": not data.has_exam,
        "teacher calls and tokens: there is no teacher.jsonl": parts["teacher"] is None,
        "coverage of the source: there are no documents with sentences that can be evidence": parts["coverage"] is None,
        "faithfulness and context gain: no stage of this run measured them": not parts["gains"],
    }
    return [reason for reason, holds in reasons.items() if holds]


def data_view(data: DataRecords, recipe: Recipe) -> dict[str, Any] | None:
    """Return everything that the data report shows, or None when the run has no samples."""
    if not data.samples:
        return None
    rows = data_statistics.funnel(data.written, data.rejections, data.kept)
    parts: dict[str, Any] = {
        "teacher": _teacher(data),
        "coverage": _coverage(data),
        "gains": data_statistics.named_figures(data.summaries, *_GAINS),
        "leaks": data_statistics.named_figures(data.summaries, "leak"),
        "boilerplate": data_statistics.named_figures(data.summaries, "boilerplate: "),
    }
    return {
        **parts,
        "title": data.title,
        "version": __version__,
        "curated": data.kept is not None,
        "num_samples": len(data.samples),
        "funnel": rows,
        "total": data_statistics.total(rows),
        "refusals": data_statistics.refusals(data.samples, recipe.refusal),
        "diversity": _diversity(data.samples, recipe),
        "duplicates": _duplicates(data, recipe),
        "lengths": _lengths(data),
        "examples": sample_examples(data.samples, data.train_documents, data.chunks, recipe.seed),
        "seed": recipe.seed,
        "missing": _missing(data, parts),
    }


def data_page(title: str, view: Mapping[str, Any] | None) -> str:
    """Return data.html; for a run without samples (no view) it only says so."""
    empty = {"title": title, "version": __version__, "num_samples": 0}
    return render("data.html", view or empty)


def funnel_rows(view: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows task, tried, rejected, kept, yield; the last row is the total."""
    rows = []
    for row in [*view["funnel"], view["total"]]:
        kept = "–" if row.kept is None else count(row.kept)
        rejected = count(sum(row.rejected.values()))
        yielded = "–" if row.share is None else f"{row.share:.1%}"
        rows.append([row.task, count(row.tried), rejected, kept, yielded])
    return rows


def measure_rows(view: Mapping[str, Any]) -> list[list[str]]:
    """Return (measure, value) rows: refusals, diversity, duplicates, coverage, leaks."""
    rows = [
        [name, f"{count(part)} of {count(total)} ({share(part, total)})"] for name, total, part in view["refusals"].rows
    ]
    for name, values in view["diversity"]:
        rows += [
            [f"{name}: compression ratio", number(values.compression)],
            [f"{name}: distinct-1, -2, -3", ", ".join(number(value) for value in values.distinct)],
            [f"{name}: Vendi score", f"{number(values.vendi, 1)} of {count(values.num_vendi)} texts"],
            [f"{name}: runs of 4 words also in another text", share(values.repetition or 0.0, 1)],
        ]
    rows += [[f"dropped: {reason}", count(num)] for reason, num in sorted(view["duplicates"]["reasons"].items())]
    rows.append(["near duplicates left", share(view["duplicates"]["duplication"] or 0.0, 1)])
    if view["coverage"]:
        coverage = view["coverage"]
        num_reached, num = coverage["num_reached"], coverage["num"]
        rows += [
            ["source sentences reached", f"{count(num_reached)} of {count(num)} ({share(num_reached, num)})"],
            ["source sentences reached twice or more", f"{count(coverage['num_twice'])} of {count(num)}"],
            ["sections that no sample reaches", f"{count(coverage['num_bare'])} of {count(coverage['num_sections'])}"],
        ]
    if view["teacher"]:
        rows += [[f"teacher, per sample: {name}", number(v)] for name, v in view["teacher"]["per_sample"].items()]
    return rows + [[f"{stage}: {name.replace('_', ' ')}", str(v)] for stage, name, v in view["leaks"] + view["gains"]]
