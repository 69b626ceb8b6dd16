"""Strengths from marks, against two other programs' numbers, and where no strengths exist."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.statistics.agreement import Game, bradley_terry

WINS = ((0, 7, 4, 9), (8, 0, 6, 10), (10, 9, 0, 11), (3, 4, 2, 0))
TIES = (("0", "1", 4), ("2", "3", 2), ("1", "3", 3))


def games(wins=WINS, ties=()):
    played = [(str(i), str(j), 1.0) for i, row in enumerate(wins) for j, count in enumerate(row) for _ in range(count)]
    played += [(first, second, 0.5) for first, second, count in ties for _ in range(count)]
    return [
        Game(first=first, second=second, share=share, cluster=f"d{number}")
        for number, (first, second, share) in enumerate(played)
    ]


def values(result):
    assert not isinstance(result, str), result
    return {strength.name: strength.value for strength in result}


def test_strengths_are_those_that_two_other_programs_find():
    # choix 0.4.1: opt_pairwise(4, pairs, alpha=0) and mm_pairwise(4, pairs)
    expected = {"0": 0.0052118, "1": 0.1702927, "2": 0.7442293, "3": -0.9197338}
    assert values(bradley_terry(games())) == pytest.approx(expected, abs=2e-7)
    # evalica 0.4.2: bradley_terry(..., tolerance=1e-12), logarithms, less their mean; a tie is half a win
    expected = {"0": 0.00414369, "1": 0.10859625, "2": 0.67392758, "3": -0.78666752}
    assert values(bradley_terry(games(ties=TIES))) == pytest.approx(expected, abs=1e-7)


def test_two_players_are_the_logarithm_of_their_odds_with_its_known_error():
    result = bradley_terry(games(((0, 30), (10, 0))))
    value = values(result)
    assert value["0"] - value["1"] == pytest.approx(math.log(3))
    half = (result[0].high - result[0].low) / 2
    # The error of a log odds is sqrt(1/30 + 1/10); a centered strength is half of the difference; CR1 and t on 39.
    assert half == pytest.approx(2.0227 * math.sqrt(40 / 39) * math.sqrt(1 / 30 + 1 / 10) / 2, rel=1e-4)
    assert result[0].num == result[1].num == 40


@given(st.permutations(range(4)))
def test_neither_names_nor_sides_matter(order):
    swapped = [
        Game(first=str(order[int(g.second)]), second=str(order[int(g.first)]), share=1 - g.share, cluster=g.cluster)
        for g in games(ties=TIES)
    ]
    expected = {str(order[int(name)]): value for name, value in values(bradley_terry(games(ties=TIES))).items()}
    assert values(bradley_terry(swapped)) == pytest.approx(expected, abs=1e-9)


def test_marks_of_one_document_count_less_than_as_many_of_others():
    apart = games()
    together = [game.model_copy(update={"cluster": f"d{n % 12}"}) for n, game in enumerate(sorted(apart, key=str))]
    assert values(bradley_terry(apart)) == pytest.approx(values(bradley_terry(together)))
    same = [game.model_copy(update={"cluster": f"{game.first} {game.second}"}) for game in apart]
    widths = [result[0].high - result[0].low for result in (bradley_terry(apart), bradley_terry(same))]
    assert widths[1] > widths[0]


def test_the_interval_holds_the_truth_about_as_often_as_it_claims():
    rng = random.Random(0)
    truth = {"a": 0.6, "b": 0.0, "c": -0.6}
    held = tried = 0
    for _ in range(150):
        played = []
        for number in range(90):
            first, second = rng.sample(sorted(truth), 2)
            won = rng.random() < 1 / (1 + math.exp(truth[second] - truth[first]))
            played.append(Game(first=first, second=second, share=float(won), cluster=f"d{number // 2}"))
        for strength in bradley_terry(played):
            held += strength.low <= truth[strength.name] <= strength.high
            tried += 1
    assert 0.92 < held / tried < 0.98


def test_where_no_strengths_exist_the_reason_is_returned():
    assert "never lost" in bradley_terry(games(((0, 3), (0, 0))))
    assert bradley_terry(games(((0, 3), (0, 0)))).startswith("0 ")
    apart = games(((0, 3, 0, 0), (2, 0, 0, 0), (0, 0, 0, 1), (0, 0, 4, 0)))
    assert "never compared" in bradley_terry(apart)
    assert "no marks" in bradley_terry([])
    single = [game.model_copy(update={"cluster": "d"}) for game in games()]
    assert "single document" in bradley_terry(single)
