"""Which sentences of the training documents the samples reach."""

from __future__ import annotations

import gzip
import json
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tunewright.metrics import is_refusal
from tunewright.records import Chunk, Document, Rejection, Sample, Span, StageSummary
from tunewright.text.normalization import is_evidence, jaccard, sentences, words
from tunewright.text.prompts import split_prompt

WRITING = "synth"
OWN = "own"  # the task of the user's own data
UNKNOWN = "unknown"  # of a rejection from before rejections named their task
# The stages whose rejections are no samples: documents, questions, pairs, or samples that were kept and then too long.
_OTHER = frozenset({"ingest", "split", "exam", "pairs", "train", "evaluate", "report"})


@dataclass(frozen=True)
class TaskFunnel:
    """One task's way: tried = kept + rejected + unaccounted, rejected by (stage, reason).

    ``unaccounted`` is 0 unless the files are of different runs: then the rejections or the kept samples are not those
    of the written ones. ``kept`` is None before curation.
    """

    task: str
    tried: int
    written: int
    kept: int | None
    rejected: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def unaccounted(self) -> int:
        """What neither left with a reason nor was kept (below 0: left twice)."""
        passed = self.written if self.kept is None else self.kept
        return self.tried - sum(self.rejected.values()) - passed

    @property
    def share(self) -> float | None:
        """The yield: kept over tried."""
        return None if self.kept is None or not self.tried else self.kept / self.tried


def funnel(
    written: Sequence[Sample], rejections: Iterable[Rejection], kept: Sequence[Sample] | None
) -> list[TaskFunnel]:
    """Return the funnel of each task, in the order of their first sample.

    Tried is what the synth stage wrote and what it rejected; of the user's own data, all that was read.

    Args:
        written: of samples.jsonl.
        rejections: of all stages; those of documents, questions and pairs are left out.
        kept: of train.jsonl, None before curation.
    """
    task_of = {sample.id: sample.task for sample in written}
    rejected: dict[str, Counter[tuple[str, str]]] = {}
    for rejection in rejections:
        if rejection.stage in _OTHER or (kept is None and rejection.stage != WRITING):
            continue
        older = UNKNOWN if rejection.stage == WRITING else task_of.get(rejection.id, OWN)
        counts = rejected.setdefault(rejection.task or older, Counter())
        counts[rejection.stage, rejection.reason] += 1
    wrote = Counter(sample.task for sample in written)
    stayed = Counter(sample.task for sample in kept or ())
    found = []
    for task in dict.fromkeys([*wrote, *stayed, *rejected]):
        drops = rejected.get(task, Counter())
        left = stayed[task] if kept is not None else None
        came = stayed[task] + sum(count for (stage, _), count in drops.items() if stage != WRITING)
        num = wrote[task] or came  # the user's own data comes in at the curation
        tried = num + sum(count for (stage, _), count in drops.items() if stage == WRITING)
        found.append(TaskFunnel(task, tried, num, left, dict(drops)))
    return found


def total(rows: Sequence[TaskFunnel]) -> TaskFunnel:
    """Return the sum of the tasks' funnels."""
    drops: Counter[tuple[str, str]] = Counter()
    for row in rows:
        drops.update(row.rejected)
    known = [row.kept for row in rows if row.kept is not None]
    kept = sum(known) if len(known) == len(rows) else None
    return TaskFunnel("all", sum(r.tried for r in rows), sum(r.written for r in rows), kept, dict(drops))


@dataclass(frozen=True)
class Refusals:
    """Counts of samples: with a passage and without, and how many of each decline to answer."""

    with_passage: int
    with_passage_declined: int
    without: int
    without_declined: int

    @property
    def rows(self) -> list[tuple[str, int, int]]:
        """Return (what is counted, of how many, how many)."""
        num, declined = self.with_passage + self.without, self.with_passage_declined + self.without_declined
        return [
            ("all samples: decline", num, declined),
            ("show a passage: decline", self.with_passage, self.with_passage_declined),
            ("show a passage: answer", self.with_passage, self.with_passage - self.with_passage_declined),
            ("show no passage: decline", self.without, self.without_declined),
        ]


