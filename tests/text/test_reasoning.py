"""Reasoning before an answer is removed from a stream as from the whole answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.text.reasoning import ends_with_opening_tag, stream_without_reasoning, strip_reasoning

WITH_A_BLOCK = (
    "<think>\nFirst, 6 times 7.\n</think>\n\n42",
    " \n<thinking>a <b> c</thinking> 42 and </think> more",
    "<reasoning></reasoning>42",
    "<think>no end of it",
    "<think",
    "<thin ice is dangerous",
    "42",
    "  42 < 43",
    "",
    "<b>42</b> <think>late</think>",
)


def in_pieces(text: str, cuts: list[int]) -> list[str]:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in zip(ends, ends[1:], strict=False)]


@given(st.sampled_from(WITH_A_BLOCK), st.lists(st.integers(0, 60), max_size=12))
def test_a_stream_loses_what_the_whole_answer_loses(text: str, cuts: list[int]) -> None:
    assert "".join(stream_without_reasoning(in_pieces(text, cuts))) == strip_reasoning(text)


@given(st.sampled_from(("so 6 times 7\n</think>\n\n42", "never ends", "")), st.lists(st.integers(0, 30), max_size=8))
def test_an_answer_that_starts_inside_the_block_is_held_back_until_the_block_ends(text: str, cuts: list[int]) -> None:
    assert "".join(stream_without_reasoning(in_pieces(text, cuts), opened=True)) == strip_reasoning(text)


def test_an_answer_without_a_block_is_streamed_from_its_first_piece() -> None:
    stream = stream_without_reasoning(iter(["For", "ty", "-two"]))
    assert [next(stream), next(stream)] == ["For", "ty"]


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [("<|im_start|>assistant\n<think>\n", True), ("assistant\n<think>", True), ("<think>\n\n</think>\n\n", False)],
)
def test_a_prompt_that_ends_with_the_opening_tag_opens_the_block(prompt: str, opened: bool) -> None:
    assert ends_with_opening_tag(prompt) is opened
