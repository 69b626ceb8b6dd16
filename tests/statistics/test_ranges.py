"""Intervals of shares and of differences of scores never leave their range, and hold their coverage."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interval_coverage import DIFFERENCES, RESULTS, SHARES, coverage

from tunewright.statistics.intervals import difference_interval, mean_interval, paired

SCORES = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
PAIRS = st.lists(st.tuples(SCORES, SCORES, st.integers(0, 8)), min_size=1, max_size=60)


@given(PAIRS, st.sampled_from([0.8, 0.95, 0.99]))
def test_no_interval_leaves_its_range(rows: list[tuple[float, float, int]], level: float) -> None:
    clusters = [cluster for *_, cluster in rows]
    share = mean_interval([first for first, *_ in rows], clusters, level)
    assert 0 <= share.low <= share.mean + 1e-12
    assert share.mean - 1e-12 <= share.high <= 1
    change = difference_interval([first - second for first, second, _ in rows], clusters, level)
    assert -1 <= change.low <= change.mean + 1e-12
    assert change.mean - 1e-12 <= change.high <= 1


def test_a_difference_of_one_on_every_question_stays_below_one() -> None:
    interval = difference_interval([1.0] * 30, range(30))
    assert (interval.mean, interval.high) == (1.0, 1.0)
    assert 0.7 < interval.low < 0.95


def test_in_the_middle_a_difference_has_the_t_interval() -> None:
    draws = np.random.default_rng(0).uniform(-0.6, 0.8, 30).tolist()
    clusters = [index // 3 for index in range(30)]
    assert difference_interval(draws, clusters) == paired(draws, clusters)


@pytest.mark.parametrize("truth", [(0.02,), (0.5,), (0.98, 0.02)])
def test_coverage_is_not_too_low(truth: tuple[float, ...]) -> None:
    row = coverage(truth, (10, 3, 0.3), 400, seed=1)
    assert row["left_the_range"] == 0
    assert row["coverage_percent"] >= 95 - 3 * 1.1  # three standard errors of 400 runs


def test_the_record_holds_every_case_and_none_is_far_too_low() -> None:
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    truths = {tuple(row["true_shares"]) for row in record["rows"]}
    assert truths == {*((share,) for share in SHARES), *DIFFERENCES}
    assert record["runs_of_each"] >= 2000
    assert all(row["left_the_range"] == 0 for row in record["rows"])
    assert record["lowest_percent"] >= 92
    assert all(row["coverage_percent"] >= 93 for row in record["rows"] if len(row["true_shares"]) == 1)
