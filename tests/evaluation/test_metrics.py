import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.evaluation import metrics
from tunewright.evaluation.metrics import METRICS, evidence_support, exact, fuzzy, is_refusal, score, token_f1
from tunewright.records import Answer, Question, Span
from tunewright.settings import REFUSAL

TEXT = st.text(alphabet="abc de,.0123 the", max_size=30)


def question(answerable: bool = True, gold: str = "150 ulcers (25.2%)", passage: str | None = None) -> Question:
    quote = "Of 595 skin ulcers, 150 ulcers (25.2%) tested positive."
    return Question(
        id="q",
        ring="learned",
        document="d",
        question="How many?",
        gold=gold if answerable else REFUSAL,
        answerable=answerable,
        passage=passage,
        evidence=Span(document="d", start=0, end=len(quote), quote=quote),
    )


def answer(text: str, finish: str = "stop") -> Answer:
    return Answer(
        question="q", arm="base", text=text, finish=finish, num_prompt_tokens=1, num_tokens=1, duration_s=0, gold_nll=1
    )


@given(TEXT, TEXT)
def test_f1_is_symmetric_and_in_range(a: str, b: str) -> None:
    assert token_f1(a, b) == pytest.approx(token_f1(b, a))
    assert 0 <= token_f1(a, b) <= 1
    assert token_f1(a, a) == 1
    assert exact(a, b) <= token_f1(a, b)


def test_f1_counts_repeated_words_once_per_occurrence() -> None:
    # 2 shared of 4 told and 2 wanted: precision 1/2, recall 1.
    assert token_f1("red red blue green", "red blue") == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_articles_case_punctuation_and_thousands_do_not_matter_but_decimals_do() -> None:
    assert exact("The 3,440 Participants.", "3440 participants") == 1
    assert exact("2.52 %", "25.2 %") == 0
    assert token_f1("25.2", "2.52") == 0


def test_fuzzy_ignores_word_order() -> None:
    assert fuzzy("skin ulcers in Ghana", "in Ghana skin ulcers") == 1
    assert fuzzy("skin", "") == 0


def test_evidence_support_counts_numbers_and_content_words_only() -> None:
    assert evidence_support("150 of the ulcers", "there were 150 ulcers") == 1
    assert evidence_support("151 of the ulcers", "there were 150 ulcers") == 0.5
    assert evidence_support("of the", "of the") == 0


@pytest.mark.parametrize(
    "text",
    [
        REFUSAL,
        "The documents don't give an answer to this question.",
        "I don't know.",
        "I do not have enough information to answer that.",
        "I’m sorry, but I can't answer that.",
        "Sorry. The passage does not mention it.",
        "Unknown.",
        "It is not mentioned in the provided text.",
        "There is no information about this in the documents.",
        "The answer cannot be determined from the given text.",
        "No mention of this is made.",
        "Based on the documents, the answer is not provided.",
        "The document does not explicitly state this.",
    ],
)
def test_declines(text: str) -> None:
    assert is_refusal(text, REFUSAL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The",
        "the answer",
        "The documents do give the answer to this question.",
        "The documents give the answer to this question: 12.",
        "12 patients. The text does not mention others.",
        "The study found no significant difference.",
        "Patients did not give consent.",
        "Mortality did not change.",
        "The mechanism is not known to differ between groups of patients.",
    ],
)
def test_does_not_decline(text: str) -> None:
    assert not is_refusal(text, REFUSAL)


def test_refusal_sentence_of_the_recipe_in_any_language() -> None:
    refusal = "Das steht nicht in den Unterlagen."
    assert is_refusal("Das steht leider nicht in den Unterlagen.", refusal)
    assert not is_refusal("In den Unterlagen steht 12.", refusal)


@pytest.mark.parametrize(
    ("answerable", "text", "primary"),
    [
        (False, REFUSAL, 1.0),
        (False, "150", 0.0),
        (False, "", 0.0),
        (True, REFUSAL, 0.0),
        (True, "  ", 0.0),
        (True, "150 ulcers (25.2%)", 1.0),
        (True, "150 ulcers", 0.8),
    ],
)
def test_primary(answerable: bool, text: str, primary: float) -> None:
    assert score(question(answerable), answer(text), REFUSAL).primary == pytest.approx(primary)


def test_score_holds_what_applies_and_nothing_else() -> None:
    right = score(question(), answer("150 ulcers"), REFUSAL)
    assert set(right.metrics) == set(METRICS)
    assert right.metrics["refusal_right"] == 1
    assert right.metrics["evidence_support"] == 1
    declined = score(question(answerable=False, passage="p"), answer("", "length"), REFUSAL)
    assert "token_f1" not in declined.metrics
    assert "false_refusal" not in declined.metrics
    assert declined.metrics["refusal_right"] == 0
    assert (declined.metrics["truncated"], declined.metrics["empty"]) == (1, 1)
    assert declined.metrics["cut_or_empty"] == 1
    assert (declined.metrics["answerable"], declined.metrics["closed_book"]) == (0, 0)


@given(st.text(max_size=80), st.booleans(), st.sampled_from(["stop", "length"]))
def test_every_metric_of_any_text_is_in_range(text: str, answerable: bool, finish: str) -> None:
    result = score(question(answerable), answer(text, finish), REFUSAL)
    assert all(0 <= value <= 1 for value in (result.primary, *result.metrics.values()))


def test_long_texts_do_not_blow_up() -> None:
    assert not metrics.is_refusal("not " * 20_000, REFUSAL)