def declines(refusal: str) -> Callable[[Sample], bool]:
    """Return the test whether a sample teaches to decline, by its task or its answer's beginning."""
    known: dict[str, bool] = {}

    def test(sample: Sample) -> bool:
        if sample.task == "refusal":
            return True
        if sample.answer not in known:
            known[sample.answer] = is_refusal(sample.answer[:500], refusal)
        return known[sample.answer]

    return test


def refusals(samples: Iterable[Sample], refusal: str) -> Refusals:
    """Count the samples that decline, with a passage and without; ``refusal`` is the recipe's sentence."""
    test = declines(refusal)
    counts = Counter((bool(split_prompt(sample.question)[0]), test(sample)) for sample in samples)
    return Refusals(
        with_passage=counts[True, True] + counts[True, False],
        with_passage_declined=counts[True, True],
        without=counts[False, True] + counts[False, False],
        without_declined=counts[False, True],
    )


def teacher_use(journal: Path) -> dict[str, dict[str, float]]:
    """Return calls, prompt tokens, written tokens and seconds by stage, of every reply on record.

    Replies to earlier settings of the run count too: they were paid for. A damaged line is passed over.
    """
    found: dict[str, dict[str, float]] = {}
    fields = {"prompt tokens": "num_prompt_tokens", "written tokens": "num_tokens", "seconds": "seconds"}
    fields |= {"US dollars": "cost"}
    with journal.open("rb") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                values = {name: float(entry.get(key) or 0) for name, key in fields.items()}
                stage = str(entry.get("stage") or UNKNOWN)
            except (ValueError, TypeError, AttributeError):
                continue
            use = found.setdefault(stage, {"calls": 0.0, **dict.fromkeys(fields, 0.0)})
            use["calls"] += 1
            for name, value in values.items():
                use[name] += value
    if not any(use["US dollars"] for use in found.values()):
        for use in found.values():
            del use["US dollars"]  # nothing has a price
    return found


def named_figures(summaries: Mapping[str, StageSummary], *prefixes: str) -> list[tuple[str, str, float | int | str]]:
    """Return (stage, name, value) of the stages' figures whose name starts with one of the prefixes."""
    return [
        (stage, name, value)
        for stage, summary in summaries.items()
        for name, value in summary.figures.items()
        if name.startswith(prefixes)
    ]


VENDI_TEXTS = 500  # the eigenvalues cost the cube of this
DIVERSITY_TEXTS = 10_000
CLUSTER_TEXTS = 20_000
REPEATED_WORDS = 4

Item = TypeVar("Item")
Shingles = frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class Diversity:
    """How varied some texts are; None where there are too few words to tell."""

    num_texts: int
    num_vendi: int
    compression: float | None
    distinct: tuple[float | None, float | None, float | None]
    vendi: float | None
    repetition: float | None


def draw(items: Sequence[Item], most: int, seed: int) -> list[Item]:
    """Return the items, or a seeded sample of ``most`` of them in their order."""
    if len(items) <= most:
        return list(items)
    return [items[place] for place in sorted(random.Random(seed).sample(range(len(items)), most))]


def compression_ratio(texts: Sequence[str]) -> float | None:
    """Return raw bytes per compressed byte of the joined texts; higher is more repetitive (Shaib et al., 2403.00553).

    Gzip at its highest level. The ratio grows with the number of texts and their length: compare at equal count.
    """
    raw = "\n".join(texts).encode("utf-8", "surrogatepass")
    return len(raw) / len(gzip.compress(raw, 9, mtime=0)) if raw else None


def _runs(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]


def distinct(texts: Sequence[Sequence[str]], size: int) -> float | None:
    """Return distinct-n: different runs of ``size`` words over all runs, in (0, 1] (Li et al., 1510.03055)."""
    runs = [run for tokens in texts for run in _runs(tokens, size)]
    return len(set(runs)) / len(runs) if runs else None


