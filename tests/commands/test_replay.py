"""Replay: the same ingredients give the same adapter on a CPU, and another one is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from support.exported_run import make_recipe, questions, samples
from tunewright import environment
from tunewright.commands.replay import replay
from tunewright.errors import ExportError, RunFolderError
from tunewright.export.receipt import read_receipt, write_receipt
from tunewright.export.stage import export
from tunewright.recipe import dump_recipe
from tunewright.run_folder import RunFolder
from tunewright.storage import file_digest
from tunewright.training.stage import train_adapter


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    """A run that was really trained, with the record that the pipeline keeps of it."""
    recipe = make_recipe(tiny_model, {"dropout": 0.1})
    run = RunFolder.create(tmp_path_factory.mktemp("replay") / "run")
    run.write("recipe.toml", dump_recipe(recipe))
    run.write_records("train.jsonl", samples())
    run.write_records("exam.jsonl", questions(recipe.refusal))
    train_adapter(run, recipe)
    record = {
        "versions": environment.versions(),
        "machine": environment.machine(),
        "outputs": {"adapter": file_digest(run.file("adapter"))},
    }
    run.write_json("stages/train.json", record)
    return run


@pytest.fixture(scope="module")
def exported(run):
    return export(run, "adapter")


def test_the_same_ingredients_give_the_same_adapter_on_a_cpu(exported, capsys):
    replay(exported / "receipt.json")
    digest = read_receipt(exported)["made_of"]["adapter"]
    assert f"the same adapter: {digest}" in capsys.readouterr().err


def test_other_data_are_named_before_anything_is_trained(run, exported):
    kept = run.file("train.jsonl").read_bytes()
    run.file("train.jsonl").write_bytes(kept + kept.splitlines(keepends=True)[0])
    try:
        with pytest.raises(RunFolderError, match="does not hold the ingredients") as caught:
            replay(exported)
    finally:
        run.file("train.jsonl").write_bytes(kept)
    assert caught.value.cause.startswith("data.train.jsonl was ")


def test_another_setting_is_named_with_both_values(run, exported):
    kept = run.file("recipe.toml").read_text()
    run.write("recipe.toml", kept.replace("learning_rate = 0.01", "learning_rate = 0.02"))
    try:
        with pytest.raises(RunFolderError) as caught:
            replay(exported, run.path)
    finally:
        run.write("recipe.toml", kept)
    assert caught.value.cause == "settings.training.learning_rate was 0.01, it is 0.02"


def test_another_adapter_is_an_error_with_the_first_version_that_differs(run, exported):
    """A receipt of an adapter that another torch made: trained again, the digests differ, and torch is named."""
    content = read_receipt(exported)
    kept = (exported / "receipt.json").read_bytes()
    made_of = json.loads(json.dumps(content["made_of"]))
    made_of["adapter"] = "0" * 64
    made_of["versions"]["torch"] = "1.0"
    facts = {key: value for key, value in content.items() if key not in ("files", "digest")}
    write_receipt(exported, facts | {"made_of": made_of})
    try:
        with pytest.raises(ExportError, match="the adapter differs") as caught:
            replay(exported)
    finally:
        (exported / "receipt.json").write_bytes(kept)
    assert caught.value.cause == f"versions.torch was 1.0, it is {environment.versions()['torch']}"


def test_a_receipt_from_elsewhere_asks_for_the_run(run, tmp_path):
    away = export(run, "adapter", out=tmp_path / "away")
    with pytest.raises(RunFolderError, match="does not name its run") as caught:
        replay(away)
    assert "--dir" in caught.value.hint


def test_a_run_whose_adapter_is_gone_is_replayed(run, exported, monkeypatch, capsys):
    shutil.move(run.file("adapter"), run.file("moved"))
    monkeypatch.setattr("tunewright.commands.replay._train_again", lambda run, recipe: file_digest(run.file("moved")))
    try:
        replay(exported)
    finally:
        shutil.move(run.file("moved"), run.file("adapter"))
    assert "the same adapter" in capsys.readouterr().err


@pytest.mark.parametrize(("machine", "hidden"), [({"device": "cpu"}, True), ({"device": "cuda"}, False), ({}, False)])
def test_the_gpu_is_hidden_only_where_the_receipt_says_that_there_was_none(machine, hidden, exported, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    content = read_receipt(exported)
    changed = {**content, "made_of": {**content["made_of"], "machine": machine}}
    monkeypatch.setattr("tunewright.commands.replay.read_receipt", lambda folder: changed)
    with pytest.raises(RunFolderError, match="nowhere"):
        replay(exported, Path("nowhere"))
    assert (os.environ["CUDA_VISIBLE_DEVICES"] == "") is hidden
