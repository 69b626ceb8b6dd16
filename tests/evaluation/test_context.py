"""Every prompt is measured against the model's context: what gives way, in which order, and what is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tunewright.errors import StageError
from tunewright.evaluation.answering import question_jobs
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.models.student import student_tokenizer
from tunewright.recipe import Recipe, parse_recipe
from tunewright.records import Message, Question, Sample
from tunewright.synthesis.exam import TOO_LONG, without_too_long

CONTEXT, ANSWER = 256, 16
SHOTS = tuple(
    Sample(
        id=str(n),
        task="own",
        messages=(Message(role="user", content=f"Which shot {n} ?"), Message(role="assistant", content="The group .")),
    )
    for n in range(8)
)


@pytest.fixture(scope="module")
def recipe(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("context") / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": CONTEXT}))
    return parse_recipe(
        {"model": {"base": str(folder), "quantization": "none"}, "evaluation": {"max_new_tokens": ANSWER}}, folder
    )


def question(text: str, passage: str | None = None, gold: str = "The group .") -> Question:
    return Question(
        id=text[:9], ring="learned", document="d", question=text, gold=gold, answerable=True, passage=passage
    )


def prompts(recipe: Recipe, arm: str, asked: Question, num_shots: int = 0, passages: tuple[str, ...] = ()) -> str:
    weights, pool = {arm: ModelWeights.of(recipe)}, ModelPool()
    shown = {arm: lambda question: passages} if passages else {}
    shots = {arm: lambda text: SHOTS[:num_shots]} if num_shots else {}
    [(_, job)] = question_jobs(recipe, [asked], weights, pool, shots, shown)[arm]
    assert len(job.prompt_ids) + max(ANSWER, len(job.gold_ids), len(job.contrast_ids)) <= CONTEXT
    return student_tokenizer(recipe).decode(job.prompt_ids)


def test_the_first_examples_give_way_and_it_is_said(recipe: Recipe, capsys) -> None:
    asked = question("Which group ? " * 8)
    text = prompts(recipe, "few-shot", asked, num_shots=8)
    shown = [n for n in range(8) if f"shot {n}" in text]
    assert 0 < len(shown) < 8 and shown == list(range(8 - len(shown), 8))
    assert "few-shot: 1 of 1 prompts show fewer examples or passages" in " ".join(capsys.readouterr().err.split())
    assert "shot 0" in prompts(recipe, "few-shot", question("Which ?"), num_shots=1)
    assert capsys.readouterr().err == ""


def test_the_last_passages_give_way_after_the_examples(recipe: Recipe) -> None:
    passages = tuple(f"Passage {n} . " + "It had lower risk . " * 4 for n in range(9))
    text = prompts(recipe, "rag", question("Which ?"), num_shots=3, passages=passages)
    shown = [n for n in range(9) if f"Passage {n}" in text]
    assert 0 < len(shown) < 9 and shown == list(range(len(shown)))
    assert "shot" not in text


def test_a_question_that_does_not_fit_is_named(recipe: Recipe) -> None:
    for asked in (
        question("Which copper river ? " * 400),
        question("Short passage ?", passage="It had lower risk . " * 400),
        question("Long gold ?", gold="The group . " * 400),
    ):
        with pytest.raises(StageError, match="does not fit the context") as caught:
            prompts(recipe, "base", asked, num_shots=8)
        assert asked.id in caught.value.cause


def test_it_is_left_out_of_the_exam_before_any_training(recipe: Recipe, capsys) -> None:
    good = question("Which group ?")
    bad = [question("Copper river ? " * 400), question("Long gold ?", gold="The group . " * 400)]
    bad.append(question("Passage ?", passage="It had lower risk . " * 400))
    bad.append(question("x" * 200_000))
    kept, rejections = without_too_long([bad[0], good, *bad[1:]], recipe)
    assert kept == [good]
    assert [(r.id, r.reason) for r in rejections] == [(asked.id, TOO_LONG) for asked in bad]
    assert all("in a context of 256" in rejection.detail for rejection in rejections)
    assert "Copper river" in capsys.readouterr().err
