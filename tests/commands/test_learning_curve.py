"""The learning curve: nested parts of the data, one exam, a forecast that says how uncertain it is."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.finished_training import own_recipe
from tunewright import pipeline
from tunewright.commands import learning_curve
from tunewright.commands.learning_curve import draw_curve
from tunewright.errors import UserError
from tunewright.evaluation import answering
from tunewright.records import Sample
from tunewright.reporting.learning_curve import LearningCurve, curve_sentences, forecast
from tunewright.run_folder import RunFolder
from tunewright.training import loop
from tunewright.training.dataset import nested

pytestmark = pytest.mark.slow


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(0, 3))
def test_smaller_parts_lie_within_larger_ones_and_take_of_every_kind(kinds, seed):
    items = list(enumerate(kinds))
    parts = [nested(items, percent, seed, lambda i: str(i[0]), lambda i: i[1]) for percent in (25, 50, 100)]
    assert set(parts[0]) <= set(parts[1]) <= set(parts[2])
    assert parts[2] == items
    for percent, part in zip((25, 50), parts, strict=False):
        assert part == sorted(part)
        for kind in set(kinds):
            share = sum(i[1] == kind for i in part) - percent / 100 * kinds.count(kind)
            assert 0 <= share < 1


def sheets(slope, bend=0.0, noise=0.0, number=60):
    rng = random.Random(7)
    documents = {f"q{n}": f"d{n // 3}" for n in range(number)}
    found = []
    for x in (-2, -1, 0):
        found.append({q: 0.5 + slope * x + bend * x * x + rng.gauss(0, noise) for q in documents})
    return found, documents


def test_the_forecast_is_the_line_of_least_squares_through_the_means():
    found, documents = sheets(0.07, noise=0.2)
    ahead = forecast([25, 50, 100], found, documents)
    means = [np.mean(list(sheet.values())) for sheet in found]
    slope, level = np.polyfit([-2, -1, 0], means, 1)
    assert ahead.doubling.mean == pytest.approx(slope)
    assert ahead.score.mean == pytest.approx(level + slope)
    assert ahead.score.low < ahead.score.mean < ahead.score.high
    assert ahead.samples == 200
    uneven = forecast([30, 50, 110], found, documents)
    slope, level = np.polyfit(np.log2(np.array([30, 50, 110]) / 110), means, 1)
    assert uneven.score.mean == pytest.approx(level + slope)


def test_the_band_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        documents = {f"q{n}": f"d{n // 3}" for n in range(30)}
        own = {d: rng.normal(0, 0.1) for d in documents.values()}
        steeper = {d: rng.normal(0.05, 0.05) for d in documents.values()}
        found = [
            {q: 0.4 + own[d] + steeper[d] * x + rng.normal(0, 0.1) for q, d in documents.items()} for x in (-2, -1, 0)
        ]
        ahead = forecast([25, 50, 100], found, documents).score
        held += ahead.low <= 0.45 <= ahead.high
    assert 0.91 < held / 300 < 0.985


def test_a_bent_curve_and_a_flat_one_are_called_so():
    def sentences(*shape):
        found, documents = sheets(*shape)
        return " ".join(
            curve_sentences(LearningCurve(exam="", parts=(), forecast=forecast([25, 50, 100], found, documents)))
        )

    assert "the straight line does not hold" in sentences(0.05, -0.08, 0.01)
    assert "changed the score less than the first" in sentences(0.05, -0.08, 0.01)
    assert "the straight line does not hold" not in sentences(0.05, 0.0, 0.05)
    assert "does not show that more data helps" in sentences(0.0, 0.0, 0.1)
    assert "not as a promise" in sentences(0.05)


def test_parts_of_the_same_size_are_refused():
    found, documents = sheets(0.1)
    with pytest.raises(ValueError, match="differ in size"):
        forecast([5, 5, 10], found, documents)


@pytest.mark.slow
def test_the_command_trains_the_parts_once_and_puts_the_curve_into_the_report(tiny_model, tmp_path, monkeypatch):
    recipe = own_recipe(tmp_path, tiny_model)
    run = pipeline.run(recipe, tmp_path / "run")
    assert "the learning curve: adapters on" in run.file("report.html").read_text()
    step, answer = loop.optimizer_step, answering.answer_or_halve
    steps, asked = [], []

    def dies(*arguments):
        steps.append(1)
        if len(steps) == 5:
            raise RuntimeError("the machine went down")
        return step(*arguments)

    def count(model, jobs, *rest):
        asked.append(len(jobs))
        return answer(model, jobs, *rest)

    monkeypatch.setattr(loop, "optimizer_step", dies)
    monkeypatch.setattr(answering, "answer_or_halve", count)
    with pytest.raises(RuntimeError, match="went down"):
        draw_curve(recipe, tmp_path / "run")
    curve = draw_curve(recipe, tmp_path / "run")
    # 3 samples make 1 step an epoch, 6 make 2; the fifth step was the third one on half of the data.
    assert len(steps) == 2 + 4 + 1
    assert [(one.percent, one.samples) for one in curve.parts] == [(25, 3), (50, 6), (100, 12)]
    assert sum(asked) == 2 * 12
    parts = [run.file(f"curve/{percent}/train.jsonl").read_text().splitlines() for percent in learning_curve.PARTS]
    assert set(parts[0]) < set(parts[1]) < set(run.file("train.jsonl").read_text().splitlines())
    tuned = next(arm for arm in run.read_json("verdict.json")["results"]["arms"] if arm["arm"] == "tuned")
    assert curve.parts[-1].score.model_dump() == tuned["primary"]
    assert len({one.adapter for one in curve.parts}) == 3
    page = run.file("report.html").read_text()
    assert 'id="curve"' in page
    assert "not as a promise" in page
    assert LearningCurve.model_validate(run.read_json("curve.json")) == curve

    assert draw_curve(recipe, tmp_path / "run") == curve
    assert len(steps) == 7
    assert sum(asked) == 2 * 12
    assert {state.state for state in pipeline.states(run, recipe)} == {"fresh"}

    other = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 1})})
    page = pipeline.run(other, tmp_path / "run").file("report.html").read_text()
    assert 'id="curve"' not in page
    assert "curve.json is of another exam or adapter" in page


@pytest.mark.slow
def test_too_little_data_is_no_curve(tiny_model, tmp_path):
    recipe = own_recipe(tmp_path, tiny_model)
    data = tmp_path / "own.jsonl"
    data.write_text("".join(line + "\n" for line in data.read_text().splitlines()[:2]))
    with pytest.raises(UserError, match="too little training data"):
        draw_curve(recipe, tmp_path / "run")
    assert len(RunFolder.open(tmp_path / "run").read_records("train.jsonl", Sample)) == 2
