"""Which weights answer for an arm: one base for all of its adapters, other models after it, nothing answered twice."""

import pytest
import torch

from support.finished_training import own_recipe
from tunewright import pipeline
from tunewright.evaluation import answering
from tunewright.evaluation import generation as answer_batches
from tunewright.evaluation.answering import all_answers
from tunewright.models import loading
from tunewright.models.chat_template import encode_prompt
from tunewright.models.loading import load_adapter, pick_device
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.models.student import student_base
from tunewright.recipe import load_recipe
from tunewright.records import Message, Question
from tunewright.run_folder import RunFile, RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """Two trainings of the same base, with different seeds, and a whole tuned model."""
    folder = tmp_path_factory.mktemp("trained")
    full = {"method": "full", "learning_rate": 0.003}
    for name, sections in (("one", {}), ("two", {}), ("whole", {"training": full})):
        recipe = own_recipe(folder / name, tiny_model, **sections)
        recipe = recipe.model_copy(update={"seed": int(name == "two")})
        pipeline.run(recipe, folder / name / "run", until="train")
    return folder


@pytest.fixture
def generated(monkeypatch):
    """The jobs that models were asked, batch by batch, and the models that were loaded."""
    batches, loads = [], []
    answer, base = answering.answer_or_halve, loading.load_base

    def count(model, jobs, *rest):
        batches.append(len(jobs))
        return answer(model, jobs, *rest)

    def note(folder, *rest, **more):
        loads.append(folder)
        return base(folder, *rest, **more)

    monkeypatch.setattr(answering, "answer_or_halve", count)
    monkeypatch.setattr("tunewright.models.student.load_base", note)
    monkeypatch.setattr("tunewright.models.model_pool.load_base", note)
    return batches, loads


def logits(model, tokenizer):
    ids = encode_prompt(tokenizer, [Message(role="user", content="Which group is number 3?")])
    with torch.no_grad():
        return model(torch.tensor([ids])).logits


def test_each_adapter_answers_as_if_it_were_alone_on_the_base(trained, tiny_model):
    recipe = own_recipe(trained / "one", tiny_model)
    folders = [None, trained / "one/run/adapter", trained / "two/run/adapter"]
    memory, results = ModelPool(), []
    for folder in [*folders, *reversed(folders)]:
        weights = ModelWeights.of(recipe, folder)
        with memory.holding(weights) as model:
            results.append(logits(model, memory.tokenizer(weights)))
    tokenizer = memory.tokenizer(ModelWeights.of(recipe))
    for number, folder in enumerate(folders):
        base = student_base(recipe, pick_device(), tokenizer)
        alone = logits(load_adapter(base, folder) if folder else base, tokenizer)
        assert torch.equal(results[number], alone), folder
        assert torch.equal(results[-1 - number], alone), folder
    assert not torch.equal(results[1], results[2])


@pytest.mark.slow
def test_an_arm_more_generates_its_own_answers_alone_and_a_rerun_none(trained, tiny_model, generated):
    batches, loads = generated
    recipe = own_recipe(trained / "one", tiny_model).with_absolute_paths()
    run = pipeline.run(recipe, trained / "one/run", until="evaluate")
    recipe = load_recipe(run.file(RunFile.RECIPE))
    questions = run.read_records("exam.jsonl", Question)
    assert sum(batches) == 3 * len(questions)
    assert len(loads) == 1
    weights = {
        "base": ModelWeights.of(recipe),
        "tuned": ModelWeights.of(recipe, run.file("adapter")),
        "two": ModelWeights.of(recipe, trained / "two/run/adapter"),
        "whole": ModelWeights.of(recipe, trained / "whole/run/adapter"),
    }
    batches.clear()
    first = all_answers(
        run.journal(RunFile.ANSWERS_JOURNAL),
        recipe,
        questions,
        {name: weights[name] for name in ("base", "tuned", "two")},
    )[0]
    assert sum(batches) == len(questions)
    batches.clear()
    more = all_answers(run.journal(RunFile.ANSWERS_JOURNAL), recipe, questions, weights)[0]
    assert sum(batches) == len(questions)
    assert loads[1:] == [tiny_model, trained / "whole/run/adapter"]
    assert more[: len(first)] == first
    assert all_answers(run.journal(RunFile.ANSWERS_JOURNAL), recipe, questions, weights)[0] == more
    assert sum(batches) == len(questions)
    texts = {arm: [answer.gold_nll for answer in more if answer.arm == arm] for arm in weights}
    assert len({tuple(values) for values in texts.values()}) == 4


def test_a_stopped_exam_continues_with_the_missing_batches(trained, tiny_model, tmp_path, generated, monkeypatch):
    batches, _ = generated
    recipe = own_recipe(trained / "one", tiny_model).with_absolute_paths()
    run = RunFolder.open(trained / "one/run")
    questions = run.read_records("exam.jsonl", Question)
    elsewhere = RunFolder.create(tmp_path / "run")
    monkeypatch.setitem(answer_batches.BATCH_SIZE, pick_device().partition(":")[0], 5)
    weights = {"base": ModelWeights.of(recipe), "tuned": ModelWeights.of(recipe, run.file("adapter"))}
    whole = all_answers(elsewhere.journal(RunFile.ANSWERS_JOURNAL), recipe, questions, weights)[0]
    lines = elsewhere.file(RunFile.ANSWERS_JOURNAL).read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    elsewhere.file(RunFile.ANSWERS_JOURNAL).write_bytes(b"".join(lines[:4]) + lines[4][:50])
    batches.clear()
    answers = all_answers(elsewhere.journal(RunFile.ANSWERS_JOURNAL), recipe, questions, weights)[0]
    assert batches == [5, 2]
    assert [answer.text for answer in answers] == [answer.text for answer in whole]
