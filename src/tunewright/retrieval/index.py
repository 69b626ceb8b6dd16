"""The index: texts scored for a query by words, by meaning and by the titles that it names."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tunewright.retrieval.sentence_model import Vectors
from tunewright.text.normalization import find_quote, normalize, words

Ranked = list[tuple[int, float]]  # (index, score) of texts, best first
Scores = NDArray[np.float32]  # (texts,)

_WORDS = 0.75  # weight of words, the rest is meaning's: chosen on half of benchmarks/retrieval.py, flat from 0.7 to 0.8
_RERANKED = 20  # best texts that a reranker reads
_SHORTEST_TITLE = 12  # characters: "Results" in a question names no document


class Embeds(Protocol):
    """What gives vectors, shape (texts, dimensions), each row of length 1: a sentence model, or its stored vectors."""

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts to be found."""

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of questions."""


class Reranks(Protocol):
    """What scores texts for a query, by reading both together."""

    def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return the score of each text."""


class Index:
    """An index of texts.

    Args:
        texts: what is searched.
        model: gives the vectors of texts and queries; None scores by words (and titles) alone.
        titles: the title of each text's document, empty where it has none. A query that names one, in full or in
            quotation marks by its first words, prefers that document's texts; the title's words are then no part of
            the query, which would drown its own.
        reranker: reorders the first 20 texts.
    """

    def __init__(
        self,
        texts: Sequence[str],
        model: Embeds | None = None,
        titles: Sequence[str] = (),
        reranker: Reranks | None = None,
    ) -> None:
        self._texts, self._words, self._model, self._reranker = texts, WordIndex(texts), model, reranker
        self._vectors = model.passages(texts) if model and texts else None
        self._by_title: dict[str, list[int]] = {}
        for number, title in enumerate(titles):
            name = normalize(title).rstrip(" .")
            if len(name) >= _SHORTEST_TITLE:
                self._by_title.setdefault(name, []).append(number)

    def search(self, query: str, number: int, hidden: frozenset[int] = frozenset()) -> Ranked:
        """Return up to ``number`` texts and their scores, best first; ``hidden`` are left out, and scores of 0.

        The score is a weighted sum, 0.75 and 0.25, of the share of the query's words that the text holds (BM25 over
        the most that any text could score) and of the cosine of the vectors, scaled to 0 for the farthest and 1 for
        the nearest text. So a query without common words is decided by meaning. Ranks alone, as in reciprocal rank
        fusion, would let the best of bad matches by words weigh as much as a good one (Bruch, Gai & Ingber 2023, "An
        Analysis of Fusion Functions for Hybrid Retrieval"). A named title adds 0.25, as much as the nearest vector.
        A reranker changes the order alone.
        """
        named, bare = self._named_titles(query)
        scores = _WORDS * self._words.scores(bare)
        shown = np.ones(len(scores), dtype=bool)
        shown[list(hidden)] = False
        if self._vectors is not None and self._model is not None and shown.any():
            cosines = self._vectors @ self._model.queries([bare])[0]
            low, high = cosines[shown].min(), cosines[shown].max()
            scores += (1 - _WORDS) * (cosines - low) / max(high - low, 1e-6)
        for title in named:
            scores[self._by_title[title]] += 1 - _WORDS
        scores[~shown] = 0
        if self._reranker is None:
            return _best(scores, number)
        ranked = _best(scores, max(number, _RERANKED))
        first, rest = ranked[:_RERANKED], ranked[_RERANKED:]
        by_reader = self._reranker.scores(query, [self._texts[index] for index, _ in first])
        order = sorted(range(len(first)), key=lambda rank: -by_reader[rank])
        return [*(first[rank] for rank in order), *rest][:number]

    def _named_titles(self, query: str) -> tuple[list[str], str]:
        """Return the titles that the query names, and the query without them."""
        plain, bare = normalize(query), query
        quotes = list(_quotes(plain))
        named: dict[str, str] = {}  # by title: as the query writes it
        for title in self._by_title:
            if title in plain:
                named[title] = title
            elif quotes and (quote := next((q for q in quotes if _starts(title, q)), "")):
                named[title] = quote
        for name in sorted(set(named.values()), key=lambda name: (-len(name), name)):
            match = find_quote(name, bare, 100)
            if match is not None:
                bare = f"{bare[: match[0]]} {bare[match[1] :]}"
        return list(named), bare if any(letter.isalnum() for letter in bare) else query


