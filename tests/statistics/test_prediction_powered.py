import json
import math

import numpy as np
import ppi_py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ppi_coverage import RESULTS, coverage

from tunewright.statistics.intervals import difference_interval
from tunewright.statistics.prediction_powered import detectable_by_marks, prediction_powered

SEEDS = st.integers(0, 100_000)


def drawn(seed: int, num: int = 120, agreement: float = 0.85, documents: int = 12) -> tuple[list, list, list]:
    """Preferences of all questions, a judge that agrees with this share of them, and the questions' documents."""
    draw = np.random.default_rng(seed)
    y = draw.choice([-1.0, 0.0, 1.0], p=[0.3, 0.2, 0.5], size=num)
    f = np.where(draw.random(num) < agreement, y, draw.choice([-1.0, 0.0, 1.0], size=num))
    return y.tolist(), f.tolist(), (np.arange(num) % documents).tolist()


def some(y: list[float], num: int) -> list[float | None]:
    """The marks of the first questions alone: questions are drawn in no order."""
    return [value if at < num else None for at, value in enumerate(y)]


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 110), st.sampled_from([0.0, 0.5, 0.85, 1.0]))
def test_it_is_the_interval_of_ppi_python_without_clusters(seed: int, num: int, agreement: float) -> None:
    y, f, _ = drawn(seed, agreement=agreement)
    ours = prediction_powered(some(y, num), f)
    marks, on_marked, on_others = np.array(y[:num]), np.array(f[:num]), np.array(f[num:])
    low, high = ppi_py.ppi_mean_ci(marks, on_marked, on_others, alpha=0.05)
    point = ppi_py.ppi_mean_pointestimate(marks, on_marked, on_others)
    assert (ours.interval.low, ours.interval.high) == pytest.approx((low[0], high[0]), abs=1e-6)
    assert ours.interval.mean == pytest.approx(point[0], abs=1e-6)
    assert ppi_py.ppi_mean_ci(marks, on_marked, on_others, alpha=0.05, lam=ours.weight) == pytest.approx(
        (ours.interval.low, ours.interval.high), abs=1e-6
    )


def test_real_valued_predictions_are_those_of_ppi_python_too() -> None:
    draw = np.random.default_rng(5)
    y = draw.normal(0.1, 0.3, 200)
    f = 0.8 * y + draw.normal(0, 0.1, 200)
    ours = prediction_powered(some(y.tolist(), 40), f.tolist())
    low, high = ppi_py.ppi_mean_ci(y[:40], f[:40], f[40:], alpha=0.05)
    assert (ours.interval.low, ours.interval.high) == pytest.approx((low[0], high[0]), abs=1e-6)
    assert 0 < ours.weight < 1


def test_estimate_and_weight_do_not_depend_on_clusters_of_one_size() -> None:
    y, f, documents = drawn(1)
    clustered, plain = prediction_powered(some(y, 36), f, documents), prediction_powered(some(y, 36), f)
    assert clustered.interval.mean == pytest.approx(plain.interval.mean)
    assert clustered.weight == pytest.approx(plain.weight)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([2, 5, 30, 119]), st.integers(2, 40))
def test_the_interval_stays_in_range_around_its_mean_whatever_the_order(seed: int, num: int, documents: int) -> None:
    y, f, clusters = drawn(seed, documents=documents)
    result = prediction_powered(some(y, num), f, clusters)
    interval = result.interval
    assert -1 <= interval.low <= interval.high <= 1 or abs(interval.mean) > 1
    assert 0 <= result.weight <= 1 and interval.num == num
    order = np.random.default_rng(seed).permutation(len(y))
    again = prediction_powered(*([values[at] for at in order] for values in (some(y, num), f, clusters)))
    assert (again.interval.low, again.interval.high) == pytest.approx((interval.low, interval.high))


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_exchanged_arms_mirror_the_interval(seed: int) -> None:
    y, f, documents = drawn(seed)
    one = prediction_powered(some(y, 30), f, documents).interval
    other = prediction_powered(some([-v for v in y], 30), [-v for v in f], documents).interval
    assert (other.mean, other.low, other.high) == pytest.approx((-one.mean, -one.high, -one.low), abs=1e-9)


def test_predictions_that_do_not_vary_leave_the_marks_alone() -> None:
    y, _, documents = drawn(2)
    result = prediction_powered(some(y, 36), [0.0] * 120, documents)
    assert result.weight == 0 and result.interval == result.alone
    assert result.interval.mean == pytest.approx(np.mean(y[:36]))


def test_a_judge_against_the_marks_gets_no_weight() -> None:
    y, _, documents = drawn(3)
    assert prediction_powered(some(y, 36), [-value for value in y], documents).weight == 0


def test_every_question_marked_is_the_jackknife_of_their_mean() -> None:
    y, f, documents = drawn(4)
    result = prediction_powered(list(y), f, documents)
    plain = difference_interval(y, documents)
    assert result.weight == 0
    assert (result.interval.low, result.interval.high) == pytest.approx((plain.low, plain.high), abs=1e-9)


def test_marks_of_documents_count_for_their_questions() -> None:
    # One large document where the second arm wins, nine small ones where it loses; two marks each.
    documents = [0] * 91 + [n for n in range(1, 10) for _ in range(2)]
    y = [1.0] * 91 + [-1.0] * 18
    marks = [value if at < 2 or at >= 91 else None for at, value in enumerate(y)]
    assert prediction_powered(marks, [0.0] * len(y), documents).interval.mean == pytest.approx(np.mean(y))


def test_equal_marks_and_few_documents_are_never_certain() -> None:
    documents = [n % 10 for n in range(100)]
    same = prediction_powered(some([1.0] * 100, 30), [1.0] * 100, documents).interval
    assert same.mean == 1 and same.low < 0.95
    one = prediction_powered(some([1.0] * 100, 30), [1.0] * 100, [0] * 100).interval
    assert (one.low, one.high, one.p) == (-1, 1, 1)


def test_faulty_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no mark"):
        prediction_powered([None, None], [1.0, 0.0], [0, 1])
    with pytest.raises(ValueError, match="1 marks with 2"):
        prediction_powered([1.0], [1.0, 0.0])


def test_more_marks_and_a_better_judge_detect_less() -> None:
    few, many = detectable_by_marks(30, 200, 20, 0.8, 0.0), detectable_by_marks(60, 200, 20, 0.8, 0.0)
    judged = detectable_by_marks(30, 200, 20, 0.8, 0.8)
    assert many < few and judged < 0.8 * few
    # All questions marked: the judge adds nothing.
    assert detectable_by_marks(200, 200, 20, 0.8, 0.8) == detectable_by_marks(200, 200, 20, 0.8, 0.0)
    assert math.isfinite(few)


def test_coverage_is_not_too_low_where_the_plain_formula_is() -> None:
    row = coverage("perfect", (100, 10, 60), 0.0, 0.4, 300, np.random.default_rng(1))
    assert row["coverage_percent"] >= 95 - 3 * 1.26 > row["plain_formula_percent"]  # three standard errors of 300 runs


def test_the_record_holds_every_setting_and_none_is_far_too_low() -> None:
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert record["even_documents"]["settings"] == 336 and record["runs_of_each"] >= 1500
    assert record["even_documents"]["lowest_percent"] >= 92.5 and record["even_documents"]["below_the_bar"] <= 2
    assert record["uneven_documents"]["lowest_percent"] >= 93
    assert record["narrower_at_85_percent"]["85 %, else ties, ICC 0.0"]["median"] >= 20
