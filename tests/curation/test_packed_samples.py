"""Packed samples and selections of them are the samples that they stand for."""

from __future__ import annotations

import tracemalloc
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.curation import packed_samples
from tunewright.curation.packed_samples import PackedSamples, Selection
from tunewright.records import Message, Sample, Span

TURNS = (Message(role="user", content="Wer? \u2028 \U0001f600"), Message(role="assistant", content="Ja.", loss=False))
SPAN = Span(document="d", start=1, end=3, quote="ab")


def sample(number: int) -> Sample:
    more = {"evidence": SPAN, "further_evidence": (SPAN,), "kind": "why", "document": "d"} if number % 2 else {}
    return Sample(id=f"{number:016x}", task=("own", "free-qa")[number % 2], messages=TURNS, **more)


def test_they_come_back_whole_by_number_in_order_and_in_parts() -> None:
    every = [sample(number) for number in range(20)]
    packed = PackedSamples(iter(every))
    assert (len(packed), list(packed), packed[7], packed[-1]) == (20, every, every[7], every[-1])
    assert list(packed[3:15:4]) == every[3:15:4]
    assert list(PackedSamples([])) == []


@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), max_size=4), st.integers(0, 11))
def test_selections_of_selections_are_the_lists_that_comprehensions_give(masks: list[list[bool]], edited: int) -> None:
    plain: list[Sample] = [sample(number) for number in range(12)]
    chosen = Selection(PackedSamples(plain), range(12))
    for mask in masks:
        numbers = [number for number in range(len(plain)) if mask[number]]
        changed = {number: sample(100 + number) for number in numbers if number == edited}
        chosen = Selection(chosen, numbers, changed)
        plain = [changed.get(number, plain[number]) for number in numbers]
        assert chosen == plain
        assert list(chosen[::2]) == plain[::2]


def test_they_take_a_fraction_of_the_memory_of_records() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        packed = PackedSamples(sample(2 * number) for number in range(2000))
        size = tracemalloc.get_traced_memory()[0] - before
        records = list(packed)
        whole = tracemalloc.get_traced_memory()[0] - before - size
    finally:
        tracemalloc.stop()
    assert len(records) == 2000
    assert 4 * size < whole


def test_many_samples_lie_in_a_file_which_goes_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_samples, "_MOST_IN_MEMORY", 2000)
    monkeypatch.setattr(packed_samples, "_PIECE", 700)
    every = [sample(number) for number in range(50)]
    packed = PackedSamples(every)
    assert list(packed) == every
    assert [packed[number] for number in (49, 0, 25, 24)] == [every[number] for number in (49, 0, 25, 24)]
    file = packed._file
    assert not file.closed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del packed
    assert file.closed
