"""Measures of a set of texts, each a pure function: diversity, repetition, duplication, lengths."""

from __future__ import annotations

import gzip
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tunewright.text import jaccard, words

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


def shingles(text: str) -> Shingles:
    """Return the pairs of neighboring words; of a text of one word, that word."""
    tokens = words(text)
    return frozenset(_runs(tokens, min(2, len(tokens)))) if tokens else frozenset()


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
