"""Fieller's interval of a ratio: its formula, its coverage over clusters, and where there is none."""

import numpy as np
import pytest

from tunewright.statistics.intervals import paired
from tunewright.statistics.ratios import ratio_of_means


def test_the_bounds_are_the_ratios_at_which_the_paired_difference_touches_zero():
    random = np.random.default_rng(0)
    below, clusters = random.random(60) + 0.2, [n // 4 for n in range(60)]
    above = 0.5 * below + random.normal(0, 0.3, 60)
    ratio = ratio_of_means(list(above), list(below), clusters)
    assert ratio.low < ratio.value < ratio.high
    assert paired(list(above - ratio.low * below), clusters).low == pytest.approx(0, abs=1e-9)
    assert paired(list(above - ratio.high * below), clusters).high == pytest.approx(0, abs=1e-9)


def test_the_interval_holds_its_coverage_where_questions_of_a_document_go_together():
    random, hits = np.random.default_rng(1), 0
    for _ in range(400):
        documents = random.normal(0, 0.2, (25, 1))
        below = (random.random((25, 6)) < 0.6 + documents).astype(float)
        above = below * (random.random((25, 6)) < 0.5 + documents)
        ratio = ratio_of_means(list(above.ravel()), list(below.ravel()), [n // 6 for n in range(150)])
        # The truth by the model: E[below * p] / E[below], with p and below both moved by the document.
        hits += ratio.low <= _TRUTH <= ratio.high
    assert 0.92 <= hits / 400 <= 0.98


def _truth():
    moved = np.random.default_rng(2).normal(0, 0.2, 2_000_000)
    below, given = np.clip(0.6 + moved, 0, 1), np.clip(0.5 + moved, 0, 1)
    return float((below * given).mean() / below.mean())


_TRUTH = _truth()


@pytest.mark.parametrize("below", [[0.0] * 8, [1.0, -1.0, 0.5, 0.0, 0.2, -0.6, 0.1, 0.0]])
def test_where_the_denominator_may_be_zero_there_is_no_ratio(below):
    ratio = ratio_of_means([0.5] * 8, below, list(range(8)))
    assert (ratio.value, ratio.low, ratio.high) == (None, None, None)


def test_a_single_document_says_nothing():
    assert ratio_of_means([0.5, 1.0], [1.0, 1.0], ["a", "a"]).value is None
