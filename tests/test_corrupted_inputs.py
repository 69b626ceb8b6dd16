"""Whatever a user's file holds, its reader reads it, or refuses it with an error that names it: never a defect of ours.

benchmarks/corrupted_inputs.py does the same with 2,000 corruptions.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from support.time_limit import no_longer_than
from support.user_files import KINDS, READERS, Reader, corrupted, fault, written
from tunewright.cli import report_error
from tunewright.errors import DocumentError, ModelError, StageError, UserError, reading
from tunewright.models.chat_template import load_tokenizer
from tunewright.models.model_files import folder_fault, reading_model
from tunewright.models.source import token_counter

ROUNDS = 3


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_corrupted_file_is_read_or_refused_by_name(reader: Reader, tmp_path: Path) -> None:
    good = written(reader, tmp_path / "good")
    assert not fault(reader, shutil.copytree(good, tmp_path / "whole"))
    for number, kind in enumerate(("missing", "cut", "swapped", "foreign") * ROUNDS):
        what = corrupted(reader, good, tmp_path / str(number), 100_000 + number, kind)
        assert not (problem := fault(reader, tmp_path / str(number))), (number, what, problem)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_fifo_in_place_of_any_file_is_refused_at_once(reader: Reader, tmp_path: Path) -> None:
    good = written(reader, tmp_path / "good")
    for number, file in enumerate(sorted(path.relative_to(good) for path in good.rglob("*") if path.is_file())):
        folder = shutil.copytree(good, tmp_path / str(number))
        (folder / file).unlink()
        os.mkfifo(folder / file)
        with no_longer_than(60):
            assert not (problem := fault(reader, folder)), (file, problem)


def test_the_corruptions_are_of_every_kind_and_the_same_each_time(tmp_path: Path) -> None:
    good = written(READERS[0], tmp_path / "good")
    first = [corrupted(READERS[0], good, tmp_path / f"a{number}", number) for number in range(200)]
    again = [corrupted(READERS[0], good, tmp_path / f"b{number}", number) for number in range(200)]
    assert first == again
    assert {what.rpartition(" ")[0] for what in first} == set(KINDS)


@pytest.mark.parametrize(
    "error",
    [KeyError("r"), TypeError("no"), RecursionError(), MemoryError(), AssertionError(), OSError(5, "I/O error")],
)
def test_any_error_in_loading_a_file_names_the_file_and_is_no_defect(error: Exception, capsys) -> None:
    with pytest.raises(UserError) as caught, reading("exam", "my.csv", "save it again"):
        raise error
    assert caught.value.headline == "cannot read the exam my.csv" and caught.value.cause and caught.value.hint
    assert report_error(caught.value) == 1
    assert "defect" not in capsys.readouterr().err


def test_our_errors_interrupts_and_a_full_gpu_pass_unchanged() -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch names it."""

    for error in (StageError("a"), DocumentError("b"), KeyboardInterrupt(), OutOfMemoryError()):
        with pytest.raises(type(error)) as caught, reading("exam", "my.csv", ""):
            raise error
        assert caught.value is error
        with pytest.raises(type(error)) as caught, reading_model("base", Path("x")):
            raise error
        assert caught.value is error


def test_the_damaged_file_of_a_model_folder_is_named(tiny_model: Path, tmp_path: Path) -> None:
    assert folder_fault(tiny_model) == ""
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    assert folder_fault(folder).startswith("model.safetensors: ")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')
    assert folder_fault(folder) == "model-2.safetensors is missing, which model.safetensors.index.json names"
    (folder / "generation_config.json").write_text("[]")
    assert folder_fault(folder) == "generation_config.json: it holds no JSON object"
    assert folder_fault(tmp_path / "none") == "the folder does not exist"


def test_a_tokenizer_without_its_vocabulary_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "Qwen2Tokenizer"}))
    (folder / "tokenizer.json").unlink()
    for load in (lambda: load_tokenizer(folder), lambda: token_counter(str(folder))("one two")):
        with pytest.raises(ModelError, match="cannot load the tokenizer in .*base"):
            load()
