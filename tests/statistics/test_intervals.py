import math
from unittest import mock

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from tunewright.statistics.intervals import (
    detectable_after,
    holm,
    mcnemar_exact,
    mean_interval,
    paired,
    questions_needed,
    rank_correlation,
    sign_flip,
    standard_error,
)
from tunewright.statistics.power import detectable

VALUES = st.lists(st.floats(-1, 1, allow_nan=False), min_size=3, max_size=30)


@given(VALUES)
def test_single_question_clusters_give_the_usual_t_test(values: list[float]) -> None:
    assume(np.std(values) > 1e-6)
    ours = paired(values, range(len(values)))
    theirs = scipy.stats.ttest_1samp(values, 0)
    low, high = theirs.confidence_interval()
    assert (ours.mean, ours.low, ours.high, ours.p) == pytest.approx(
        (np.mean(values), low, high, theirs.pvalue), rel=1e-6, abs=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 12), st.integers(0, 30))
def test_clusters_give_statsmodels_cr1_with_its_t(seed: int, num_clusters: int, extra: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = np.concatenate([np.arange(num_clusters), rng.integers(0, num_clusters, extra)])
    values = rng.normal(0.1, 0.3, len(clusters)) + rng.normal(0, 0.3, num_clusters)[clusters]
    fit = sm.OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "df_correction": True}, use_t=True
    )
    ours = paired(values.tolist(), clusters.tolist())
    (low, high) = fit.conf_int()[0]
    assert (ours.mean, ours.low, ours.high, ours.p) == pytest.approx(
        (fit.params[0], low, high, fit.pvalues[0]), rel=1e-6, abs=1e-9
    )
    assert (ours.num, ours.num_clusters) == (len(values), num_clusters)


def test_order_does_not_matter_and_sign_mirrors() -> None:
    values, clusters = [0.1, 0.5, -0.2, 0.4, 0.3], [1, 1, 2, 3, 3]
    forward, back = paired(values, clusters), paired([-v for v in reversed(values)], clusters[::-1])
    assert (forward.low, forward.high, forward.p) == pytest.approx((-back.high, -back.low, back.p))


def test_one_cluster_proves_nothing() -> None:
    only = paired([1.0, 1.0, 1.0], ["d", "d", "d"])
    assert (only.low, only.high, only.p) == (-1.0, 1.0, 1.0)


def test_no_variance_takes_the_rule_of_three() -> None:
    none = paired([0.0] * 30, range(30))
    assert none.high == pytest.approx(0.095, abs=5e-4)  # "0 failures in 30 still allows 9.5%"
    assert none.p == 1
    few, many = paired([0.3] * 5, range(5)), paired([0.3] * 30, range(30))
    assert few.low < 0 < many.low
    assert few.p > 0.05 > many.p


@given(st.floats(-1, 1), st.integers(2, 40))
def test_without_variance_interval_and_p_agree(value: float, num: int) -> None:
    interval = paired([value] * num, range(num))
    assume(abs(interval.p - 0.05) > 1e-6)
    assert (interval.p < 0.05) == (interval.low > 0 or interval.high < 0)


def test_mean_interval_stays_in_range() -> None:
    interval = mean_interval([1.0] * 9 + [0.0], range(10))
    assert interval.mean < interval.high <= 1.0
    assert interval.low < 0.9


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values with 1 clusters"):
        paired([0.1, 0.2], ["a"])
    with pytest.raises(ValueError, match="0 values"):
        paired([], [])


def test_false_positive_rate_is_nominal_where_the_item_t_test_is_not() -> None:
    """30 questions on 10 documents, ICC 0.3, no effect: the field's table says 4.8 % against 13 %."""
    rng = np.random.default_rng(1)
    num, clusters = 3000, np.repeat(np.arange(10), 3)
    draws = math.sqrt(0.3) * rng.normal(size=(num, 10))[:, clusters] + math.sqrt(0.7) * rng.normal(size=(num, 30))
    ours = sum(paired(row.tolist(), clusters.tolist()).p < 0.05 for row in draws) / num
    items = np.mean(scipy.stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert 0.037 < ours < 0.062
    assert items > 0.10


def test_sign_flip_is_exact_for_few_clusters() -> None:
    assert sign_flip([1.0] * 6, range(6)) == pytest.approx(2 / 2**6)
    assert sign_flip([1.0] * 5, range(5)) == pytest.approx(2 / 2**5)  # above .05: five documents cannot reject
    assert sign_flip([0.0, 0.0], [1, 2]) == 1
    # Two questions of one document flip together.
    assert sign_flip([0.5, 0.5], [1, 1]) == 1


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=9))
def test_sign_flip_equals_scipy_wilcoxon_style_enumeration(values: list[int]) -> None:
    signs = np.array(np.meshgrid(*[[1, -1]] * len(values))).reshape(len(values), -1).T
    expected = np.mean(np.abs(signs @ np.array(values)) >= abs(sum(values)))
    assert sign_flip([float(v) for v in values], range(len(values))) == pytest.approx(expected)


