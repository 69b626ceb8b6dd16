"""Krippendorff's alpha beyond its published example, which test_field_numbers.py holds."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tunewright.statistics.agreement import Level, krippendorff_alpha

UNITS = st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=4), min_size=1, max_size=12)
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval", "ratio")


@given(UNITS, st.sampled_from(LEVELS))
def test_order_of_units_and_markers_and_lone_values_do_not_matter(units: list[list[int]], level: Level) -> None:
    alpha = krippendorff_alpha(units, level)
    changed = krippendorff_alpha([list(reversed(unit)) for unit in reversed(units)] + [[1], []], level)
    assert changed == (None if alpha is None else pytest.approx(alpha, abs=1e-9))


@given(st.lists(st.integers(1, 4), min_size=2, max_size=12), st.sampled_from(LEVELS))
def test_full_agreement_is_one(values: list[int], level: Level) -> None:
    assume(len(set(values)) > 1)
    assert krippendorff_alpha([[value] * 3 for value in values], level) == pytest.approx(1)


@pytest.mark.parametrize("units", [[], [[1], [2]], [[2, 2], [2, 2]]])
def test_without_disagreement_to_expect_there_is_no_alpha(units: list[list[int]]) -> None:
    assert krippendorff_alpha(units, "nominal") is None


def test_two_markers_by_hand() -> None:
    """Coincidences 1-1: 2, 2-2: 2, 1-2: 1 each way; alpha = 1 - (6 - 1) * 2 / (2 * 3 * 3)."""
    assert krippendorff_alpha([[1, 1], [2, 2], [1, 2]], "nominal") == pytest.approx(1 - 5 * 2 / 18)
