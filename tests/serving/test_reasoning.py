"""Exam, retention suite, chat and server handle reasoning before an answer alike, as the recipe says."""

from __future__ import annotations

import pytest

from support.reciting_model import make_reciting_model
from support.tuned_run import make_tuned_run
from tunewright.chat.models import ChatModels
from tunewright.evaluation.answering import all_answers
from tunewright.metrics import score
from tunewright.models.model_pool import ModelWeights
from tunewright.models.student import student_tokenizer
from tunewright.recipe import load_recipe
from tunewright.records import Question, RetentionItem
from tunewright.serving.app import completion
from tunewright.serving.requests import ChatRequest
from tunewright.serving.served_model import ServedModel
from tunewright.serving.transformers_engine import transformers_engine

REASONED = "<think>hard</think>42"
ITEM = RetentionItem(id="f", kind="format", topic="one_of", text="?", checks=({"kind": "one_of", "texts": ["42"]},))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reasoning")
    return make_tuned_run(folder / "run", make_reciting_model(folder / "student", REASONED, ("<think>", "</think>")), 0)


@pytest.mark.parametrize(("reasoning", "expected"), [("strip", "42"), ("keep", REASONED)])
def test_reasoning_is_stripped_or_kept_everywhere(run, tmp_path, reasoning, expected):
    recipe = load_recipe(run.file("recipe.toml"), [f"training.reasoning={reasoning}"])
    adapter, questions = run.file("adapter"), run.read_records("exam.jsonl", Question)
    weights = {"base": ModelWeights.of(recipe), "tuned": ModelWeights.of(recipe, adapter)}
    answers, retained = all_answers(run.journal("again.journal"), recipe, questions, weights, [ITEM])
    assert {answer.text for answer in answers} == {expected}
    assert [(answer.text, answer.value) for answer in retained] == [(expected, 1.0)] * 2
    assert all(answer.num_tokens > 2 for answer in answers)  # the reasoning counts as tokens, and not as the answer
    scores = {score(questions[0].model_copy(update={"gold": "42"}), a, recipe.refusal).primary for a in answers}
    assert scores == {1.0}

    models = ChatModels(recipe, adapter)
    assert "".join(models.answer("tuned", models.prompt_ids("tuned", "What?", []))) == expected

    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": "What?"}], "max_tokens": 12})
    with transformers_engine(recipe, adapter) as engine:
        served = ServedModel(engine, student_tokenizer(recipe), recipe.system_prompt, reasoning == "strip")
        reply = completion("name", 1, list(served.answer(served.prompt_ids(request), request)))
    assert reply["choices"][0]["message"]["content"] == expected
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["completion_tokens"] > 2
