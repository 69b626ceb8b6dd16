"""Duplicate samples: exact, near (MinHash), and alike in meaning by vectors from the student's token vectors."""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from datasketch import MinHashLSH

from tunewright.curation.boilerplate import NO_BOILERPLATE, Boilerplate
from tunewright.curation.sample_rules import teaches_refusal
from tunewright.curation.text_vectors import near_pairs, sif_vectors
from tunewright.curation.workers import in_order
from tunewright.models.tensors import TokenVectors
from tunewright.records import Sample, digest
from tunewright.text.normalization import normalize, words
from tunewright.text.prompts import split_prompt

Hashes = np.ndarray[Any, np.dtype[np.uint32]]  # of a text's shingles, sorted, each once

_PERMUTATIONS = 128
_CANDIDATES = 0.9  # of the threshold: an extra candidate costs a comparison, a missing one is a missed duplicate
_CROWD = 200  # most similar samples, not duplicates, that are indexed
_EDGES = b".,;:!?\"'()[]"


def signed_words(text: str) -> list[bytes]:
    """Return the normalized words in UTF-8, each with its signs, such as minus and percent."""
    tokens = normalize(text).encode("utf-8", "surrogatepass").split()
    return [token.strip(_EDGES) or token for token in tokens]


def prompt_key(sample: Sample) -> str:
    """Return a digest of everything before the last answer, normalized."""
    return digest([(message.role, normalize(message.content)) for message in sample.messages[:-1]])


def hashed(tokens: Sequence[bytes]) -> Hashes:
    """Return the CRC-32 of each word with the next, or of a single word: two collide with chance 2**-32."""
    if len(tokens) < 2:
        return np.array([zlib.crc32(token) for token in tokens], dtype=np.uint32)
    starts = [zlib.crc32(token + b" ") for token in tokens]
    return np.array(sorted(set(map(zlib.crc32, tokens[1:], starts))), dtype=np.uint32)


@lru_cache(maxsize=10_000)  # a passage is shown by many samples
def _hashed_text(text: str) -> bytes:
    return hashed(signed_words(text)).tobytes()


def _alike(first: frozenset[int], second: Sequence[int]) -> float:
    """Return the Jaccard similarity of two texts from the hashes of their shingles, each once."""
    shared = len(first.intersection(second))
    union = len(first) + len(second) - shared
    return shared / union if union else 1.0


class _Parts(NamedTuple):
    """The hashes of the parts that are compared: the answer, question and answer together, and the context.

    Of a prompt with boilerplate, these are of its distinctive text, which is also compared alone, as is the
    boilerplate.
    """

    answer: bytes
    exchange: bytes
    context: bytes
    boilerplate: bytes
    distinctive: bytes


class Traits(NamedTuple):
    """What is compared of a sample; it does not depend on other samples.

    Attributes:
        sample: its identifier.
        exact: both halves of the key of an exact repetition.
        buckets: in which near duplicates are.
        parts: that decide.
    """

    sample: str
    exact: tuple[int, int]
    buckets: list[int]
    parts: _Parts


_SHARED = ("context", "boilerplate")


def _parts(sample: Sample, boilerplate: Boilerplate) -> _Parts:
    distinctive, shared = boilerplate.split(sample.question)
    context, question = split_prompt(distinctive)
    earlier = [message.content for message in sample.messages[:-2] if message.role != "system"]
    answer = signed_words(sample.answer)
    return _Parts(
        hashed(answer).tobytes(),
        hashed(signed_words(question) + answer).tobytes(),
        _hashed_text("\n".join([*earlier, context])),
        _hashed_text(shared),
        hashed(signed_words(distinctive) if shared else []).tobytes(),
    )


