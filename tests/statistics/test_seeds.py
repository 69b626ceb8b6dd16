"""Intervals over questions and training seeds: coverage where the truth is known, and the limits of either alone."""

import math

import numpy as np
import pytest

from tunewright.statistics.intervals import difference_interval
from tunewright.statistics.seeds import difference_over_seeds


def drawn(rng, num_seeds, num_documents, per_document, seed_sd, truth=0.1):
    """Differences of known mean: an effect of the seed, of the document, of the question, and of both together."""
    seeds, documents = rng.normal(0, seed_sd, num_seeds), rng.normal(0, 0.1, num_documents)
    questions = rng.normal(0, 0.15, (num_documents, per_document))
    both = rng.normal(0, 0.05, (num_seeds, num_documents, per_document))
    values = truth + seeds[:, None, None] + documents[None, :, None] + questions[None] + both
    clusters = [number for number in range(num_documents) for _ in range(per_document)]
    return np.clip(values, -1, 1).reshape(num_seeds, -1).tolist(), clusters


@pytest.mark.parametrize("seed_sd", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_the_interval_covers_the_truth_where_seeds_and_questions_are_drawn(num_seeds, seed_sd):
    rng, runs, covered, alone = np.random.default_rng(7), 400, 0, 0
    for _ in range(runs):
        rows, clusters = drawn(rng, num_seeds, 20, 4, seed_sd)
        interval, _ = difference_over_seeds(rows, clusters)
        covered += interval.low <= 0.1 <= interval.high
        first = difference_interval(rows[0], clusters)
        alone += first.low <= 0.1 <= first.high
    assert covered / runs >= 0.93  # 0.95 less two standard errors of 400 runs
    if seed_sd == 0.1:
        assert alone / runs < 0.6  # what one training and its exam claim, of other trainings


def test_equal_trainings_have_the_interval_of_one():
    rows, clusters = drawn(np.random.default_rng(1), 1, 12, 3, 0.0)
    interval, spread = difference_over_seeds([rows[0]] * 3, clusters)
    alone = difference_interval(rows[0], clusters)
    assert (interval.low, interval.high) == pytest.approx((alone.low, alone.high))
    assert spread.seed_error == 0 and spread.means == pytest.approx([alone.mean] * 3)


def test_the_parts_of_the_error_are_those_of_the_formula():
    rows = [[0.1, 0.3, 0.2, 0.4], [0.3, 0.5, 0.4, 0.6]]
    interval, spread = difference_over_seeds(rows, "abcd")
    assert interval.mean == pytest.approx(0.35) and spread.means == pytest.approx((0.25, 0.45))
    assert spread.seed_error == pytest.approx(math.sqrt(0.02 / 2))
    assert spread.exam_error == pytest.approx(np.std([0.2, 0.4, 0.3, 0.5], ddof=1) / 2)


def test_no_interval_leaves_its_range_and_one_document_says_nothing():
    interval, _ = difference_over_seeds([[1.0, 1.0, 0.9], [0.2, 0.1, 0.3]], "abc")
    assert -1 <= interval.low <= interval.mean <= interval.high <= 1
    interval, _ = difference_over_seeds([[0.5, 0.4], [0.3, 0.6]], "aa")
    assert (interval.low, interval.high) == (-1, 1)


def test_the_p_value_belongs_to_the_interval():
    rows, clusters = drawn(np.random.default_rng(3), 3, 15, 3, 0.05)
    interval, _ = difference_over_seeds(rows, clusters)
    at_p, _ = difference_over_seeds(rows, clusters, 1 - interval.p)
    assert min(abs(at_p.low), abs(at_p.high)) == pytest.approx(0, abs=1e-6)
