"""The data report: data.html, and its short form for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.environment import __version__
from tunewright.errors import RunFolderError, command
from tunewright.html import figures
from tunewright.html.render import count, render, section_name, share
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Chunk, Document, Rejection, Sample, SplitEntry, StageSummary
from tunewright.reporting import data_statistics
from tunewright.reporting import data_statistics as measures
from tunewright.reporting.data_statistics import draw
from tunewright.reporting.sections import STAGES
from tunewright.run_folder import RunFile, RunFolder
from tunewright.statistics.intervals import number
from tunewright.text.normalization import shingles, words
from tunewright.text.prompts import split_prompt

if TYPE_CHECKING:
    from markupsafe import Markup


NUM_EXAMPLES = 10
_SHINGLE_WORDS = 2


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
        shown, asked = split_prompt(sample.question)
        section = chunk.section if chunk else ()
        found.append(Example(sample, shown, asked, by_id.get(sample.document or ""), section, _source(sample, chunk)))
    return found


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
    learning = {entry.document for entry in run.records_if_any(RunFile.SPLIT, SplitEntry) if entry.side == "train"}
    documents = run.records_if_any(RunFile.DOCUMENTS, Document)
    states = {path.stem for path in run.file("stages").glob("*.json")} - {"report"}
    names = [name for name in STAGES if name in states] + sorted(states - set(STAGES))
    records = {name: run.stage_record(name) for name in names}
    return Data(
        documents=[document for document in documents if document.id in learning or not learning],
        chunks=run.records_if_any(RunFile.CHUNKS, Chunk),
        written=run.records_if_any(RunFile.SAMPLES, Sample),
        kept=run.read_records(RunFile.TRAIN, Sample) if run.file(RunFile.TRAIN).is_file() else None,
        rejections=run.records_if_any(RunFile.REJECTED, Rejection),
        summaries={name: StageSummary.model_validate(record["summary"]) for name, record in records.items() if record},
    )


def _teacher(run: RunFolder, data: Data) -> dict[str, Any] | None:
    """The teacher's calls by stage, and what a kept sample took; cost where the stages tell it."""
    journal = run.file(RunFile.TEACHER_JOURNAL)
    if not journal.is_file():
        return None
    use = data_statistics.teacher_use(journal)
    own = {stage: values for stage, values in use.items() if stage not in ("exam", "judge")}
    num = sum(sample.task != data_statistics.OWN for sample in data.samples)
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
    declines = data_statistics.declines(recipe.refusal)
    exchanges = list(dict.fromkeys((split_prompt(s.question)[1], s.answer) for s in samples if not declines(s)))
    parts = {"questions": [asked for asked, _ in exchanges], "answers": [answer for _, answer in exchanges]}
    return [(name, measures.diversity(texts, recipe.seed)) for name, texts in parts.items() if texts]


def _duplicates(data: Data, recipe: Recipe) -> dict[str, Any]:
    reasons = Counter(r.reason for r in data.rejections if "duplicate" in r.reason and r.stage not in ("exam", "pairs"))
    drawn = measures.draw(data.samples, measures.CLUSTER_TEXTS, recipe.seed)
    items = [
        (
            sample.task,
            shingles(words(f"{split_prompt(sample.question)[1]}\n{sample.answer}"), _SHINGLE_WORDS),
            shingles(words(sample.answer), _SHINGLE_WORDS),
        )
        for sample in drawn
    ]
    threshold = recipe.curation.near_duplicate
    share = measures.duplication(items, threshold)
    return {"reasons": reasons, "num": len(items), "threshold": threshold, "duplication": share}


def _coverage(data: Data) -> dict[str, Any] | None:
    """Coverage of the source with its heat map; None without documents, or when no sentence can be evidence."""
    found = data_statistics.coverage(data.documents, data.chunks, data.samples)
    there = [document for document in found if document.sentences]
    if not there:
        return None
    num_reached, num = data_statistics.overall(there)
    shown = sorted(there, key=lambda document: document.share)[:MOST_ROWS] if len(there) > MOST_ROWS else there
    rows = [_strip(document) for document in shown]
    bare = data_statistics.unreached_sections(there)
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
        "figure": figures.heat_map(rows, label),
        "per_cell": figures.sentences_per_cell(rows),
        "bare": bare[:MOST_ROWS],
        "num_bare": len(bare),
        "num_sections": sum(len(document.sections) for document in there),
    }


def _runs(document: data_statistics.DocumentCoverage, depth: int | None) -> list[tuple[str, list[int]]]:
    """The samples per sentence of each run of sentences with the same first ``depth`` headings."""
    groups = groupby(document.sentences, key=lambda sentence: sentence.section[:depth])
    return [(section_name(path), [sentence.num_samples for sentence in run]) for path, run in groups]


def _parts(document: data_statistics.DocumentCoverage) -> list[tuple[str, list[int]]]:
    """The runs of one section; of its first heading, or all as one, where there are too many to be seen."""
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
        parts.append((name, middle, most, figures.histogram(values, label)))
    return {"parts": parts, "per_token": per_token, "measured": bool(num_tokens)}