class _Buckets:
    """Numbers by their 64-bit keys, chained in arrays: 20 bytes for each, where a dictionary of lists takes 200."""

    def __init__(self) -> None:
        self._keys, self._numbers, self._next = array("Q"), array("I"), array("i")
        self._heads = array("i", [-1]) * (1 << 10)

    def numbers(self, keys: Iterable[int]) -> list[int]:
        """Return the numbers that were added with any of these keys, in order."""
        heads, following, own = self._heads, self._next, self._keys
        last, chosen = len(heads) - 1, set[int]()
        for key in keys:
            entry = heads[key & last]
            while entry >= 0:
                if own[entry] == key:
                    chosen.add(self._numbers[entry])
                entry = following[entry]
        return sorted(chosen)

    def add(self, number: int, keys: Sequence[int]) -> None:
        """Put a number into the buckets of these keys."""
        if len(self._keys) + len(keys) > len(self._heads):
            self._grow()
        heads, following, last = self._heads, self._next, len(self._heads) - 1
        for entry, key in enumerate(keys, len(self._keys)):
            slot = key & last
            following.append(heads[slot])
            heads[slot] = entry
        self._keys.extend(keys)
        self._numbers.extend([number] * len(keys))

    def _grow(self) -> None:
        """Double the slots, and chain all entries again: each to the one before it in its slot.

        Part by part of the slots: to sort all entries at once would take as much memory as they do.
        """
        num_slots = 2 * len(self._heads)
        slots = np.frombuffer(self._keys, dtype=np.uint64).astype(np.uint32) & np.uint32(num_slots - 1)
        following = np.full(len(slots), -1, dtype=np.int32)
        heads = np.full(num_slots, -1, dtype=np.int32)
        for start in range(0, num_slots, part := max(num_slots // 16, 1 << 16)):
            order = np.flatnonzero((slots >= start) & (slots < start + part))
            order = order[np.argsort(slots[order], kind="stable")]
            ordered = slots[order]
            is_same = ordered[1:] == ordered[:-1]
            following[order[1:][is_same]] = order[:-1][is_same]
            is_last = np.append(~is_same, True)[: len(order)]
            heads[ordered[is_last]] = order[is_last]
        self._next, self._heads = array("i"), array("i")
        self._next.frombytes(following.data.cast("B"))
        self._heads.frombytes(heads.data.cast("B"))


class _StoredParts:
    """The parts of many samples, their hashes one after another; a context that many samples share is stored once."""

    def __init__(self) -> None:
        self._hashes = array("I")
        self._spans = array("I")  # (start, end) of each part of each sample
        self._shared: dict[bytes, int] = {}  # start by the digest of a context or a boilerplate

    def add(self, parts: _Parts) -> None:
        """Append a sample's parts."""
        for name, raw in zip(_Parts._fields, parts, strict=True):
            if not raw:
                self._spans.extend((0, 0))
                continue
            start = len(self._hashes)
            if name in _SHARED:
                start = self._shared.setdefault(hashlib.blake2b(raw, digest_size=16).digest(), start)
            if start == len(self._hashes):
                self._hashes.frombytes(raw)
            self._spans.extend((start, start + len(raw) // self._hashes.itemsize))

    def parts(self, number: int) -> Iterator[Sequence[int]]:
        """Yield the parts of the n-th sample, in the order of ``_Parts``."""
        width = 2 * len(_Parts._fields)
        for at in range(width * number, width * (number + 1), 2):
            yield self._hashes[self._spans[at] : self._spans[at + 1]]


@lru_cache
def _shape(threshold: float) -> tuple[int, int]:
    """Return the bands and their rows that suit a threshold; datasketch integrates for them, which takes a while."""
    best = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
    return best.b, best.r


class _Bands:
    """MinHash signatures cut into bands (Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, chapter 3).

    datasketch computes the best number of bands for a threshold; its own index would take ten times the memory.
    """

    def __init__(self, threshold: float) -> None:
        self._shape = _shape(threshold)
        num_hashes = math.prod(self._shape)
        draw = np.random.default_rng(1)
        # Multiply-shift hashing: the upper half of odd * value + offset.
        self._factors = draw.integers(1, 2**63, (num_hashes, 1), dtype=np.uint64) | np.uint64(1)
        self._offsets = draw.integers(0, 2**63, (num_hashes, 1), dtype=np.uint64)
        self._mixing = draw.integers(1, 2**63, self._shape, dtype=np.uint64) | np.uint64(1)
        self._buckets = _Buckets()

    def keys(self, values: Hashes, group: str) -> list[int]:
        """Return the buckets of a set of hashes, one per band; those of two groups differ."""
        if not values.size:
            return [zlib.crc32(group.encode("utf-8", "surrogatepass"))]
        signature = ((self._factors * values.astype(np.uint64) + self._offsets) >> np.uint64(32)).min(axis=1)
        start = np.uint64(zlib.crc32(group.encode("utf-8", "surrogatepass")))
        bands = (signature.reshape(self._shape) + start) * self._mixing
        return [int(key) for key in np.bitwise_xor.reduce(bands ^ (bands >> np.uint64(29)), axis=1)]

    def query(self, keys: list[int]) -> list[int]:
        """Return the numbers in any of these buckets, in order."""
        return self._buckets.numbers(keys)

    def insert(self, number: int, keys: list[int]) -> None:
        """Put a number into its buckets."""
        self._buckets.add(number, keys)


class Duplicates:
    """An index of samples that finds duplicates; the first of each kind is kept.

    Two samples are near duplicates when they share the system turn, and each part reaches the threshold: the
    answer alone ("12 %" and "15 %" differ, however long their question), question and answer together, and
    the context (the same question with a passage, another passage, or none trains something else, and so does
    not count as repeated).

    The cost grows linearly: of many samples that look alike but are no duplicates (one question with hundreds
    of answers), only the first 200 are compared with those that follow.
    """

    def __init__(self, threshold: float, boilerplate: Boilerplate = NO_BOILERPLATE) -> None:
        self._threshold = threshold
        self._boilerplate = boilerplate
        self._parts = _StoredParts()
        # Of each kept sample: the identifier, and the second half of its exact key, of which the first is a bucket.
        self._identifiers, self._ends = bytearray(), array("Q", [0])
        self._exact, self._halves = _Buckets(), array("Q")
        self._index = _Bands(threshold * _CANDIDATES)

    def traits(self, sample: Sample) -> Traits:
        """Return what ``find`` compares."""
        parts = _parts(sample, self._boilerplate)
        first = sample.messages[0]
        group = normalize(first.content) if first.role == "system" else ""
        buckets = self._index.keys(np.frombuffer(parts.exchange, dtype=np.uint32), group)
        exact = int(prompt_key(sample), 16), int(digest(normalize(sample.answer)), 16)
        return Traits(sample.id, exact, buckets, parts)

    def find(self, traits: Traits) -> tuple[str, str] | None:
        """Return (reason, identifier of the kept sample) for a repetition; else remember the sample.

        Args:
            traits: of the next sample, in the order that decides which one is first.
        """
        half, other_half = traits.exact
        for number in self._exact.numbers([half]):
            if self._halves[number] == other_half:
                return "exact duplicate", self._identifier(number)
        candidates = self._index.query(traits.buckets)
        own = [frozenset(memoryview(part).cast("I")) for part in traits.parts] if candidates else []
        for number in candidates:
            other = self._parts.parts(number)
            if all(_alike(mine, its) >= self._threshold for mine, its in zip(own, other, strict=True)):
                return "near duplicate", self._identifier(number)
        self._exact.add(len(self._halves), [half])
        if len(candidates) < _CROWD:
            self._index.insert(len(self._halves), traits.buckets)
        self._halves.append(other_half)
        self._identifiers += traits.sample.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._identifiers))
        self._parts.add(traits.parts)
        return None

    def _identifier(self, number: int) -> str:
        return self._identifiers[self._ends[number] : self._ends[number + 1]].decode("utf-8", "surrogatepass")


def contradicted_prompts(samples: Sequence[Sample], refusal: str) -> set[str]:
    """Return the keys of the prompts that one sample refuses and another answers."""
    refused = {prompt_key(sample) for sample in samples if teaches_refusal(sample, refusal)}
    if not refused:
        return set()
    return {
        key for sample in samples if (key := prompt_key(sample)) in refused and not teaches_refusal(sample, refusal)
    }


# Words that change the meaning of a text but hardly its vector.
_TURNING_WORDS = """
no not never none neither nor without cannot against except only all some any most least more less fewer
many few both either increase increased increases increasing decrease decreased decreases decreasing rise rose
fall fell higher lower high low larger smaller longer shorter before after above below over under first last
second third earlier later older younger men women male female boys girls left right north south east west
positive negative better worse gain loss with one two three four five six seven eight nine ten eleven twelve
who when where why
"""
_TURNING = frozenset(_TURNING_WORDS.split())
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_CAPITAL = re.compile(r"\b\w*[A-Z]\w*")


def meaning_tokens(text: str) -> frozenset[str]:
    """Return the tokens that two texts of the same meaning must share: numbers, names, and words such as "not".

    A name is a word with a capital letter that is not the text's first word.
    """
    text = text.strip()
    names = (match.group() for match in _CAPITAL.finditer(text) if match.start() > 0)
    turning = _TURNING & set(words(text.replace("n't", " not")))
    return frozenset({*_NUMBER.findall(text), *map(normalize, names), *turning})


def exchange(sample: Sample, boilerplate: Boilerplate = NO_BOILERPLATE) -> str:
    """Return the question and the answer of a sample."""
    return f"{split_prompt(boilerplate.distinctive(sample.question))[1]}\n{sample.answer}"


def setting(sample: Sample, boilerplate: Boilerplate = NO_BOILERPLATE) -> str:
    """Return a digest of the context of question and answer: system turn, earlier turns, shown passage, boilerplate."""
    distinctive, shared = boilerplate.split(sample.question)
    context = split_prompt(distinctive)[0]
    earlier = [normalize(message.content) for message in sample.messages[:-2]]
    return digest(earlier, normalize(context), normalize(shared))


def embedding_duplicates(
    samples: Sequence[Sample], vectors: TokenVectors, threshold: float, boilerplate: Boilerplate = NO_BOILERPLATE
) -> dict[int, int]:
    """Return the samples that repeat an earlier one in meaning: index of the repetition → index of the kept sample.

    Both have the same context, the cosine of question and answer reaches the threshold, and question and answer share
    all numbers, names and words such as "not": many pairs that are close as vectors differ in these, and so in what
    they teach.
    """
    settings: dict[str, int] = {}
    groups = array("I")

    def parts(index: int) -> tuple[str, str]:
        return setting(samples[index], boilerplate), exchange(samples[index], boilerplate)

    def texts() -> Iterator[str]:
        for context, text in in_order(parts, len(samples)):
            groups.append(settings.setdefault(context, len(settings)))
            yield text

    rows = sif_vectors(texts(), vectors)
    settings.clear()
    repeated: dict[int, int] = {}

    def key_tokens(index: int) -> tuple[frozenset[str], frozenset[str]]:
        question = split_prompt(boilerplate.distinctive(samples[index].question))[1]
        return meaning_tokens(question), meaning_tokens(samples[index].answer)

    for earlier, later in near_pairs(rows, groups, threshold):
        if earlier not in repeated and later not in repeated and key_tokens(earlier) == key_tokens(later):
            repeated[later] = earlier
    return repeated
