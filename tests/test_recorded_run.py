"""A run of version 0.1 is fresh up to its evaluation, reports the same, verifies and trains the same under the code of today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from support import recorded_run
from tunewright import pipeline
from tunewright.errors import RecipeError
from tunewright.evaluation.rule import RULE_VERSION
from tunewright.evaluation.verdict import Verdict
from tunewright.export.receipt import verify
from tunewright.recipe import load_recipe
from tunewright.records import Answer
from tunewright.run_folder import RunFolder
from tunewright.storage import file_digest
from tunewright.training.stage import train_adapter


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return recorded_run.unpack(tmp_path_factory.mktemp("recorded"))


def numbers(page: str) -> list[str]:
    """Return every number that a page shows, in order, without those of its style."""
    text = re.sub(r"<style.*?</style>", "", page, flags=re.S)
    return re.findall(r"\d+(?:\.\d+)?", re.sub(r"<[^>]*>", " ", text))


def stale(run: RunFolder) -> dict[str, str]:
    recipe = load_recipe(run.file("recipe.toml"))
    return {state.stage.name: state.why for state in pipeline.states(run, recipe) if state.state != "fresh"}


def test_only_the_evaluation_by_a_newer_rule_is_stale_and_it_asks_again_where_the_search_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded_run.unpack(tmp_path)
    recipe = load_recipe(run.file("recipe.toml"))
    recorded_run.answer_as_recorded(run, monkeypatch)
    assert stale(run) == {"evaluate": "sentence model, version changed", "report": "version changed"}

    def kept() -> list[Answer]:
        """The answers whose prompts no search shapes: the index of today ranks other passages."""
        return [a for a in run.read_records("answers.jsonl", Answer) if a.arm not in ("rag", "tuned+rag")]

    before, unchanged = kept(), ("kept-answers.jsonl", "adapter", "train.jsonl")
    answered = {name: file_digest(run.file(name)) for name in unchanged}
    pipeline.run(recipe, run.path)
    assert {name: file_digest(run.file(name)) for name in unchanged} == answered
    assert kept() == before
    verdict = Verdict.model_validate_json(run.file("verdict.json").read_text(encoding="utf-8"))
    assert verdict.rule["version"] == RULE_VERSION
    assert "The rule was changed after answers existed: version was 3 and is 5." in verdict.rule_changes

    assert stale(run) == {}  # and running it again does nothing
    before = {path: file_digest(path) for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}
    pipeline.run(recipe, run.path)
    after = {path: file_digest(path) for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after


def test_a_recipe_of_0_1_outside_of_a_run_names_what_took_the_place_of_each_setting(
    run: RunFolder, tmp_path: Path
) -> None:
    path = tmp_path / "old.toml"
    path.write_text(run.file("recipe.toml").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    cause = caught.value.cause
    assert "teacher.price_prompt: no longer a setting; use teacher.price = [PROMPT, COMPLETION]" in cause
    assert "documents.timeout_s" in cause and "training.activation_checkpointing" in cause


def test_a_setting_with_a_new_name_is_read_by_its_old_name_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.toml"
    path.write_text("[exam]\nkept = 7\n[split]\nnear_duplicate = 0.5\n", encoding="utf-8")
    recipe = load_recipe(path)
    assert (recipe.exam.retention_items, recipe.curation.near_duplicate) == (7, 0.5)
    warnings = capsys.readouterr().err
    assert "exam.kept is called exam.retention_items now" in warnings
    assert "split.near_duplicate is called curation.near_duplicate now" in warnings


def test_its_exports_verify(run: RunFolder) -> None:
    exports = sorted(path.name for path in run.file("exports").iterdir() if path.is_dir())
    assert exports == ["adapter", "gguf-adapter-f16", "gguf-f16"]
    for name in exports:
        assert verify(run.file("exports") / name)["files"]


def test_its_verdict_and_report_have_the_same_numbers(run: RunFolder, tmp_path: Path) -> None:
    verdict = run.file("verdict.json").read_text(encoding="utf-8")
    assert Verdict.model_validate_json(verdict).name == "INVALID"
    assert Verdict.model_validate_json(verdict).rule["version"] == 3
    recorded = numbers(run.file("report.html").read_text(encoding="utf-8"))
    recipe = load_recipe(run.file("recipe.toml"))
    run.file("report.html").unlink()
    pipeline.run(recipe, run.path, only=("report",))
    again = numbers(run.file("report.html").read_text(encoding="utf-8"))
    recorded_set, again_set = [sorted(set(page)) for page in (recorded, again)]
    assert [n for n in recorded_set if n not in again_set and not n.isdigit()] == []
    assert "Version 3 of the rule gave this verdict" in run.file("report.html").read_text(encoding="utf-8")


def test_training_again_gives_the_same_adapter(tmp_path: Path) -> None:
    run = recorded_run.unpack(tmp_path)
    recorded = load_file(run.file("adapter/adapter_model.safetensors"))
    again = RunFolder.create(tmp_path / "again")
    again.write("train.jsonl", run.file("train.jsonl").read_bytes())
    train_adapter(again, load_recipe(run.file("recipe.toml")))
    trained = load_file(again.file("adapter/adapter_model.safetensors"))
    assert trained.keys() == recorded.keys()
    for name, weights in trained.items():  # bit for bit on the machine that recorded it; elsewhere sums differ
        assert (weights - recorded[name]).norm() < 0.1 * recorded[name].norm(), name


def test_its_recipe_opens_although_a_section_of_today_is_missing(tmp_path: Path) -> None:
    run = recorded_run.unpack(tmp_path)
    assert "[retrieval]" not in run.file("recipe.toml").read_text(encoding="utf-8")
    assert load_recipe(run.file("recipe.toml")).retrieval.passages == 1
