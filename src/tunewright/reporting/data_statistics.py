"""Statistics of the training data: funnel, refusals, teacher use, diversity, duplicates, coverage of the source."""

from __future__ import annotations

import gzip
import json
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tunewright.metrics import is_refusal
from tunewright.records import OWN, Chunk, Document, Rejection, Sample, Span, StageSummary
from tunewright.text.normalization import is_evidence, jaccard, words
from tunewright.text.prompts import split_prompt
from tunewright.text.sentences import sentences

WRITING = "synth"
UNKNOWN_TASK = "unknown"  # of a rejection that was recorded before rejections named their task
# Stages whose rejections are not of the funnel: documents, questions, pairs, or kept samples that are too long.
_UNKNOWN_STAGE = "unknown"
_OTHER = frozenset({"ingest", "split", "exam", "pairs", "train", "evaluate", "report"})


@dataclass(frozen=True)
class TaskFunnel:
    """The funnel of one task: tried = kept + rejected + unaccounted, rejected by (stage, reason).

    ``unaccounted`` is 0 unless the files are of different runs. ``kept`` is None before curation.
    """

    task: str
    tried: int
    written: int
    kept: int | None
    rejected: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def unaccounted(self) -> int:
        """Samples that were neither rejected nor kept (below 0: counted twice)."""
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

    Tried: what the synth stage wrote or rejected; of the user's own data, everything read.

    Args:
        written: of samples.jsonl.
        rejections: of all stages; those of documents, questions and pairs do not count.
        kept: of train.jsonl, None before curation.
    """
    task_of = {sample.id: sample.task for sample in written}
    rejected: dict[str, Counter[tuple[str, str]]] = {}
    for rejection in rejections:
        if rejection.stage in _OTHER or (kept is None and rejection.stage != WRITING):
            continue
        older = UNKNOWN_TASK if rejection.stage == WRITING else task_of.get(rejection.id, OWN)
        counts = rejected.setdefault(rejection.task or older, Counter())
        counts[rejection.stage, rejection.reason] += 1
    wrote = Counter(sample.task for sample in written)
    stayed = Counter(sample.task for sample in kept or ())
    rows = []
    for task in dict.fromkeys([*wrote, *stayed, *rejected]):
        drops = rejected.get(task, Counter())
        left = stayed[task] if kept is not None else None
        came = stayed[task] + sum(count for (stage, _), count in drops.items() if stage != WRITING)
        num = wrote[task] or came  # the user's own data comes in at the curation
        tried = num + sum(count for (stage, _), count in drops.items() if stage == WRITING)
        rows.append(TaskFunnel(task, tried, num, left, dict(drops)))
    return rows


def total(rows: Sequence[TaskFunnel]) -> TaskFunnel:
    """Return the sum of the tasks' funnels."""
    drops: Counter[tuple[str, str]] = Counter()
    for row in rows:
        drops.update(row.rejected)
    curated = [row.kept for row in rows if row.kept is not None]
    kept = sum(curated) if len(curated) == len(rows) else None
    return TaskFunnel("all", sum(r.tried for r in rows), sum(r.written for r in rows), kept, dict(drops))


@dataclass(frozen=True)
class Refusals:
    """Counts of samples with and without a passage, and of those that decline to answer."""

    with_passage: int
    with_passage_declined: int
    without: int
    without_declined: int

    @property
    def rows(self) -> list[tuple[str, int, int]]:
        """Return rows of (label, total, count)."""
        num, declined = self.with_passage + self.without, self.with_passage_declined + self.without_declined
        return [
            ("all samples: decline", num, declined),
            ("show a passage: decline", self.with_passage, self.with_passage_declined),
            ("show a passage: answer", self.with_passage, self.with_passage - self.with_passage_declined),
            ("show no passage: decline", self.without, self.without_declined),
        ]


def declines(refusal: str) -> Callable[[Sample], bool]:
    """Return a test whether a sample teaches to decline, by its task or the start of its answer."""
    cache: dict[str, bool] = {}

    def test(sample: Sample) -> bool:
        if sample.task == "refusal":
            return True
        if sample.answer not in cache:
            cache[sample.answer] = is_refusal(sample.answer[:500], refusal)
        return cache[sample.answer]

    return test


