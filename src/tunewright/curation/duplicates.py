"""Exact and near duplicates among samples: MinHash LSH finds candidates, true Jaccard similarity decides."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

from datasketch import MinHash, MinHashLSH

from tunewright.curation.rules import is_refusal, split_prompt
from tunewright.recipe import Recipe
from tunewright.records import Sample, digest
from tunewright.text import normalize

Shingles = frozenset[tuple[str, ...]]

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


def jaccard(first: Shingles, second: Shingles) -> float:
    """Return the shared part of two sets, in [0, 1]; two empty sets are the same."""
    union = len(first | second)
    return len(first & second) / union if union else 1.0


def prompt_key(sample: Sample) -> str:
    """Return a digest of everything before the last answer, normalized."""
    return digest([(message.role, normalize(message.content)) for message in sample.messages[:-1]])


class _Parts(NamedTuple):
    """What must be alike, part by part: the answer alone, question and answer together, and the context."""

    answer: Shingles
    exchange: Shingles
    context: Shingles


def _parts(sample: Sample) -> _Parts:
    context, question = split_prompt(sample.question)
    earlier = [message.content for message in sample.messages[:-2] if message.role != "system"]
    return _Parts(
        shingles(sample.answer),
        shingles(f"{question}\n{sample.answer}"),
        shingles("\n".join([*earlier, context])),
    )


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
        self._exact: dict[str, str] = {}
        self._systems: dict[str, MinHashLSH] = {}
        self._seen: list[tuple[str, _Parts]] = []
        self._empty = MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=zlib.crc32)

    def find(self, sample: Sample) -> tuple[str, str] | None:
        """Return (reason, identifier of the kept sample) for a repetition; else remember the sample.

        Args:
            sample: the next sample, in the order that decides which one is first.
        """
        key = prompt_key(sample) + digest(normalize(sample.answer))
        if key in self._exact:
            return "exact duplicate", self._exact[key]
        parts = _parts(sample)
        signature = self._empty.copy()
        signature.update_batch([" ".join(shingle).encode("utf-8", "surrogatepass") for shingle in parts.exchange])
        index = self._index(sample)
        candidates = sorted(index.query(signature))
        for number in candidates:
            identity, other = self._seen[number]
            if all(jaccard(mine, its) >= self._threshold for mine, its in zip(parts, other, strict=True)):
                return "near duplicate", identity
        self._exact[key] = sample.id
        if len(candidates) < _CROWD:
            index.insert(len(self._seen), signature, check_duplication=False)
            self._seen.append((sample.id, parts))
        return None

    def _index(self, sample: Sample) -> MinHashLSH:
        """Return the index of the samples with the same system turn."""
        first = sample.messages[0]
        key = normalize(first.content) if first.role == "system" else ""
        if key not in self._systems:
            self._systems[key] = MinHashLSH(threshold=self._threshold * _CANDIDATES, num_perm=_PERMUTATIONS)
        return self._systems[key]


def answered_prompts(samples: Iterable[Sample], recipe: Recipe) -> set[str]:
    """Return the keys of the prompts that some sample answers: refusing the same prompt contradicts it."""
    return {prompt_key(sample) for sample in samples if not is_refusal(sample, recipe)}