def test_sign_flip_draws_for_many_clusters_near_the_exact_value_and_repeatably() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0.4, 1, 17).tolist()
    drawn = sign_flip(values, range(17))
    sums = np.array([0.0])
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    exact = np.mean(np.abs(sums) >= abs(sum(values)) - 1e-9)
    assert drawn == pytest.approx(exact, abs=0.015)
    assert drawn == sign_flip(values, range(17))
    assert sign_flip([1 + index / 100 for index in range(40)], range(40)) == pytest.approx(1e-4)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_sign_flip_of_right_and_wrong_answers_is_mcnemar(better: int, worse: int, same: int) -> None:
    values = [1.0] * better + [-1.0] * worse + [0.0] * same
    assume(values)
    expected = scipy.stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert sign_flip(values, range(len(values))) == pytest.approx(expected, rel=1e-9)


def test_sign_flip_of_right_and_wrong_answers_counts_documents_not_questions() -> None:
    assert sign_flip([1.0] * 12, [index // 2 for index in range(12)]) == pytest.approx(2 / 2**6)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=40))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    result = rank_correlation(first, second)
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert result is None
    else:
        assert result == pytest.approx(scipy.stats.spearmanr(first, second).statistic, abs=1e-12)


def test_rank_correlation_wants_pairs() -> None:
    with pytest.raises(ValueError, match="2 values with 1"):
        rank_correlation([1, 2], [1])


def test_a_single_cluster_has_no_standard_error() -> None:
    assert math.isinf(standard_error([0.1, 0.2], ["d", "d"]))


def test_mcnemar() -> None:
    assert mcnemar_exact(2, 0) == 0.5  # inspect_ai#3511: exact .500
    assert mcnemar_exact(0, 0) == 1
    assert mcnemar_exact(3, 3) == 1
    for a, b in ((9, 1), (15, 5), (21, 9), (0, 6)):  # "9/10, 15/20, 21/30 needed; under 6, impossible"
        assert mcnemar_exact(a, b) == pytest.approx(scipy.stats.binomtest(a, a + b).pvalue)
        assert mcnemar_exact(a, b) < 0.05
    assert mcnemar_exact(5, 0) > 0.05


def test_holm() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_statsmodels_holm(p_values: list[float]) -> None:
    with mock.patch("gc.collect"):  # which it calls each time, for seconds beside the libraries of other tests
        expected = multipletests(p_values, method="holm")[1].tolist()
    assert holm(p_values) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_and_keeps_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    assert [a for _, a in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


@pytest.mark.parametrize(
    ("num", "num_clusters", "icc", "expected"),
    [(10, 10, 0, 1.00), (20, 20, 0, 0.66), (30, 30, 0, 0.53), (100, 100, 0, 0.28), (200, 200, 0, 0.20)]
    + [(30, 10, 0.1, 0.63), (30, 6, 0.1, 0.76)],
)
def test_detectable_reproduces_the_published_table(num: int, num_clusters: int, icc: float, expected: float) -> None:
    assert detectable(1, num, num_clusters, icc) == pytest.approx(expected, abs=0.006)
    assert detectable(0.4, num, num_clusters, icc) == pytest.approx(0.4 * detectable(1, num, num_clusters, icc))


def test_a_detectable_effect_is_detected_with_its_power() -> None:
    rng = np.random.default_rng(2)
    effect = detectable(1, 20, 20, 0)
    p = scipy.stats.ttest_1samp(rng.normal(effect, 1, (4000, 20)), 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.025)


def test_questions_needed_follows_from_the_interval() -> None:
    values = np.random.default_rng(3).normal(0, 0.3, 30).tolist()
    interval = paired(values, range(30))
    smallest = detectable_after(interval)
    assert smallest == pytest.approx(detectable(float(np.std(values, ddof=1)), 30, 30, 0), rel=1e-6)
    assert questions_needed(interval, 0.1) == math.ceil(30 * (smallest / 0.1) ** 2)
    assert questions_needed(paired([1.0], ["d"]), 0.1) is None
