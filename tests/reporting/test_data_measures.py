from __future__ import annotations

import gzip
import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from tunewright.reporting import data_statistics as dm
from tunewright.text.normalization import jaccard, shingles

WORDS = st.lists(st.sampled_from("abcdef"), max_size=7)


def test_compression_is_raw_bytes_over_gzip_bytes() -> None:
    texts = ["the same words again"] * 50
    raw = "\n".join(texts).encode()
    assert dm.compression_ratio(texts) == len(raw) / len(gzip.compress(raw, 9, mtime=0))
    assert dm.compression_ratio(texts) > dm.compression_ratio([f"{n * 7919:x} other {n**5:x}" for n in range(50)])
    assert dm.compression_ratio([]) is None
    assert dm.compression_ratio(["\ud800 a lone surrogate"]) is not None


def test_distinct_by_hand() -> None:
    texts = [["a", "b", "a", "b"], ["a", "b"], ["c"]]
    assert dm.distinct(texts, 1) == 3 / 7
    assert dm.distinct(texts, 2) == 2 / 4  # ab ba ab | ab
    assert dm.distinct(texts, 3) == 1.0  # aba bab
    assert dm.distinct([["a"]], 2) is None


def test_self_repetition_by_hand() -> None:
    texts = [["a", "b", "c", "d", "e"], ["x", "a", "b", "c", "d"], ["p", "q", "r", "s"], ["p", "p", "p", "p", "p"]]
    assert dm.self_repetition(texts) == 2 / 7  # abcd in two of them; pppp twice in one text alone
    assert dm.self_repetition([["a"]]) is None


def test_vendi_counts_what_differs() -> None:
    assert dm.vendi([["a", "b"]] * 5) == pytest.approx(1)
    assert dm.vendi([["a"], ["b"], ["c"], ["d"]]) == pytest.approx(4)
    assert dm.vendi([["a"], ["a"], ["b"], ["b"]]) == pytest.approx(2)
    assert dm.vendi([["a"], []]) == pytest.approx(2)
    assert dm.vendi([]) is None
    # Cosine c = x^2 / (x^2 + y^2) of {a, b} and {a, c}; the eigenvalues of K/2 are (1 + c)/2 and (1 - c)/2.
    x, y = 1.0, math.log(3 / 2) + 1
    c = x * x / (x * x + y * y)
    assert dm.vendi([["a", "b"], ["a", "c"]]) == pytest.approx(math.exp(entropy([(1 + c) / 2, (1 - c) / 2])))


@given(st.lists(WORDS, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_vendi_against_numpy(texts: list[list[str]]) -> None:
    vocabulary = sorted({w for t in texts for w in (t or [""])})
    tf = numpy.array([[(t or [""]).count(w) for w in vocabulary] for t in texts], dtype=float)
    idf = numpy.log((1 + len(texts)) / (1 + (tf > 0).sum(axis=0))) + 1
    x = tf * idf
    x /= numpy.linalg.norm(x, axis=1, keepdims=True)
    oracle = numpy.exp(entropy(numpy.linalg.svd(x / math.sqrt(len(texts)), compute_uv=False) ** 2))
    assert dm.vendi(texts) == pytest.approx(oracle)
    assert 1 - 1e-9 <= oracle <= len(texts) + 1e-9


@given(st.lists(st.tuples(st.sampled_from("gh"), WORDS, WORDS), max_size=25), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
@settings(max_examples=200, deadline=None)
def test_leaders_against_every_pair(raw: list[tuple[str, list[str], list[str]]], threshold: float) -> None:
    items = [(g, shingles(a, 2), shingles(b, 2)) for g, a, b in raw]
    slow: list[int] = []
    for n, (g, a, b) in enumerate(items):
        first = (
            m
            for m in range(n)
            if slow[m] == m
            and items[m][0] == g
            and jaccard(items[m][1], a) >= threshold
            and jaccard(items[m][2], b) >= threshold
        )
        slow.append(next(first, n))
    assert dm.leaders(items, threshold) == slow
    if items:
        assert dm.duplication(items, threshold) == 1 - len({n for n in slow}) / len(items)


def test_draw_is_seeded_and_keeps_the_order() -> None:
    items = list(range(1000))
    assert dm.draw(items, 10, 3) == dm.draw(items, 10, 3) == sorted(dm.draw(items, 10, 3))
    assert dm.draw(items, 10, 3) != dm.draw(items, 10, 4)
    assert dm.draw(items, 1000, 3) == items
    result = dm.diversity([f"text {n} of many" for n in range(12_000)])
    assert (result.num_texts, result.num_vendi) == (10_000, 500)