def refusals(samples: Iterable[Sample], refusal: str) -> Refusals:
    """Return how many samples decline, with a passage and without; ``refusal`` is the recipe's sentence."""
    test = declines(refusal)
    counts = Counter((bool(split_prompt(sample.question)[0]), test(sample)) for sample in samples)
    return Refusals(
        with_passage=counts[True, True] + counts[True, False],
        with_passage_declined=counts[True, True],
        without=counts[False, True] + counts[False, False],
        without_declined=counts[False, True],
    )


def teacher_use(lines: Iterable[bytes]) -> dict[str, dict[str, float]]:
    """Return calls, prompt tokens, written tokens, seconds and, where priced, US dollars by stage.

    Replies to earlier settings of the run count too: they were paid for. Damaged lines are skipped.

    Args:
        lines: of teacher.jsonl.
    """
    use_of: dict[str, dict[str, float]] = {}
    fields = {"prompt tokens": "num_prompt_tokens", "written tokens": "num_tokens", "seconds": "seconds"}
    fields |= {"US dollars": "cost"}
    for line in lines:
        try:
            entry = json.loads(line)
            values = {name: float(entry.get(key) or 0) for name, key in fields.items()}
            stage = str(entry.get("stage") or _UNKNOWN_STAGE)
        except (ValueError, TypeError, AttributeError):
            continue
        use = use_of.setdefault(stage, {"calls": 0.0, **dict.fromkeys(fields, 0.0)})
        use["calls"] += 1
        for name, value in values.items():
            use[name] += value
    if not any(use["US dollars"] for use in use_of.values()):
        for use in use_of.values():
            del use["US dollars"]  # no call has a price
    return use_of


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
SHINGLE_WORDS = 2  # of the pairs of adjacent words by which near duplicates are recognized

_Item = TypeVar("_Item")
_Shingles = frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class Diversity:
    """Measures of how varied texts are; None where there are too few words."""

    num_texts: int
    num_vendi: int
    compression: float | None
    distinct: tuple[float | None, float | None, float | None]
    vendi: float | None
    repetition: float | None


def draw(items: Sequence[_Item], most: int, seed: int) -> list[_Item]:
    """Return the items, or a seeded sample of ``most`` of them in their order."""
    if len(items) <= most:
        return list(items)
    return [items[index] for index in sorted(random.Random(seed).sample(range(len(items)), most))]


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
    """Return the share of the runs of ``size`` words that another text contains too, in [0, 1].

    After the self-repetition of Salkar et al. (2022), who also take runs of four words, but sum logarithms of counts.
    """
    runs = [_runs(tokens, size) for tokens in texts]
    holders = Counter(run for own in runs for run in set(own))
    total = sum(map(len, runs))
    return sum(holders[run] > 1 for own in runs for run in own) / total if total else None


def vendi(texts: Sequence[Sequence[str]]) -> float | None:
    """Return the Vendi score: the effective number of different texts (Friedman & Dieng, 2210.02410).

    It is exp(-sum(x ln x)) over the eigenvalues x of K/n. K holds the cosines of the texts' words by tf-idf, with
    idf = ln((1 + n) / (1 + df)) + 1. A text without words is similar only to other texts without words.
    """
    import numpy
    from scipy.sparse import csr_matrix

    if not texts:
        return None
    counts = [Counter(tokens) or Counter({"": 1}) for tokens in texts]
    frequency = Counter(word for count in counts for word in count)
    column = {word: index for index, word in enumerate(frequency)}
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
    """Return the diversity of the texts; above the limits, that of a seeded sample."""
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


def leaders(items: Sequence[tuple[str, _Shingles, _Shingles]], threshold: float) -> list[int]:
    """Return, for each item, the index of the first item that it repeats, or its own.

    An item repeats another of the same group when the Jaccard similarity of both their parts reaches the threshold.
    Exact: two sets this similar share one of their rarest members (prefix filter, Chaudhuri et al. 2006).

    Args:
        items: (group, first part, second part) each.
        threshold: above 0, at most 1.
    """
    frequency = Counter(pair for _, part, _ in items for pair in part)
    index: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    leader_of: dict[tuple[str, _Shingles, _Shingles], int] = {}
    chosen: list[int] = []
    for number, item in enumerate(items):
        group, part, other = item
        ranked = sorted(part, key=lambda pair: (frequency[pair], pair)) or [()]
        rare = ranked[: len(ranked) - int(threshold * len(ranked) + 1 - 1e-9) + 1]
        candidates = {earlier for pair in rare for earlier in index.get((group, pair), ())}
        leader = leader_of.get(item)
        if leader is None:
            similar = (
                earlier
                for earlier in sorted(candidates)
                if jaccard(items[earlier][1], part) >= threshold and jaccard(items[earlier][2], other) >= threshold
            )
            leader = leader_of[item] = next(similar, number)
        chosen.append(leader)
        if leader == number:
            for pair in rare:
                index.setdefault((group, pair), []).append(number)
    return chosen


