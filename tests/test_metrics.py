import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright import metrics
from tunewright.metrics import METRICS, evidence_support, exact, fuzzy, is_refusal, score, token_f1
from tunewright.records import Answer, Question, Score, Span
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
    # 2 shared of 4 answered and 2 expected: precision 1/2, recall 1.
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
    assert set(right.metrics) == set(METRICS) - {"refusal_recall"}
    declined = score(question(answerable=False), answer(REFUSAL), REFUSAL)
    assert declined.metrics["refusal_recall"] == 1 and "false_refusal" not in declined.metrics
    assert score(question(answerable=False), answer("150 ulcers"), REFUSAL).metrics["refusal_recall"] == 0
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


TRIAGE = {"severity": "SEV2", "component": None, "customer_impact": "nobody could pay", "count": 1}


def structured_score(text: str, finish: str = "stop") -> Score:
    return score(question(gold=json.dumps(TRIAGE)), answer(text, finish), REFUSAL)


@pytest.mark.parametrize(
    ("change", "form", "match"),
    [
        ({}, 1, 1.0),
        ({"customer_impact": "  Nobody could  pay"}, 1, 1.0),
        ({"count": 1.0}, 1, 1.0),
        ({"severity": "SEV1"}, 1, 0.75),
        ({"component": "null"}, 1, 0.75),  # the word is not the value
        ({"count": True}, 1, 0.75),
        ({"severity": None, "component": "payments", "customer_impact": None, "count": None}, 1, 0.0),
        ({"extra": 1}, 0, 1.0),
        ({"severity": ["SEV2"]}, 1, 0.75),
    ],
)
def test_fields_that_match(change: dict[str, object], form: int, match: float) -> None:
    result = structured_score(json.dumps(TRIAGE | change))
    assert (result.metrics["format"], result.metrics["label_match"], result.primary) == (form, match, match)
    assert result.metrics["unparsable"] == 0
    by_field = [value for name, value in result.metrics.items() if name.startswith("label_match:")]
    assert len(by_field) == 4
    assert sum(by_field) / 4 == match


def test_a_missing_field_is_not_null() -> None:
    result = structured_score('{"severity": "SEV2"}')
    assert (result.primary, result.metrics["format"], result.metrics["label_match:component"]) == (0.25, 0, 0)


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ("", "stop"),
        (REFUSAL, "stop"),
        ("SEV2", "stop"),
        ('["SEV2"]', "stop"),
        ('{"severity": "SEV2", "comp', "length"),
        (json.dumps(TRIAGE), "length"),
        ("Here it is: " + json.dumps(TRIAGE), "stop"),
        ('{"severity": "SEV1", "severity": "SEV2"}', "stop"),
        ('{"a":' * 5000, "stop"),
    ],
)
def test_what_is_no_object_or_cut_scores_nothing_and_is_counted(text: str, finish: str) -> None:
    result = structured_score(text, finish)
    assert result.primary == 0
    assert {result.metrics[name] for name in ("format", "label_match", "label_match:severity")} == {0}
    assert result.metrics["unparsable"] == 1


def test_a_code_block_is_read_but_is_not_the_format() -> None:
    result = structured_score(f"```json\n{json.dumps(TRIAGE)}\n```")
    assert (result.primary, result.metrics["format"], result.metrics["unparsable"]) == (1, 0, 0)


def test_an_object_is_no_refusal_whatever_its_values_say() -> None:
    result = structured_score(json.dumps(TRIAGE | {"customer_impact": "The text does not mention it."}))
    assert (result.metrics["refusal"], result.metrics["false_refusal"], result.metrics["refusal_right"]) == (0, 0, 1)
    assert structured_score(REFUSAL).metrics["false_refusal"] == 1


@pytest.mark.parametrize("gold", ["plain words", "{}", "[1]", "3", '{"a": 1', '{"a": 1} and more'])
def test_other_golds_are_scored_as_before(gold: str) -> None:
    result = score(question(gold=gold), answer("150 ulcers"), REFUSAL)
    assert set(result.metrics) == set(METRICS) - {"refusal_recall"}
    assert result.primary == token_f1("150 ulcers", gold)


def test_an_unanswerable_question_is_about_declining_even_with_an_object_as_gold() -> None:
    unanswerable = question().model_copy(update={"gold": '{"a": 1}', "answerable": False})
    assert score(unanswerable, answer(REFUSAL), REFUSAL).primary == 1
    assert score(unanswerable, answer('{"a": 1}'), REFUSAL).primary == 0


@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5), min_size=1)
)
def test_the_gold_itself_is_right_in_every_field(gold: dict[str, object]) -> None:
    text = json.dumps(gold)
    result = score(question(gold=text), answer(text), REFUSAL)
    assert result.primary == result.metrics["format"] == 1


@pytest.mark.parametrize(
    ("text", "finish", "cut"),
    [
        ("The risk was", "length", 1.0),
        ("The risk was", "stop", 0.0),
        ("the the the the the the the the the the the", "length", 0.0),  # twice the gold and more: rambling
        ("", "length", 0.0),
        ("<think>First, the risk was said to be halved, and then", "length", 1.0),  # the answer is still to come
        ("<think>It was halved, it says, in the table on nurses.</think>It", "length", 1.0),
        ("<think>So.</think>the the the the the the the the the the the", "length", 0.0),
    ],
)
def test_an_answer_is_cut_short_where_more_tokens_could_make_it_right(text: str, finish: str, cut: float) -> None:
    content = {"id": "q", "ring": "learned", "document": "d", "question": "What?", "answerable": True}
    cost = {"num_prompt_tokens": 1, "num_tokens": 1, "duration_s": 0.1, "gold_nll": 1.0}
    answer = Answer(question="q", arm="tuned", text=text, finish=finish, **cost)
    assert score(Question(**content, gold="It was halved."), answer, "No.").metrics["cut_short"] == cut
