import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.text.normalization import find_quote, ngrams, normalize, question_fault, words
from tunewright.text.sentences import sentences

TEXT = "In Ghana, some (e.g. Volta) were studied. A total of 426 (12.4%) were ill vs. 3 before.  It fell. Why?"


def test_sentences_end_where_sentences_end():
    assert [TEXT[a:b] for a, b in sentences(TEXT)] == [
        "In Ghana, some (e.g. Volta) were studied.",
        "A total of 426 (12.4%) were ill vs. 3 before.",
        "It fell.",
        "Why?",
    ]


@given(st.text())
def test_sentences_lose_nothing_but_white_space(text):
    spans = sentences(text)
    assert "".join("".join(text[a:b].split()) for a, b in spans) == "".join(text.split())
    assert all(a < b for a, b in spans)
    assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))


@given(st.text())
def test_normalize_is_idempotent(text):
    assert normalize(normalize(text)) == normalize(text)


def test_find_quote_matches_exactly_loosely_or_not_at_all():
    assert find_quote("426 (12.4%)", TEXT, 90) == (53, 64, 100.0)
    start, end, score = find_quote("a TOTAL of\n426", TEXT, 90)
    assert (TEXT[start:end], score) == ("A total of 426", 100.0)
    start, end, score = find_quote("A total of 426 (12.4%) was ill", TEXT, 80)
    assert "total of 426 (12.4%)" in TEXT[start:end] and not TEXT[start].isspace() and 80 <= score < 100
    assert find_quote("nobody was ever studied anywhere else", TEXT, 90) is None
    assert find_quote("", TEXT, 90) is None
    assert find_quote(TEXT + " and more than that", TEXT, 99.9) is None


@given(st.text(min_size=1).filter(str.strip), st.text(), st.text())
def test_find_quote_finds_every_literal_quote(quote, before, after):
    text = before + quote + after
    match = find_quote(quote, text, 100)
    assert match is not None
    assert text[match[0] : match[1]] == quote.strip()


def test_words_and_ngrams():
    assert words("The 12.4% — of “X”!") == ["the", "12.4", "of", "x"]
    assert ngrams(["a", "b", "c"], 2) == {("a", "b"), ("b", "c")}
    assert ngrams(["a"], 2) == set()


@pytest.mark.parametrize(
    "question, fault",
    [
        ("How many patients were ill in Ghana?", None),
        ("Why?", "question too short"),
        ("Tell me how many were ill.", "not a question"),
        ("What does the passage say of Ghana?", "question refers to the text"),
        ("What is the title of this document about Ghana?", "question refers to the text"),
        ("Is it so that 426 patients were ill in Ghana?", "question holds the answer"),
        ("what " * 61 + "?", "question too long"),
    ],
)
def test_question_fault_by_wording(question, fault):
    assert question_fault(question, "426 patients were ill in Ghana.") == fault
