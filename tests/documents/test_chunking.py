"""Chunks: exact offsets, nothing lost, nothing twice, never too long."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.documents.chunking import chunk_document
from tunewright.documents.markup import assemble
from tunewright.records import Document, Section, digest


def make_document(blocks: list[tuple[int, str]]) -> Document:
    read = assemble(blocks, "name")
    return Document(id=digest("s", read.text), title=read.title, source="s", text=read.text, sections=read.sections)


def count_words(text: str) -> int:
    return len(text.split())


COUNTERS: list[Callable[[str], int]] = [
    count_words,
    len,
    lambda text: len(text.encode()),
    lambda text: sum((len(word) + 3) // 4 for word in text.split()),
]

prose = st.lists(st.sampled_from(["A", "cat", "sat", "e.g.", "on", "3.5", "mats.", "Why?", "x" * 30, "\n\n", "Ünï"]))
bodies = st.one_of(st.text(max_size=80), prose.map(" ".join))


@given(
    blocks=st.lists(st.tuples(st.integers(0, 3), bodies), max_size=8),
    count_tokens=st.sampled_from(COUNTERS),
    max_tokens=st.integers(4, 40),
)
def test_chunks_tile_the_sections(
    blocks: list[tuple[int, str]], count_tokens: Callable[[str], int], max_tokens: int
) -> None:
    document = make_document(blocks)
    sections = document.sections or (Section(path=(), start=0, end=len(document.text)),)
    chunks = chunk_document(document, count_tokens, max_tokens)
    for piece in chunks:
        assert document.text[piece.start : piece.end] == piece.text
        assert piece.text == piece.text.strip() != ""
        assert piece.num_tokens == count_tokens(piece.text) <= max_tokens
        assert piece.id == digest(document.id, piece.start, piece.end)
        (home,) = [s for s in sections if s.start <= piece.start and piece.end <= s.end]
        assert home.path == piece.section
    assert all(a.end <= b.start for a, b in zip(chunks, chunks[1:], strict=False))
    covered = {offset for piece in chunks for offset in range(piece.start, piece.end)}
    expected = {offset for section in sections for offset in range(section.start, section.end)}
    assert all(document.text[offset].isspace() for offset in expected - covered)


def test_sentences_are_packed_while_the_next_fits() -> None:
    document = make_document([(0, "One two three. Four five six. Seven eight. Nine ten eleven twelve.")])
    texts = [piece.text for piece in chunk_document(document, count_words, 8)]
    assert texts == ["One two three. Four five six. Seven eight.", "Nine ten eleven twelve."]


def test_a_long_sentence_is_cut_at_word_borders_and_its_rest_is_packed_on() -> None:
    document = make_document([(0, "One two three four five six seven. Eight nine. Ten.")])
    texts = [piece.text for piece in chunk_document(document, count_words, 5)]
    assert texts == ["One two three four five", "six seven. Eight nine. Ten."]


def test_a_long_word_is_cut_between_characters() -> None:
    document = make_document([(0, "ab " + "x" * 25)])
    assert [piece.text for piece in chunk_document(document, len, 10)] == ["ab", "x" * 10, "x" * 10, "x" * 5]


def test_chunks_do_not_cross_sections() -> None:
    document = make_document([(1, "Title"), (2, "A"), (0, "First."), (2, "B"), (0, "Second.")])
    assert [(piece.section, piece.text) for piece in chunk_document(document, count_words, 99)] == [
        (("A",), "First."),
        (("B",), "Second."),
    ]


def test_a_document_without_sections_is_a_single_section() -> None:
    document = Document(id="d", title="t", source="s", text=" Some text. ")
    assert [(piece.start, piece.end) for piece in chunk_document(document, count_words, 99)] == [(1, 11)]


LONG = {
    "Chinese, a line for each sentence": "港口的管理员记录每一艘停留超过九天的船只，并把记录交给城里的会议。\n",
    "Chinese without an end": "港口的管理员记录每一艘停留",
    "quotes that never close": "“港口。",
    "a transcript": "so the keeper said that the oil lasted nineteen nights and then he had to cut the wick again and ",
    "one word": "x",
    "base64": "QUJDREVG0/+",
    "abbreviations": "e.g. ",
    "initials": "A. ",
    "points": ".",
    "marks": "?!",
    "blank lines": "\n \n",
    "emoji": "\U0001f600",
}


@pytest.mark.parametrize("case", LONG)
def test_no_text_is_counted_many_times_over(case: str) -> None:
    """The time of chunking is that of counting tokens: about four times each character, whatever the text's length."""
    counted, longest = 0, 0

    def count(text: str) -> int:
        nonlocal counted, longest
        counted, longest = counted + len(text), max(longest, len(text))
        return (len(text.encode()) + 2) // 3

    text = LONG[case] * (200_000 // len(LONG[case]))
    document = Document(id="d", title="t", source="s", text=text)
    chunks = chunk_document(document, count, 64)
    assert counted < 10 * len(text)
    assert longest < 2000
    assert sum(len(piece.text.split()) for piece in chunks) >= len(text.split())


@pytest.mark.parametrize("max_tokens", [64, 4096])
def test_long_sections_take_few_counts(max_tokens: int) -> None:
    document = make_document([(0, "A short sentence of words. " * 4000)])
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += count_words(text)
        return count_words(text)

    chunk_document(document, count, max_tokens)
    assert counted < 8 * count_words(document.text)
