"""Published numbers of other people's evaluations, computed again by the project's own functions.

The counts in alpaca_eval/ are facts from the leaderboards of the package alpaca_eval 0.6.6 (Apache-2.0).
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar

from tunewright.statistics.agreement import Level, krippendorff_alpha
from tunewright.statistics.intervals import (
    detectable_after,
    mcnemar_exact,
    paired,
    rank_correlation,
    sign_flip,
    standard_error,
)
from tunewright.statistics.power import detectable_unclustered, questions_for

ALPACA = Path(__file__).parent / "alpaca_eval"
# Four coders, eleven units, gaps (Krippendorff, "Content Analysis", and his paper of 2011).
CODERS = ("123321412__", "1233224125_", "_3332342251", "12332441251")


def rows(name: str) -> list[dict[str, str]]:
    with (ALPACA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def error_of_share(successes: int, num: int) -> float:
    return standard_error([1.0] * successes + [0.0] * (num - successes), range(num))


def test_miller_questions_for_three_points() -> None:
    """Miller 2024: between-question variance 1/9, none within, delta 0.03."""
    assert questions_for(0.03, 1 / 9, large=True) == 969


@pytest.mark.parametrize(("samples", "points"), [(1, 13.3), (10, 7.6)])
def test_miller_smallest_effect_on_198_questions(samples: int, points: float) -> None:
    """Two models, each with variance 1/6 within a question, over K samples of each answer."""
    variance = 1 / 9 + 2 * (1 / 6) / samples
    assert round(100 * detectable_unclustered(variance, 198), 1) == points


def test_alpaca_eval_standard_errors_from_counts() -> None:
    off = []
    for row in rows("version_1.csv"):
        wins, losses, draws = int(row["wins"]), int(row["losses"]), int(row["draws"])
        values = [1.0] * wins + [0.0] * losses + [0.5] * draws
        off.append(abs(100 * standard_error(values, range(len(values))) - float(row["standard_error"])))
    assert len(off) == 102
    assert sum(error < 1e-6 for error in off) == 99
    assert round(max(off), 4) == 0.0085


@pytest.mark.parametrize(("column", "printed", "rounded"), [("win_rate", 727, 728), ("length_controlled", 555, 556)])
def test_alpaca_eval_length_against_win_rate(column: str, printed: int, rounded: int) -> None:
    """The printed digits are cut off, not rounded."""
    table = rows("version_2.csv")
    assert len(table) == 223
    result = rank_correlation([float(row["length"]) for row in table], [float(row[column]) for row in table])
    assert result is not None
    assert math.floor(1000 * result) == printed
    assert round(1000 * result) == rounded


@pytest.mark.parametrize(
    ("share", "num", "printed"),
    [(0.7847, 1319, 0.0113), (0.7763, 541, 0.0179), (0.6, 10, 0.1633)],
    ids=["GSM8K", "IFEval", "MBPP"],
)
def test_lm_eval_printed_standard_errors(share: float, num: int, printed: float) -> None:
    successes = round(share * num)
    assert round(successes / num, 4) == share
    assert round(error_of_share(successes, num), 4) == printed


def test_inspect_ai_two_discordant_to_none() -> None:
    table = [[0, 2], [0, 0]]
    assert round(mcnemar_exact(2, 0), 3) == 0.500 == round(mcnemar(table, exact=True).pvalue, 3)
    # What the corrected chi-square says, which is not used here: not the same.
    assert round(mcnemar(table, exact=False, correction=True).pvalue, 3) == 0.480


def test_errorbars_questions_for_three_points_at_one_half() -> None:
    assert questions_for(0.03, 2 * 0.25, large=True) == 4361


def test_errorbars_smallest_effect_on_500_questions() -> None:
    assert round(100 * detectable_unclustered(2 * 0.25, 500), 1) == 8.9


@pytest.mark.parametrize(
    ("level", "printed"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_krippendorff_four_coders(level: Level, printed: float) -> None:
    units = [[float(mark) for mark in marks if mark != "_"] for marks in zip(*CODERS, strict=True)]
    result = krippendorff_alpha(units, level)
    assert result is not None
    assert round(result, 3) == printed


@pytest.mark.parametrize(("naive", "clustered"), [(0.43, 0.055), (0.49, 0.075)], ids=["evalsig", "field notes"])
def test_false_positives_with_fifty_clusters_of_ten(naive: float, clustered: float) -> None:
    """ICC 0.71, no effect. Both printed pairs are shares of few runs (steps of half a percent: 200), without a seed.

    So they are reproduced as draws: our rate, over more runs, must not be refuted by either of them.
    """
    draw, runs, clusters = np.random.default_rng(11), 1500, np.repeat(np.arange(50), 10)
    noise = math.sqrt(0.71) * draw.normal(size=(runs, 50))[:, clusters] + math.sqrt(0.29) * draw.normal(
        size=(runs, 500)
    )
    items = float(np.mean(scipy.stats.ttest_1samp(noise, 0, axis=1).pvalue < 0.05))
    ours = float(np.mean([paired(row, clusters.tolist()).p < 0.05 for row in noise.tolist()]))
    assert 0.035 < ours < 0.065
    for share, rate in ((naive, items), (clustered, ours)):
        assert scipy.stats.binomtest(round(200 * share), 200, rate).pvalue > 0.05


# Beside section 6: the numbers in the notes' design that the same functions give.


@pytest.mark.parametrize("marks", [(9, 1), (15, 5), (21, 9)])
def test_marks_needed_for_a_proof(marks: tuple[int, int]) -> None:
    most, few = marks
    assert mcnemar_exact(most, few) < 0.05 < mcnemar_exact(most - 1, few + 1)


def test_sign_flip_needs_six_documents() -> None:
    assert sign_flip([1.0] * 5, range(5)) > 0.05 > sign_flip([1.0] * 6, range(6))


def test_thirty_without_a_failure_still_allow_nine_and_a_half_percent() -> None:
    assert round(100 * paired([0.0] * 30, range(30)).high, 1) == 9.5


def test_smallest_effect_of_an_answered_exam() -> None:
    """From its interval alone: the standard error times the t-test's noncentrality."""
    values = np.random.default_rng(2).normal(0, 1, 100).tolist()
    scaled = [value / standard_error(values, range(100)) / 10 for value in values]  # a standard deviation of 1
    assert round(detectable_after(paired(scaled, range(100))), 2) == 0.28
