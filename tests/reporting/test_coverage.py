from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.documents.chunking import chunk_document
from tunewright.html.figures import Strip, cells, heat_map, histogram, sentences_per_cell
from tunewright.records import Document, Message, Sample, Section, Span
from tunewright.reporting.data_statistics import (
    CoveredSentence,
    coverage,
    eligible,
    overall,
    reached,
    unreached_sections,
)

A = "The first group of patients was treated with the new drug."
B = "The second group of patients received no treatment at all."
C = "All of the patients recovered within the first four weeks."
TEXT = f"{A} {B} Short one here.\n\n{C}"
DOCUMENT = Document(
    id="d",
    title="T",
    source="t.md",
    text=TEXT,
    sections=(
        Section(path=("Methods",), start=0, end=TEXT.index(C)),
        Section(path=("Results",), start=TEXT.index(C), end=len(TEXT)),
    ),
)
CHUNKS = chunk_document(DOCUMENT, lambda text: len(text.split()), 15)


def asks(quote: str, number: int = 1) -> list[Sample]:
    start = TEXT.index(quote)
    span = Span(document="d", start=start, end=start + len(quote), quote=quote)
    turns = (Message(role="user", content="?"), Message(role="assistant", content="!"))
    return [Sample(id=f"{quote}{n}", task="x", messages=turns, evidence=span) for n in range(number)]


def test_only_sentences_that_can_be_evidence_count() -> None:
    result = eligible(CHUNKS)["d"]
    assert [TEXT[s.start : s.end] for s in result] == [A, B, C]
    assert [s.section for s in result] == [("Methods",), ("Methods",), ("Results",)]


def test_coverage_by_document_and_section() -> None:
    (result,) = coverage([DOCUMENT], CHUNKS, [*asks(A, 2), *asks("received no treatment")])
    assert [s.num_samples for s in result.sentences] == [2, 1, 0]
    assert (result.num_reached, result.share) == (2, pytest.approx(2 / 3))
    assert [(p.path, p.num_sentences, p.num_reached) for p in result.sections] == [
        (("Methods",), 2, 2),
        (("Results",), 1, 0),
    ]
    assert [part.path for _, part in unreached_sections([result])] == [("Results",)]
    assert overall([result]) == (2, 3)


def test_a_quote_over_two_sentences_reaches_both_and_a_word_too_many_does_not() -> None:
    (result,) = coverage([DOCUMENT], CHUNKS, asks(f"{A} {B}"))
    assert [s.num_samples for s in result.sentences] == [1, 1, 0]
    (result,) = coverage([DOCUMENT], CHUNKS, asks(f"{A} The second"))
    assert [s.num_samples for s in result.sentences] == [1, 0, 0]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=8),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=6),
)
def test_reached_against_every_pair(gaps: list[tuple[int, int]], spans: list[tuple[int, int]]) -> None:
    position, result = 0, []
    for gap, length in gaps:
        result.append(CoveredSentence(position + gap, position + gap + length, ()))
        position += gap + length
    quotes = [Span(document="d", start=a, end=a + n, quote="") for a, n in spans]

    def meets(s: CoveredSentence, q: Span) -> bool:
        shared = len(set(range(s.start, s.end)) & set(range(q.start, q.end)))
        return shared > 0 and 2 * shared >= min(s.end - s.start, q.end - q.start)

    assert reached(result, quotes) == [sum(meets(s, q) for q in quotes) for s in result]


def test_shades_and_cells() -> None:
    assert cells([0, 1, 2, 3, 9], 1) == [0, 1, 2, 3, 3]
    assert cells([0, 0, 0, 1, 4], 2) == [0, 1, 3]
    assert sentences_per_cell([Strip("a", "", [("s", [0] * 120)])]) == 1
    assert sentences_per_cell([Strip("a", "", [("s", [0] * 121)])]) == 2
    assert sentences_per_cell([]) == 1


def test_the_heat_map_marks_sections_and_escapes_names() -> None:
    figure = heat_map([Strip("<b>", "1 of 3", [("<i>One", [0, 2]), ("Two", [1])])], "a <map>")
    assert figure.count("<rect") == 3
    assert [figure.count(f'class="cell h{n}"') for n in range(4)] == [1, 1, 1, 0]
    assert figure.count('class="section"') == 1
    assert figure.count("<title>") == 2
    assert "<b>" not in figure
    assert "<i>" not in figure
    assert 'aria-label="a &lt;map&gt;"' in figure


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=300))
def test_a_histogram_takes_any_lengths(values: list[float]) -> None:
    figure = histogram(values, "lengths")
    assert 1 <= figure.count("<rect") <= 60


def test_histogram_heights_follow_the_counts() -> None:
    figure = histogram([1.0] * 30 + [11.0] * 10 + [24.0], "lengths")
    assert figure.count("<rect") == 3
    assert 'height="130.0"' in figure  # 30 of an axis to 30
    assert 'height="43.3"' in figure
    assert histogram([], "none") == ""
