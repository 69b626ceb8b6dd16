"""The index: texts ranked for a query by words, by meaning and by the titles that it names, fused by rank."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from tunewright.retrieval.sentence_model import SentenceModel
from tunewright.text.normalization import normalize

Ranked = list[tuple[int, float]]  # (index, score) of texts, best first

_FUSION = 60  # k of reciprocal rank fusion, as in Cormack, Clarke & Buettcher 2009
_DEPTH = 100  # texts of each ranking that are fused
_SHORTEST_TITLE = 12  # characters: "Results" in a question names no document


class Index:
    """An index of texts.

    Args:
        texts: what is searched.
        model: gives the vectors of texts and queries; None ranks by words (and titles) alone.
        titles: the title of each text's document, empty where it has none; a query that quotes one also ranks that
            document's texts, and the title's words do not hide the query's own.
    """

    def __init__(self, texts: Sequence[str], model: SentenceModel | None = None, titles: Sequence[str] = ()) -> None:
        self._rank_words = word_ranker(texts)
        self._model, self._num = model, len(texts)
        self._vectors = model.passages(texts) if model and texts else None
        self._by_title: dict[str, list[int]] = {}
        for number, title in enumerate(titles):
            if len(title) >= _SHORTEST_TITLE:
                self._by_title.setdefault(normalize(title), []).append(number)

    def search(self, query: str, number: int, hidden: frozenset[int] = frozenset()) -> Ranked:
        """Return up to ``number`` texts and their scores, best first; ``hidden`` are left out.

        The score is the sum of 1 / (60 + rank) over the rankings that hold the text (reciprocal rank fusion, Cormack,
        Clarke & Buettcher 2009); with words alone it is BM25's, and only texts that share a word are returned.
        """
        named, bare = self._named_titles(query)
        depth = min(self._num, max(_DEPTH, number) + len(hidden))
        by_words = [(i, s) for i, s in self._rank_words(bare, depth) if s > 0 and i not in hidden]
        if self._vectors is None and not named:
            return by_words[:number]
        rankings = [[index for index, _ in by_words]]
        if self._vectors is not None and self._model is not None:
            similarity = self._vectors @ self._model.queries([bare])[0]
            best = np.argpartition(-similarity, depth - 1)[:depth]
            ordered = best[np.argsort(-similarity[best], kind="stable")]
            rankings.append([int(index) for index in ordered if int(index) not in hidden])
        fused = fuse(rankings)
        if named:
            rank_of = {index: rank for rank, (index, _) in enumerate(fused)}
            texts = [i for title in named for i in self._by_title[title] if i not in hidden]
            rankings.append(sorted(texts, key=lambda index: rank_of.get(index, len(rank_of))))
            fused = fuse(rankings)
        return fused[:number]

    def _named_titles(self, query: str) -> tuple[list[str], str]:
        """Return the titles that the query names, and the query without them."""
        plain = normalize(query)
        named = [title for title in self._by_title if title in plain]
        bare = query
        for title in named:
            bare = re.sub(re.escape(title).replace(r"\ ", r"\s+"), " ", bare, flags=re.IGNORECASE)
        return named, bare if bare.strip() else query


def fuse(rankings: Sequence[Sequence[int]]) -> Ranked:
    """Return the texts of all rankings with their summed reciprocal ranks, best first; ties by index."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, index in enumerate(ranking, 1):
            scores[index] = scores.get(index, 0.0) + 1 / (_FUSION + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def word_ranker(texts: Sequence[str]) -> Callable[[str, int], Ranked]:
    """Return a function from (query, number) to the best texts by BM25 (Robertson & Zaragoza 2009; bm25s, Lù 2024)."""
    import bm25s

    if not texts:
        return lambda query, number: []
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(texts), stopwords="en", show_progress=False), show_progress=False)

    def rank(query: str, number: int) -> Ranked:
        tokens = bm25s.tokenize(query, stopwords="en", show_progress=False)
        indices, scores = index.retrieve(tokens, k=min(number, len(texts)), show_progress=False)
        return [(int(i), float(score)) for i, score in zip(indices[0], scores[0], strict=True)]

    return rank
