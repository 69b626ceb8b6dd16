"""The numbers about marks against published values, other libraries, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.statistics.agreement import STOP, e_value, exact_share, krippendorff_alpha

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C: four observers, twelve units.
PUBLISHED = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)


def nominal_alpha(units):
    numbers = {value: index for index, value in enumerate(sorted({str(v) for unit in units for v in unit}))}
    return krippendorff_alpha([[numbers[str(v)] for v in unit] for unit in units], "nominal")


def units(rows: tuple[tuple[int | None, ...], ...]) -> list[list[int]]:
    return [[value for value in column if value is not None] for column in zip(*rows, strict=True)]


def test_alpha_of_the_published_examples() -> None:
    result = nominal_alpha(units(PUBLISHED))
    assert result is not None and round(result, 3) == 0.743
    # The same paper, sections A and B: two observers, binary and five values.
    binary = ((0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0))
    result = nominal_alpha(units(binary))
    assert result is not None and round(result, 3) == 0.095


def test_alpha_is_none_where_nothing_can_be_compared() -> None:
    assert nominal_alpha([["a"], ["b"], []]) is None
    assert nominal_alpha([["a", "a"], ["a", "a"]]) is None
    assert nominal_alpha([["a", "a"], ["b", "b"], ["c"]]) == 1.0


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), max_size=12))
def test_alpha_is_one_minus_observed_over_expected_disagreement(marks: list[list[str]]) -> None:
    paired = [unit for unit in marks if len(unit) > 1]
    values = [value for unit in paired for value in unit]
    observed = sum((a != b) / (len(u) - 1) for u in paired for i, a in enumerate(u) for j, b in enumerate(u) if i != j)
    expected = sum(a != b for i, a in enumerate(values) for j, b in enumerate(values) if i != j)
    result = nominal_alpha(marks)
    if not expected:
        assert result is None
    else:
        assert result == pytest.approx(1 - (observed / len(values)) / (expected / (len(values) * (len(values) - 1))))


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_exact_share_is_statsmodels_clopper_pearson(wins: int, losses: int) -> None:
    from statsmodels.stats.proportion import proportion_confint

    result = exact_share(wins, wins + losses)
    if wins + losses == 0:
        assert (result.share, result.low, result.high) == (None, 0.0, 1.0)
    else:
        assert (result.low, result.high) == pytest.approx(
            proportion_confint(wins, wins + losses, method="beta"), abs=1e-9
        )


def test_eight_unanimous_marks_suffice_and_seven_do_not() -> None:
    assert e_value(8, 0) == pytest.approx(256 / 9) and e_value(0, 8) >= STOP
    assert e_value(7, 0) == pytest.approx(16) and e_value(0, 0) == 1.0


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_the_e_value_is_a_fair_game(wins: int, losses: int) -> None:
    # Exactly a martingale: whatever stands, the next mark's two values average to the present one.
    present = e_value(wins, losses)
    assert (e_value(wins + 1, losses) + e_value(wins, losses + 1)) / 2 == pytest.approx(present, rel=1e-9)
    assert present == pytest.approx(2 ** (wins + losses) / ((wins + losses + 1) * math.comb(wins + losses, wins)))


def test_false_stops_stay_below_one_in_twenty_however_often_one_looks() -> None:
    marks = np.random.default_rng(0).integers(0, 2, size=(2000, 100))
    wins = marks.cumsum(axis=1)
    bar = np.array([[e_value(w, n - w) >= STOP for w in range(n + 1)] + [False] * (100 - n) for n in range(1, 101)])
    stopped = bar[np.arange(100), wins].any(axis=1).mean()
    assert 0 < stopped <= 0.05