def _missing(run: RunFolder, data: Data, parts: dict[str, Any]) -> list[str]:
    """What the page cannot tell, and why."""
    told = {
        "what curation drops and keeps: it has not run; all figures are of the samples as written": data.kept is None,
        "leaks: there is no exam yet": not run.file(RunFile.EXAM).is_file(),
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
    rows = data_statistics.funnel(data.written, data.rejections, data.kept)
    parts: dict[str, Any] = {
        "teacher": _teacher(run, data),
        "coverage": _coverage(data),
        "gains": data_statistics.named_figures(data.summaries, *_GAINS),
        "leaks": data_statistics.named_figures(data.summaries, "leak"),
    }
    return {
        **parts,
        "title": run.path.resolve().name,
        "version": __version__,
        "curated": data.kept is not None,
        "num_samples": len(data.samples),
        "funnel": rows,
        "total": data_statistics.total(rows),
        "refusals": data_statistics.refusals(data.samples, recipe.refusal),
        "diversity": _diversity(data.samples, recipe),
        "duplicates": _duplicates(data, recipe),
        "lengths": _lengths(data),
        "examples": examples(data.samples, data.documents, data.chunks, recipe.seed),
        "seed": recipe.seed,
        "missing": _missing(run, data, parts),
    }


PAGE = RunFile.DATA_REPORT


def write_page(run: RunFolder, view: dict[str, Any] | None) -> None:
    """Write data.html; of a run without samples it says just that."""
    empty = {"title": run.path.resolve().name, "version": __version__, "num_samples": 0}
    run.write(PAGE, render("data.html", view or empty))


def _funnel_rows(view: dict[str, Any]) -> list[list[str]]:
    rows = []
    for row in [*view["funnel"], view["total"]]:
        left = "–" if row.kept is None else count(row.kept)
        rejected = count(sum(row.rejected.values()))
        yielded = "–" if row.share is None else f"{row.share:.1%}"
        rows.append([row.task, count(row.tried), rejected, left, yielded])
    return rows


def _print_funnel(view: dict[str, Any]) -> None:
    console.table("samples by task", ("task", "tried", "rejected", "kept", "yield"), _funnel_rows(view))
    drops = sorted(view["total"].rejected.items(), key=lambda item: (-item[1], item[0]))
    if drops:
        rows = [[reason, stage, count(num)] for (stage, reason), num in drops]
        console.table("rejected", ("reason", "stage", "samples"), rows)
    for row in view["funnel"]:
        if row.unaccounted:
            console.warning(f"{row.task}: {row.unaccounted} samples unaccounted for; are the files of different runs?")


def measure_rows(view: dict[str, Any]) -> list[list[str]]:
    """Return (measure, value) rows: refusals, diversity, duplicates, coverage, leaks."""
    rows = [
        [name, f"{count(part)} of {count(whole)} ({share(part, whole)})"] for name, whole, part in view["refusals"].rows
    ]
    for name, found in view["diversity"]:
        rows += [
            [f"{name}: compression ratio", number(found.compression)],
            [f"{name}: distinct-1, -2, -3", ", ".join(number(value) for value in found.distinct)],
            [f"{name}: Vendi score", f"{number(found.vendi, 1)} of {count(found.num_vendi)} texts"],
            [f"{name}: runs of 4 words met elsewhere", share(found.repetition or 0.0, 1)],
        ]
    rows += [[f"dropped: {reason}", count(num)] for reason, num in sorted(view["duplicates"]["reasons"].items())]
    rows.append(["near duplicates left", share(view["duplicates"]["duplication"] or 0.0, 1)])
    if view["coverage"]:
        found = view["coverage"]
        told = f"{count(found['num_reached'])} of {count(found['num'])} ({share(found['num_reached'], found['num'])})"
        rows.append(["source sentences reached", told])
        rows.append(
            ["sections that no question reaches", f"{count(found['num_bare'])} of {count(found['num_sections'])}"]
        )
    if view["teacher"]:
        rows += [[f"teacher, per sample: {name}", number(v)] for name, v in view["teacher"]["per_sample"].items()]
    return rows + [[f"{stage}: {name.replace('_', ' ')}", str(v)] for stage, name, v in view["leaks"] + view["gains"]]


def inspect_run(run: RunFolder) -> None:
    """Write data.html and print its short form.

    Raises:
        RunFolderError: there are no samples yet, or a file is damaged.
    """
    recipe_file = run.file(RunFile.RECIPE)
    view = data_view(run, load_recipe(recipe_file) if recipe_file.is_file() else Recipe())
    if view is None:
        raise RunFolderError(
            f"{run.path} has no samples yet",
            "neither samples.jsonl nor train.jsonl holds any",
            f"write some: {command('synth', 'RECIPE', '--dir', run.path)}",
        )
    write_page(run, view)
    _print_funnel(view)
    of = "kept" if view["curated"] else "written"
    console.table(f"of the {count(view['num_samples'])} samples {of}", ("measure", "value"), measure_rows(view))
    for text in view["missing"]:
        console.line(f"not told: {text}")
    console.line(f"the whole data report: {run.file(PAGE).absolute()}")