def duplication(items: Sequence[tuple[str, _Shingles, _Shingles]], threshold: float) -> float | None:
    """Return 1 - clusters / items: the share of items that repeat an earlier one."""
    return 1 - len(set(leaders(items, threshold))) / len(items) if items else None


@dataclass(frozen=True)
class CoveredSentence:
    """A sentence that can be evidence: its offsets in the document, its section, how many samples reach it."""

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
    sentences: tuple[CoveredSentence, ...]

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
        groups: dict[tuple[str, ...], list[CoveredSentence]] = {}
        for sentence in self.sentences:
            groups.setdefault(sentence.section, []).append(sentence)
        return [
            SectionCoverage(path, len(group), sum(sentence.num_samples > 0 for sentence in group))
            for path, group in groups.items()
        ]


def eligible(chunks: Iterable[Chunk]) -> dict[str, list[CoveredSentence]]:
    """Return each document's sentences that can be evidence (``text.is_evidence``), in order, each once."""
    by_document: dict[str, dict[tuple[int, int], CoveredSentence]] = {}
    for chunk in chunks:
        own = by_document.setdefault(chunk.document, {})
        for start, end in sentences(chunk.text):
            if is_evidence(" ".join(chunk.text[start:end].split())):
                offsets = (chunk.start + start, chunk.start + end)
                own.setdefault(offsets, CoveredSentence(*offsets, chunk.section))
    return {document: [own[offsets] for offsets in sorted(own)] for document, own in by_document.items()}


def reached(own: Sequence[CoveredSentence], spans: Iterable[Span]) -> list[int]:
    """Return, for each sentence, how many spans reach it.

    A span reaches a sentence when they share at least half of the shorter of the two: a quote inside a sentence reaches
    it, and a quote that extends a word into the next sentence does not reach that.

    Args:
        own: sentences of a document in order, without overlaps.
        spans: of the same document.
    """
    counts = [0] * len(own)
    ends = [sentence.end for sentence in own]
    for span in spans:
        for index in range(bisect_left(ends, span.start + 1), len(own)):
            sentence = own[index]
            if sentence.start >= span.end:
                break
            shared = min(sentence.end, span.end) - max(sentence.start, span.start)
            counts[index] += 2 * shared >= min(sentence.end - sentence.start, span.end - span.start)
    return counts


def coverage(
    documents: Iterable[Document], chunks: Iterable[Chunk], samples: Iterable[Sample]
) -> list[DocumentCoverage]:
    """Return the coverage of each document, in their order.

    Args:
        documents: the documents of the training side.
        chunks: of any documents.
        samples: the kept samples; those without evidence reach nothing.
    """
    by_document: dict[str, list[Span]] = {}
    for sample in samples:
        if sample.evidence is not None:
            by_document.setdefault(sample.evidence.document, []).append(sample.evidence)
    sentences_of = eligible(chunks)
    covered = []
    for document in documents:
        own = sentences_of.get(document.id, [])
        counts = reached(own, by_document.get(document.id, ()))
        counted = (CoveredSentence(s.start, s.end, s.section, num) for s, num in zip(own, counts, strict=True))
        covered.append(DocumentCoverage(document.id, document.title, document.source, tuple(counted)))
    return covered


def unreached_sections(covered: Sequence[DocumentCoverage]) -> list[tuple[DocumentCoverage, SectionCoverage]]:
    """Return the sections that no sample reaches, the longest first."""
    bare = [(document, part) for document in covered for part in document.sections if not part.num_reached]
    return sorted(bare, key=lambda item: -item[1].num_sentences)


def overall(covered: Sequence[DocumentCoverage]) -> tuple[int, int]:
    """Return (sentences reached, sentences that can be evidence) of all documents."""
    return sum(document.num_reached for document in covered), sum(len(document.sentences) for document in covered)
