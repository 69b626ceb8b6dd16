"""The receipt: what it names, what it keeps to itself, and that no byte of an export changes unseen."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.exported_run import adapted_run, make_recipe
from tunewright.cli import main
from tunewright.errors import ExportError, RunFolderError
from tunewright.export.receipt import public_name, training_settings, verify
from tunewright.export.stage import export
from tunewright.storage import file_digest


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    return adapted_run(tmp_path_factory.mktemp("receipt") / "run", make_recipe(tiny_model))


@pytest.fixture(scope="module")
def exported(run):
    return export(run, "merged", dtype="fp32")


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_flipped_byte_in_any_file_is_named_and_refused(copy, where, change):
    for path in sorted(file for file in copy.rglob("*") if file.is_file()):
        content = path.read_bytes()
        index = int(where * len(content))
        path.write_bytes(content[:index] + bytes([content[index] ^ change]) + content[index + 1 :])
        with pytest.raises(ExportError) as caught:
            verify(copy)
        assert path.name in str(caught.value)
        path.write_bytes(content)
    verify(copy)


def test_a_missing_and_an_added_file_are_named(copy):
    (copy / "tokenizer.json").unlink()
    (copy / "more.bin").write_bytes(b"x")
    with pytest.raises(ExportError, match="not what was exported") as caught:
        verify(copy)
    assert caught.value.cause == "tokenizer.json is missing; more.bin was added"


def test_a_folder_without_a_receipt_is_no_export(tmp_path):
    with pytest.raises(RunFolderError, match="is not an export"):
        verify(tmp_path)


def test_the_receipt_names_its_ingredients_and_no_folder_of_this_machine(run, exported):
    receipt = verify(exported)
    made_of = receipt["made_of"]
    assert made_of["adapter"] == file_digest(run.file("adapter"))
    assert made_of["data"]["train.jsonl"] == file_digest(run.file("train.jsonl"))
    assert set(receipt["exam"]) == {"exam.jsonl", "verdict.json"}
    assert made_of["settings"]["training"]["rank"] == 4
    assert receipt["exported_with"]["versions"]["torch"]
    text = json.dumps(receipt)
    assert "/home/someone" not in text
    assert str(run.path) not in text
    assert '"documents"' in receipt["recipe"]


def test_a_public_name_shows_no_folder_of_this_machine():
    names = {
        "/home/me/secret/llama": "llama",
        "~/secret/llama": "llama",
        "~me/llama": "llama",
        "owner/name": "owner/name",
    }
    assert {path: public_name(path) for path in names} == names


def exit_code(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_the_commands_export_verify_and_refuse(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert exit_code("export", run.path, "--to", "adapter", "-o", out) == 0
    assert "200 of 200 conversations give the same tokens" in capsys.readouterr().err
    assert exit_code("verify", out) == 0
    (out / "tokenizer.json").write_text("{}")
    assert exit_code("verify", out) == 3
    assert "tokenizer.json was changed" in capsys.readouterr().err
    assert exit_code("verify", "--replay", out) == 1  # written outside of the run folder: asks for --dir
    assert "--dir DIR" in capsys.readouterr().err


def test_an_export_is_verified_and_replayed_from_inside(exported, run, monkeypatch, capsys):
    monkeypatch.chdir(exported)
    assert exit_code("verify", ".") == 0
    monkeypatch.setattr("tunewright.commands.replay._train_again", lambda run, recipe: file_digest(run.file("adapter")))
    assert exit_code("verify", "--replay", "receipt.json") == 0
    assert "the same adapter" in capsys.readouterr().err


def test_an_exported_adapter_names_no_folder_of_this_machine(run, tiny_model):
    folder = export(run, "adapter")
    assert str(tiny_model) in (run.file("adapter") / "adapter_config.json").read_text()
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_model.name
    assert not [file.name for file in folder.iterdir() if str(tiny_model.parent).encode() in file.read_bytes()]


def test_the_receipt_names_the_settings_that_change_the_adapter_and_no_others(tiny_model):
    recipe = make_recipe(tiny_model)
    named = training_settings(recipe)
    idle = {"checkpoint_steps": 7, "micro_batch_tokens": 999, "tracker": "wandb"}
    assert training_settings(make_recipe(tiny_model, idle)) == named
    pairs = recipe.preference.model_copy(update={"make": ("student",), "samples": 7, "data": ("pairs.jsonl",)})
    assert training_settings(recipe.model_copy(update={"preference": pairs})) == named
    assert training_settings(make_recipe(tiny_model, {"rank": 8})) != named
