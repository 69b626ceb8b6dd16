"""Arms compared on request: adapters and bases by path, under unique names, without effect on the verdict."""

import json
import shutil

import pytest

from support.finished_training import own_recipe
from tunewright import pipeline
from tunewright.errors import UserError
from tunewright.evaluation import answering
from tunewright.evaluation.extra_arms import extra_arms
from tunewright.evaluation.verdict import Verdict
from tunewright.storage import file_digest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tiny_model, tmp_path_factory):
    """Two runs called "run" in two folders, and one that trained every weight."""
    from support.tiny import make_model

    folder = tmp_path_factory.mktemp("home")
    full = {"method": "full", "learning_rate": 0.003}
    for name, sections in (("one", {}), ("two", {"training": {"epochs": 1}}), ("whole", {"training": full})):
        pipeline.run(own_recipe(folder / name, tiny_model, **sections), folder / name / "run", until="train")
    make_model(folder / "other model", seed=5)
    return folder


def with_compared(home, tiny_model, *paths):
    return own_recipe(home / "one", tiny_model, evaluation={"compare": [str(path) for path in paths]})


def verdict_of(run):
    return Verdict.model_validate(run.read_json("verdict.json"))


@pytest.mark.slow
def test_each_gets_its_row_and_difference_and_none_changes_the_verdict(home, tiny_model, tmp_path, monkeypatch):
    alone = verdict_of(pipeline.run(with_compared(home, tiny_model), home / "one/run"))
    num_jobs = []
    answer = answering.answer_or_halve
    monkeypatch.setattr(
        answering,
        "answer_or_halve",
        lambda model, jobs, *rest: num_jobs.append(len(jobs)) or answer(model, jobs, *rest),
    )
    bare = tmp_path / "bare"
    shutil.copytree(home / "two/run/adapter", bare)
    recipe = with_compared(home, tiny_model, home / "two/run", home / "other model", bare)
    run = pipeline.run(recipe, home / "one/run")
    verdict = verdict_of(run)
    assert (verdict.name, verdict.why[: len(alone.why)]) == (alone.name, alone.why)
    assert [arm.arm for arm in verdict.results.arms] == ["base", "few-shot", "tuned", "run", "other-model", "bare"]
    assert [(d.first, d.second) for d in verdict.results.compared] == [
        ("tuned", "run"),
        ("tuned", "other-model"),
        ("tuned", "bare"),
    ]
    assert all(d.p_holm >= d.interval.p for d in verdict.results.compared)
    assert verdict.rule["compared"] == ["run", "other-model", "bare"]
    assert sum(num_jobs) == 2 * verdict.results.num_questions  # "bare" is "run" once more
    report = run.file("report.html").read_text()
    assert "Compared on request" in report
    assert "tuned − other-model" in report
    assert (
        "Compared on request"
        not in pipeline.run(with_compared(home, tiny_model), run.path).file("report.html").read_text()
    )


@pytest.mark.slow
def test_the_exam_is_answered_again_when_a_compared_adapter_changed(home, tiny_model, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(home / "two/run/adapter", bare)
    recipe = with_compared(home, tiny_model, bare)
    run = pipeline.run(recipe, home / "one/run", until="evaluate")
    before = run.read_json("stages/evaluate.json")["fingerprint"]
    pipeline.run(recipe, home / "one/run", until="evaluate")
    assert run.read_json("stages/evaluate.json")["fingerprint"] == before
    shutil.copy(home / "one/run/adapter/adapter_model.safetensors", bare)
    pipeline.run(recipe, home / "one/run", until="evaluate")
    difference = verdict_of(run).results.compared[0]
    assert difference.interval.mean == 0
    assert run.read_json("stages/evaluate.json")["fingerprint"] != before


def test_names_are_unique_and_never_those_of_the_arms(home, tiny_model, tmp_path):
    for name in ("base", "Tuned", "a b", "a-b", "deep/adapter"):
        shutil.copytree(home / "two/run/adapter", tmp_path / name)
    names = ("base", "Tuned", "a b", "a-b", "deep/adapter")
    recipe = with_compared(home, tiny_model, home / "two/run", *(tmp_path / name for name in names), "embedded")
    names_of_arms = [arm.name for arm in extra_arms(recipe)]
    assert names_of_arms == ["run", "base-2", "Tuned-2", "a-b", "a-b-2", "deep", "SmolLM2-135M-Instruct"]


def refused(home, tiny_model, path):
    with pytest.raises(UserError) as error:
        pipeline.run(with_compared(home, tiny_model, path), home / "one/run", until="evaluate")
    return str(error.value)


def test_what_cannot_answer_the_exam_is_refused_with_the_reason(home, tiny_model, tmp_path):
    assert "the folder does not exist" in refused(home, tiny_model, "./nowhere")
    assert "cannot answer the exam" in refused(home, tiny_model, tmp_path)
    assert f"--compare {home / 'whole/run/adapter'}" in refused(home, tiny_model, home / "whole/run")
    untrained = tmp_path / "untrained"
    shutil.copytree(home / "two/run", untrained, ignore=shutil.ignore_patterns("adapter"))
    assert "has no adapter to compare" in refused(home, tiny_model, untrained)
    foreign = tmp_path / "foreign"
    shutil.copytree(home / "two/run", foreign)
    text = (foreign / "recipe.toml").read_text()
    (foreign / "recipe.toml").write_text(text.replace(json.dumps(str(tiny_model)), '"owner/other-7b"'))
    message = refused(home, tiny_model, foreign)
    assert "trained on owner/other-7b" in message
    assert str(tiny_model) in message
    config = json.loads((foreign / "adapter/adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(home / "other model")
    (foreign / "adapter/adapter_config.json").write_text(json.dumps(config))
    assert f"trained on {home / 'other model'}" in refused(home, tiny_model, foreign / "adapter")


def test_a_whole_tuned_model_is_compared_as_another_base(home, tiny_model):
    recipe = with_compared(home, tiny_model, home / "whole/run/adapter")
    run = pipeline.run(recipe, home / "one/run", until="evaluate")
    assert verdict_of(run).results.arm("run") is not None


def test_a_report_is_written_again_although_the_compared_adapter_is_gone(home, tiny_model, tmp_path):
    from tunewright.commands import status

    bare = tmp_path / "bare"
    shutil.copytree(home / "two/run/adapter", bare)
    run = pipeline.run(with_compared(home, tiny_model, bare), home / "one/run")
    shutil.rmtree(bare)
    run.file("report.html").unlink()
    status.show_report(run)
    assert "tuned − bare" in run.file("report.html").read_text()


def test_the_flag_is_the_setting(home, tiny_model, tmp_path, monkeypatch, capsys):
    from tunewright.cli import main
    from tunewright.recipe import dump_recipe, load_recipe

    path = tmp_path / "recipe.toml"
    path.write_text(dump_recipe(with_compared(home, tiny_model)))
    monkeypatch.chdir(home)
    adapter = file_digest(home / "one/run/adapter")
    with pytest.raises(SystemExit) as left:
        main(["evaluate", str(path), "--dir", "one/run", "--compare", "two/run", "--compare", "other model"])
    assert left.value.code == 0
    assert load_recipe(home / "one/run/recipe.toml").evaluation.compare == (
        str(home / "two/run"),
        str(home / "other model"),
    )
    assert file_digest(home / "one/run/adapter") == adapter
    with pytest.raises(SystemExit) as left:
        main(["evaluate", str(path), "--dir", "one/run", "--compare", "two/nowhere"])
    assert left.value.code == 1
    assert "the folder does not exist" in capsys.readouterr().err