class WordIndex:
    """BM25 over texts (Robertson & Zaragoza 2009; bm25s, Lù 2024)."""

    def __init__(self, texts: Sequence[str]) -> None:
        bm25s = _bm25s()
        self._num, tokens = len(texts), [_tokens(text) for text in texts]
        self._bm25 = bm25s.BM25() if any(tokens) else None  # bm25s refuses texts without any word
        if self._bm25 is not None:
            self._bm25.index(tokens, show_progress=False)

    def scores(self, query: str) -> Scores:
        """Return each text's BM25 score over the most that a text could score: 0 for no common word, always below 1.

        Words that no text holds count in that most: a query that is mostly foreign to the texts scores low everywhere.
        """
        total, most = self._sums(query)
        return total / np.float32(most or 1)

    def rank(self, query: str, number: int) -> Ranked:
        """Return the best texts that share a word with the query, with their BM25 scores."""
        return _best(self._sums(query)[0], number)

    def _sums(self, query: str) -> tuple[Scores, float]:
        """Return each text's BM25 score, and the sum of the inverse document frequencies of the query's words."""
        total, most = np.zeros(self._num, dtype=np.float32), 0.0
        if self._bm25 is None:
            return total, most
        starts = self._bm25.scores["indptr"]
        ids = [self._bm25.vocab_dict.get(token) for token in dict.fromkeys(_tokens(query))]
        known = [token for token in ids if token is not None]
        if known:
            total += self._bm25.get_scores_from_ids(known)
        for token in ids:
            holding = 0 if token is None else int(starts[token + 1] - starts[token])
            most += float(np.log1p((self._num - holding + 0.5) / (holding + 0.5)))
        return total, most


@cache
def _bm25s() -> ModuleType:
    """Return bm25s, imported without jax, which would reserve most of a GPU's memory (75 % by default) for its sake."""
    jax = {name: module for name, module in sys.modules.items() if name == "jax"}
    sys.modules["jax"] = None  # type: ignore[assignment]  # "import jax" fails, and bm25s computes with numpy
    try:
        import bm25s
        import bm25s.stopwords
    finally:
        del sys.modules["jax"]
        sys.modules.update(jax)
    return bm25s  # type: ignore[no-any-return]


def _tokens(text: str) -> list[str]:
    """Return the words of a text, of any script, without the most common English ones."""
    common = _bm25s().stopwords.STOPWORDS_EN
    return [word for word in words(text) if word not in common]


def _best(scores: Scores, number: int) -> Ranked:
    """Return the highest scores above 0 with their indices; ties by index."""
    number = min(number, len(scores))
    chosen = np.flatnonzero(scores > 0)
    if number < len(chosen):
        least = np.partition(scores, len(scores) - number)[len(scores) - number]
        chosen = np.flatnonzero((scores > 0) & (scores >= least))
    ordered = chosen[np.argsort(-scores[chosen], kind="stable")][:number]
    return [(int(index), float(scores[index])) for index in ordered]


def _quotes(plain: str) -> Iterator[str]:
    """Yield what stands between two quotation marks next to each other, and between each and the last one."""
    marks = [at for at, letter in enumerate(plain) if letter in "\"'«»„“”"]
    for first, second in {*zip(marks, marks[1:], strict=False), *((mark, marks[-1]) for mark in marks[:-1])}:
        quote = plain[first + 1 : second].strip(" .,;:!?")
        if len(quote) >= _SHORTEST_TITLE:
            yield quote


def _starts(title: str, quote: str) -> bool:
    """Return whether a title begins with the words of a quote."""
    return title.startswith(quote) and not title[len(quote) : len(quote) + 1].isalnum()
