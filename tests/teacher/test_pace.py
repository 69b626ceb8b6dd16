"""The pace of one server, with made-up clocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunewright.teacher.client import START, Pace


def window(pace: Pace, seconds: float) -> None:
    """A full window of calls, each answered after so many seconds."""
    number = pace.limit
    pace.under_way += number
    for _ in range(number):
        pace.under_way += 1  # another takes the place of each
        pace.answered(seconds)
    pace.under_way -= number


def test_it_starts_low_and_grows_by_1_per_window_up_to_the_setting():
    pace = Pace(most=12)
    limits = [pace.limit]
    for _ in range(7):
        window(pace, 1.0)
        limits.append(pace.limit)
    assert limits == [START, 9, 10, 11, 12, 12, 12, 12]
    assert Pace(most=3).limit == 3


def test_it_does_not_grow_while_answers_take_three_times_as_long():
    pace = Pace(most=100)
    window(pace, 1.0)
    for _ in range(5):
        window(pace, 3.5)
    assert pace.limit == START + 1
    window(pace, 1.0)
    assert pace.limit == START + 2


def test_lastingly_longer_answers_are_not_taken_for_overload_for_ever():
    pace = Pace(most=100)
    window(pace, 1.0)
    for _ in range(100):
        window(pace, 4.0)
    assert pace.limit > START + 10


def test_a_limit_that_is_not_used_does_not_grow():
    pace = Pace(most=100)
    for _ in range(100):
        pace.under_way += 1
        pace.answered(1.0)
    assert pace.limit == START


def test_overload_halves_once_per_round():
    pace = Pace(most=64, limit=64)
    pace.limit, pace.under_way = 64, 8
    firsts = [pace.overloaded(sent_at=1.0 + n / 10, now=2.0 + n / 10) for n in range(8)]
    assert firsts == [True] + [False] * 7
    assert (pace.limit, pace.under_way) == (32, 0)
    pace.under_way = 1
    assert pace.overloaded(sent_at=2.5, now=3.0)  # sent after the cut: the server still has too much
    assert pace.limit == 16


def test_a_lost_server_is_tried_by_a_single_call_and_starts_again_when_it_is_back():
    pace = Pace(most=64)
    pace.under_way = 3
    assert [pace.refused(1.0, 2.0 + n) for n in range(3)] == [True, False, False]
    assert (pace.limit, pace.num_refused) == (1, 1)
    pace.under_way = 1
    pace.answered(0.5)
    assert (pace.limit, pace.num_refused) == (START, 0)


@given(
    st.integers(1, 1024), st.lists(st.tuples(st.sampled_from(["answer", "busy", "gone", "reject"]), st.floats(0, 9)))
)
def test_the_limit_stays_within_its_bounds_and_calls_are_counted(most, events):
    pace, now = Pace(most), 0.0
    for kind, seconds in events:
        now += 1.0
        assert pace.has_room()
        pace.under_way += 1
        if kind == "answer":
            pace.answered(seconds)
        elif kind == "reject":
            pace.responded()
        elif kind == "busy":
            pace.overloaded(now - seconds, now)
        else:
            pace.refused(now - seconds, now)
        assert 1 <= pace.limit <= most
        assert pace.under_way == 0