def self_repetition(texts: Sequence[Sequence[str]], size: int = REPEATED_WORDS) -> float | None:
    """Return the share of the runs of ``size`` words that another text holds as well, in [0, 1].

    After the self-repetition of Salkar et al. (2022), who take runs of four words too, but sum logarithms of counts.
    """
    runs = [_runs(tokens, size) for tokens in texts]
    holders = Counter(run for own in runs for run in set(own))
    total = sum(map(len, runs))
    return sum(holders[run] > 1 for own in runs for run in own) / total if total else None


def vendi(texts: Sequence[Sequence[str]]) -> float | None:
    """Return the Vendi score: the effective number of different texts (Friedman & Dieng, 2210.02410).

    It is exp(-sum(x ln x)) over the eigenvalues x of K/n. K holds the cosines of the texts' words by tf-idf, with
    idf = ln((1 + n) / (1 + df)) + 1. A text without words is alike to such texts alone.
    """
    import numpy
    from scipy.sparse import csr_matrix

    if not texts:
        return None
    counts = [Counter(tokens) or Counter({"": 1}) for tokens in texts]
    frequency = Counter(word for count in counts for word in count)
    column = {word: place for place, word in enumerate(frequency)}
    idf = {word: numpy.log((1 + len(texts)) / (1 + df)) + 1 for word, df in frequency.items()}
    entries = [(row, column[word], num * idf[word]) for row, count in enumerate(counts) for word, num in count.items()]
    rows, columns, values = zip(*entries, strict=True)
    matrix = csr_matrix((values, (rows, columns)), shape=(len(texts), len(column)))
    norms = numpy.sqrt(numpy.asarray(matrix.multiply(matrix).sum(axis=1)))
    similarity = numpy.asarray((matrix @ matrix.T).todense()) / (norms @ norms.T)
    eigenvalues = numpy.linalg.eigvalsh(similarity / len(texts))
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(numpy.exp(-(positive * numpy.log(positive)).sum()))


def diversity(texts: Sequence[str], seed: int = 0) -> Diversity:
    """Return the diversity of the texts; of a seeded sample where there are more than the limits above."""
    drawn = draw(texts, DIVERSITY_TEXTS, seed)
    tokens = [words(text) for text in drawn]
    chosen = draw(tokens, VENDI_TEXTS, seed)
    return Diversity(
        num_texts=len(drawn),
        num_vendi=len(chosen),
        compression=compression_ratio(drawn),
        distinct=(distinct(tokens, 1), distinct(tokens, 2), distinct(tokens, 3)),
        vendi=vendi(chosen),
        repetition=self_repetition(tokens),
    )


def leaders(items: Sequence[tuple[str, Shingles, Shingles]], threshold: float) -> list[int]:
    """Return, for each item, the number of the first one that it repeats, or its own.

    One item repeats another of the same group when the Jaccard similarity of both their parts reaches the threshold.
    Exact: two sets that alike must share one of their rarest members (prefix filter, Chaudhuri et al. 2006).

    Args:
        items: (group, first part, second part) each.
        threshold: above 0, at most 1.
    """
    frequency = Counter(shingle for _, part, _ in items for shingle in part)
    index: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    known: dict[tuple[str, Shingles, Shingles], int] = {}
    found: list[int] = []
    for number, item in enumerate(items):
        group, part, other = item
        ranked = sorted(part, key=lambda shingle: (frequency[shingle], shingle)) or [()]
        rare = ranked[: len(ranked) - int(threshold * len(ranked) + 1 - 1e-9) + 1]
        candidates = {place for shingle in rare for place in index.get((group, shingle), ())}
        leader = known.get(item)
        if leader is None:
            alike = (
                place
                for place in sorted(candidates)
                if jaccard(items[place][1], part) >= threshold and jaccard(items[place][2], other) >= threshold
            )
            leader = known[item] = next(alike, number)
        found.append(leader)
        if leader == number:
            for shingle in rare:
                index.setdefault((group, shingle), []).append(number)
    return found


def duplication(items: Sequence[tuple[str, Shingles, Shingles]], threshold: float) -> float | None:
    """Return 1 - clusters / items: the share of items that repeat an earlier one."""
    return 1 - len(set(leaders(items, threshold))) / len(items) if items else None


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
