"""Exact and near duplicates among samples: MinHash LSH finds candidates, true Jaccard similarity decides."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from datasketch import MinHashLSH

from tunewright.curation.rules import is_refusal, split_prompt
from tunewright.recipe import Recipe
from tunewright.records import Sample, digest
from tunewright.text import normalize

Shingles = frozenset[tuple[str, ...]]
Hashes = np.ndarray[Any, np.dtype[np.uint32]]  # of a text's shingles, sorted, each once

_PERMUTATIONS = 128
_SHINGLE_WORDS = 2
_CANDIDATES = 0.9  # of the threshold: a candidate too many costs a comparison, one too few is a missed duplicate
_CROWD = 200  # samples that look alike and are no duplicates, beyond which no more of them are indexed
_EDGES = ".,;:!?\"'()[]"


def shingles(text: str) -> Shingles:
    """Return the pairs of neighboring words; signs such as minus and percent belong to their word."""
    tokens = [token.strip(_EDGES) or token for token in normalize(text).split()]
    size = min(_SHINGLE_WORDS, len(tokens))
    return frozenset(tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)) if tokens else frozenset()


def prompt_key(sample: Sample) -> str:
    """Return a digest of everything before the last answer, normalized."""
    return digest([(message.role, normalize(message.content)) for message in sample.messages[:-1]])


def hashed(text: str) -> Hashes:
    """Return the CRC-32 of a text's shingles: a tenth of their memory; two in 4 thousand million are taken for one."""
    pairs = [zlib.crc32(" ".join(pair).encode("utf-8", "surrogatepass")) for pair in shingles(text)]
    return np.unique(np.array(pairs, dtype=np.uint32))


_hashed_context = lru_cache(maxsize=10_000)(hashed)  # a passage is shown by many samples


def _alike(first: Hashes, second: Hashes) -> float:
    """Return the Jaccard similarity of two texts from the hashes of their shingles."""
    shared = np.intersect1d(first, second, assume_unique=True).size
    union = first.size + second.size - shared
    return float(shared / union) if union else 1.0


class _Parts(NamedTuple):
    """What must be alike, part by part: the answer alone, question and answer together, and the context."""

    answer: Hashes
    exchange: Hashes
    context: Hashes


def _parts(sample: Sample) -> _Parts:
    context, question = split_prompt(sample.question)
    earlier = [message.content for message in sample.messages[:-2] if message.role != "system"]
    return _Parts(
        hashed(sample.answer),
        hashed(f"{question}\n{sample.answer}"),
        _hashed_context("\n".join([*earlier, context])),
    )


class _Bands:
    """MinHash signatures cut into bands (Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, chapter 3).

    Of datasketch comes the best number of bands for a threshold; its index would take ten times the memory.
    """

    def __init__(self, threshold: float) -> None:
        best = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
        self._shape = (best.b, best.r)
        draw = np.random.default_rng(1)
        # Multiply-shift hashing: the upper half of odd * value + offset.
        self._factors = draw.integers(1, 2**63, (best.b * best.r, 1), dtype=np.uint64) | np.uint64(1)
        self._offsets = draw.integers(0, 2**63, (best.b * best.r, 1), dtype=np.uint64)
        self._mixing = draw.integers(1, 2**63, self._shape, dtype=np.uint64) | np.uint64(1)
        self._buckets: dict[int, list[int]] = {}

    def keys(self, values: Hashes, group: str) -> list[int]:
        """Return the buckets of a set of hashes, one per band; those of two groups differ."""
        if not values.size:
            return [zlib.crc32(group.encode("utf-8", "surrogatepass"))]
        signature = ((self._factors * values.astype(np.uint64) + self._offsets) >> np.uint64(32)).min(axis=1)
        start = np.uint64(zlib.crc32(group.encode("utf-8", "surrogatepass")))
        bands = (signature.reshape(self._shape) + start) * self._mixing
        return [int(key) for key in np.bitwise_xor.reduce(bands ^ (bands >> np.uint64(29)), axis=1)]

    def query(self, keys: list[int]) -> list[int]:
        """Return the numbers that share a bucket, in order."""
        return sorted({number for key in keys for number in self._buckets.get(key, ())})

    def insert(self, number: int, keys: list[int]) -> None:
        """Put a number into its buckets."""
        for key in keys:
            self._buckets.setdefault(key, []).append(number)


class Duplicates:
    """The samples seen so far, and whether another one repeats them; the first of its kind is kept.

    Two samples are near duplicates when they share the system turn, and each part reaches the threshold: the
    answer alone ("12 %" and "15 %" differ, however long their question), question and answer together, and
    the context (the same question with a passage, another passage, or none trains something else, and so does
    not count as repeated).

    The cost grows linearly: of many samples that look alike but are no duplicates (one question with hundreds
    of answers), only the first 200 are compared with those that follow.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._exact: dict[bytes, str] = {}
        self._seen: list[tuple[str, _Parts]] = []

    @cached_property
    def _index(self) -> _Bands:
        return _Bands(self._threshold * _CANDIDATES)

    def find(self, sample: Sample) -> tuple[str, str] | None:
        """Return (reason, identifier of the kept sample) for a repetition; else remember the sample.

        Args:
            sample: the next sample, in the order that decides which one is first.
        """
        key = bytes.fromhex(prompt_key(sample) + digest(normalize(sample.answer)))
        if key in self._exact:
            return "exact duplicate", self._exact[key]
        parts = _parts(sample)
        first = sample.messages[0]
        keys = self._index.keys(parts.exchange, normalize(first.content) if first.role == "system" else "")
        candidates = self._index.query(keys)
        for number in candidates:
            identity, other = self._seen[number]
            if all(_alike(mine, its) >= self._threshold for mine, its in zip(parts, other, strict=True)):
                return "near duplicate", identity
        self._exact[key] = sample.id
        if len(candidates) < _CROWD:
            self._index.insert(len(self._seen), keys)
            self._seen.append((sample.id, parts))
        return None


def answered_prompts(samples: Iterable[Sample], recipe: Recipe) -> set[str]:
    """Return the keys of the prompts that some sample answers: refusing the same prompt contradicts it."""
    return {prompt_key(sample) for sample in samples if not is_refusal(sample, recipe)}
