"""How long the exam takes, as the plan says it: it follows from the lengths of prompts and answers, or from a preview."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from own_exam import RESULTS, rows, scored_as_people_would, write

from tunewright.commands.plan_answers import ExamLengths, answers_seconds, exam_lengths
from tunewright.commands.plan_sizes import count_sizes
from tunewright.commands.preview import summarize
from tunewright.models.answer_time import Answering, answering_seconds
from tunewright.models.hardware import Shape
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Answer, Score
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import EvaluationSettings, ExamSettings
from tunewright.synthesis.own_exam import read_own_exam

SMALL = Shape.of(
    {"hidden_size": 576, "num_hidden_layers": 30, "vocab_size": 49152, "intermediate_size": 1536,
     "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
)  # fmt: skip
LARGE = Shape.of(
    {"hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128256, "intermediate_size": 14336,
     "num_attention_heads": 32, "num_key_value_heads": 8}
)  # fmt: skip
RECIPE = Recipe(exam=ExamSettings(retention_items=0), evaluation=EvaluationSettings(max_new_tokens=64, few_shot=3))


def seconds(lengths: ExamLengths, shape: Shape = SMALL, processors: float = 1.0, **arms: int) -> float:
    named = {arm.replace("_", "-"): num for arm, num in arms.items()}
    return answers_seconds(RECIPE, named, lengths, shape, 4e11, processors) - 4.0  # loading


def test_the_time_grows_with_answers_prompts_and_model_and_falls_with_processors() -> None:
    usual = ExamLengths(question=60, gold=8, sample=50)
    base = seconds(usual, base=480)
    assert seconds(usual, base=960) == pytest.approx(2 * base)
    assert seconds(replace(usual, question=600), base=480) > 3 * base
    assert seconds(usual, LARGE, base=480) > 30 * base
    assert seconds(usual, processors=2.0, base=480) == pytest.approx(base / 2)
    assert seconds(usual, tuned=480) < 0.8 * base  # it learned where to end
    # The examples of few-shot are the same for all, and are read once per batch; those of similar-shot are not.
    assert seconds(usual, few_shot=480) < 0.7 * seconds(usual, similar_shot=480)


def test_a_batch_takes_its_longest_answer() -> None:
    short, one_long = (answering_seconds(Answering(48, 60, 0, 8, longest), 48, SMALL, 4e11) for longest in (8, 64))
    assert one_long > short + 56 * 0.02


def test_what_a_preview_measured_replaces_the_prediction(tmp_path) -> None:
    run = RunFolder.create(tmp_path / "run")
    path, _ = write(tmp_path / "own", 50)
    recipe = load_recipe(path)
    sizes = count_sizes(recipe, run)
    before = exam_lengths(recipe, run, sizes)
    assert not before.measured and 10 < before.question < 40 and 3 < before.gold < 20 and 20 < before.sample < 80
    scores = [Score(question=f"q{n}", arm="base", ring="learned", document=f"d{n}", primary=0, metrics={})
              for n in range(12)]  # fmt: skip
    answers = [Answer(question=f"q{n}", arm="base", text="", finish="stop", num_prompt_tokens=9, num_tokens=1,
                      duration_s=3.0, gold_nll=1) for n in range(12)]  # fmt: skip
    run.write(RunFile.PREVIEW, summarize(scores, answers, 0.1, recipe.model.base).model_dump_json())
    after = exam_lengths(recipe, run, sizes)
    assert seconds(after, base=100) == pytest.approx(300) != pytest.approx(seconds(before, base=100))
    run.write(RunFile.PREVIEW, summarize(scores, answers, 0.1, "larger/model").model_dump_json())
    assert not exam_lengths(recipe, run, sizes).measured


def test_an_exam_of_a_users_own_is_read_and_scored_as_a_person_would(tmp_path) -> None:
    path, exam = write(tmp_path, 200)
    questions, rejected = read_own_exam(path.parent / "exam.csv", load_recipe(path).refusal, {}, {})
    assert len(questions) == 200 and not rejected
    assert {row.kind for row in rows(20)} == {"short", "list", "declined", ""}
    result = scored_as_people_would(questions, exam)
    assert result["answers"] > 700 and result["examples"] == []


def test_the_record_holds_a_thousand_rows_scored_as_people_would_in_the_time_that_was_planned() -> None:
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert record["rows"] == record["read"] == 1000
    assert record["scored"]["answers"] > 3500 and record["scored"]["different"] == 0
    assert abs(record["evaluation"]["off"]) <= 0.25
