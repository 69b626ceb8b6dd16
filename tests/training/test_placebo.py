"""The placebo: the same prompts with each other's answers, trained by the same recipe, only when an arm needs it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.finished_training import own_recipe
from tunewright import pipeline
from tunewright.errors import RecipeError, TrainingError
from tunewright.recipe import parse_recipe
from tunewright.records import Message, PreferencePair, Sample
from tunewright.storage import file_digest
from tunewright.training import loop
from tunewright.training.metrics import read_metrics
from tunewright.training.placebo import donors, shuffled_answers, shuffled_pairs

pytestmark = pytest.mark.slow

ARMS = ["base", "few-shot", "tuned", "placebo"]


@given(st.lists(st.sampled_from("abcdefgh")), st.integers(0, 5))
def test_every_text_is_given_once_and_to_its_equal_only_where_more_than_half_are_equal(texts, seed):
    taken = donors(texts, seed)
    assert sorted(taken) == list(range(len(texts)))
    same = sum(texts[donor] == text for donor, text in zip(taken, texts, strict=True))
    most = max(Counter(texts).values(), default=0)
    assert same == max(0, 2 * most - len(texts))
    assert taken == donors(texts, seed)


def sample(number, task, *turns):
    roles = ("user", "assistant")
    messages = tuple(Message(role=roles[index % 2], content=text) for index, text in enumerate(turns))
    return Sample(id=f"{number:04d}", task=task, messages=messages)


@given(st.lists(st.tuples(st.sampled_from(["free-qa", "refusal", "dialogue"]), st.integers(1, 3)), max_size=20))
def test_answers_stay_within_their_task_and_prompts_where_they_were(shapes):
    samples = [
        sample(n, task, *(text for k in range(turns) for text in (f"q{n} {k}", f"a{n} {k}")))
        for n, (task, turns) in enumerate(shapes)
    ]
    after = shuffled_answers(samples, 3)
    assert [s.id for s in after] == [s.id for s in samples]

    def contents(samples, role, task=None):
        return [m.content for s in samples for m in s.messages if m.role == role and task in (None, s.task)]

    assert contents(after, "user") == contents(samples, "user")
    assert sorted(contents(after, "assistant")) == sorted(contents(samples, "assistant"))
    alone = {task for task in dict(shapes) if len(contents(samples, "assistant", task)) == 1}
    if not alone:
        for task in dict(shapes):
            assert sorted(contents(after, "assistant", task)) == sorted(contents(samples, "assistant", task))
    if len(contents(samples, "assistant")) > 1:
        assert all(x != y for x, y in zip(contents(after, "assistant"), contents(samples, "assistant"), strict=True))


def test_another_seed_shuffles_otherwise():
    samples = [sample(n, "free-qa", f"q{n}", f"a{n}") for n in range(20)]
    assert shuffled_answers(samples, 0) != shuffled_answers(samples, 1)


def test_pairs_move_both_answers_together():
    prompt = (Message(role="user", content="q"),)
    pairs = [PreferencePair(id=str(n), prompt=prompt, chosen=f"c{n}", rejected=f"r{n}") for n in range(9)]
    after = shuffled_pairs(pairs, 0)
    assert all(before.chosen != now.chosen for before, now in zip(pairs, after, strict=True))
    assert all(now.chosen[1:] == now.rejected[1:] for now in after)


@pytest.mark.slow
def test_the_stage_runs_for_its_arm_with_the_same_steps_and_is_evaluated(tiny_model, tmp_path):
    recipe = own_recipe(tmp_path, tiny_model, evaluation={"arms": ARMS})
    run = pipeline.run(own_recipe(tmp_path, tiny_model), tmp_path / "run")
    assert not run.file("placebo").exists()
    adapter = file_digest(run.file("adapter"))
    pipeline.run(recipe, tmp_path / "run")
    assert file_digest(run.file("adapter")) == adapter
    assert file_digest(run.file("placebo/adapter")) != adapter
    steps = [len(read_metrics(run.file(name))) for name in ("metrics.jsonl", "placebo/metrics.jsonl")]
    assert steps[0] == steps[1] > 0
    verdict = run.read_json("verdict.json")
    assert [arm["arm"] for arm in verdict["results"]["arms"]] == ARMS
    assert "Style against knowledge" in run.file("report.html").read_text()
    started = [entry["stage"] for entry in run.journal().entries if entry["event"] == "start"]
    pipeline.run(recipe, tmp_path / "run")
    assert [entry["stage"] for entry in run.journal().entries if entry["event"] == "start"] == started
    assert started.count("train") == 1
    assert started[-3:] == ["placebo", "evaluate", "report"]


def test_a_placebo_that_was_stopped_goes_on_and_ends_the_same(tiny_model, tmp_path, monkeypatch):
    recipes = [own_recipe(tmp_path / name, tiny_model, evaluation={"arms": ARMS}) for name in ("one", "two")]
    whole = pipeline.run(recipes[0], tmp_path / "one/run", until="placebo")
    pipeline.run(recipes[1], tmp_path / "two/run", until="train")
    step = loop.optimizer_step
    taken = []

    def dies(*arguments):
        taken.append(1)
        if len(taken) == 4:
            raise RuntimeError("the machine went down")
        return step(*arguments)

    monkeypatch.setattr(loop, "optimizer_step", dies)
    with pytest.raises(RuntimeError, match="went down"):
        pipeline.run(recipes[1], tmp_path / "two/run", until="placebo")
    run = pipeline.run(recipes[1], tmp_path / "two/run", until="placebo")
    assert len(taken) == 4 + 6 - 3  # the checkpoint after an epoch of three steps was gone on from
    assert file_digest(run.file("placebo/adapter")) == file_digest(whole.file("placebo/adapter"))


def test_a_placebo_that_would_be_the_adapter_is_refused(tiny_model, tmp_path):
    recipe = own_recipe(tmp_path, tiny_model, evaluation={"arms": ARMS})
    data = tmp_path / "own.jsonl"
    data.write_text(data.read_text().splitlines()[0] + "\n")
    with pytest.raises(TrainingError, match="would equal the adapter"):
        pipeline.run(recipe, tmp_path / "run", until="placebo")
    with pytest.raises(RecipeError, match="raw text"):
        parse_recipe(
            {"documents": {"paths": ["x"]}, "training": {"text_share": 0.5}, "evaluation": {"arms": ARMS}}, tmp_path
        )
