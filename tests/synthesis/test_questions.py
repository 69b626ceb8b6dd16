from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.synthesis.context import PACKAGE
from tunewright.synthesis.questions import clean_question, sentence_fault, short_title, stand_alone
from tunewright.text.prompts import fill, load_prompt

TITLE = "Validity of using mobile phone surveys to evaluate community health worker program in Mali."


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("What is zinc?", "What is zinc?"),
        ('\n  Question: "What is zinc?"\nAnswer: a metal.', "What is zinc?"),
        ("1. What is zinc?", "What is zinc?"),
        ("- **Q: What is zinc?**", "What is zinc?"),
        ("What is zinc? What is zinc?", "What is zinc?"),
        ("What  is\tzinc?", "What is zinc?"),
        ("Quantum dots: what are they?", "Quantum dots: what are they?"),
        ("  \n ", ""),
    ],
)
def test_a_reply_is_cleaned_to_a_single_question(reply, question):
    assert clean_question(reply) == question


@given(st.text())
def test_cleaning_never_breaks_and_is_done_once(text):
    cleaned = clean_question(text)
    assert "\n" not in cleaned
    assert cleaned == cleaned.strip()


@pytest.mark.parametrize(
    ("title", "short"),
    [
        ("Quality of life in Palestine: a cross-sectional study.", "Quality of life in Palestine"),
        (TITLE, "Validity of using mobile phone surveys to evaluate community health worker program"),
        ("COVID-19: a review", "COVID-19: a review"),
        ("Handbook", "Handbook"),
        ("", ""),
    ],
)
def test_titles_are_shortened(title, short):
    assert short_title(title) == short


def test_a_question_must_be_about_its_sentence():
    sentence = "Of the 157 workers, 115 (73.2%) were reached in person."
    assert sentence_fault("How many workers were reached in person?", TITLE, sentence) is None
    assert sentence_fault("What were the main findings of this study?", TITLE, sentence)
    assert sentence_fault("What is the validity of mobile phone surveys in Mali?", TITLE, sentence)


def test_a_question_without_its_subject_gets_the_title():
    named = 'In "Validity of using mobile phone surveys to evaluate", how many were reached in person?'
    assert stand_alone("How many were reached in person?", TITLE) == named
    last = 'How many were reached in person, according to "Validity of using mobile phone surveys to evaluate"?'
    assert stand_alone("How many were reached in person?", TITLE, at_end=True) == last
    assert stand_alone("NaCl is what?", TITLE).endswith(", NaCl is what?")


def test_a_question_that_names_its_subject_stays():
    question = "How many community workers did mobile surveys reach?"
    assert stand_alone(question, TITLE) == question
    assert stand_alone("What is a handbook for?", "") == "What is a handbook for?"


def test_a_question_that_points_at_its_text_gets_the_title():
    question = "How many community health workers did this survey reach?"
    assert stand_alone(question, TITLE).startswith('In "Validity')


@pytest.mark.parametrize("name", ["answer-first", "exam", "free-qa"])
def test_prompts_are_read_and_filled(name):
    prompt = load_prompt(name, PACKAGE)
    assert [turn.role for turn in prompt[:2]] == ["system", "user"]
    filled = fill(prompt, title="Zinc {sentence}", sentence="It rose.", passage="It rose.", count="3")
    assert "{title}" not in filled[-1].content
    assert "Zinc {sentence}" in filled[-1].content  # what is filled in is not filled in again
    assert filled[:-1] == prompt[:-1]
    assert not any(turn.content.startswith("#") for turn in filled)


def test_training_and_exam_prompts_differ():
    assert load_prompt("answer-first", PACKAGE) != load_prompt("exam", PACKAGE)
