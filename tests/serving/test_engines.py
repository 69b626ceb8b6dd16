"""The engines' inputs: a GGUF that can be rebuilt, and the context of the model."""

from __future__ import annotations

import subprocess

import pytest

from tunewright.commands.serve import rebuild_hint, serve, tuned_gguf
from tunewright.errors import StageError
from tunewright.evaluation.arms import arm_prompts
from tunewright.models.chat_template import exam_prompt
from tunewright.recipe import load_recipe
from tunewright.records import Question
from tunewright.serving.listen import TOKEN, token_for


def test_after_what_the_hint_says_a_damaged_file_is_written_again(run):
    recipe = load_recipe(run.file("recipe.toml"))
    file = tuned_gguf(run, recipe, "f32")
    content = file.read_bytes()
    file.write_bytes(content[:1000])
    with pytest.raises(StageError, match=r"llama\.cpp cannot load") as caught:
        serve(run, "127.0.0.1", 0, "llama.cpp", "f32")
    subprocess.run(caught.value.hint.partition(": ")[2], shell=True, check=True)
    assert tuned_gguf(run, recipe, "f32").read_bytes() == content


def test_a_file_that_was_deleted_alone_is_written_again(run):
    recipe = load_recipe(run.file("recipe.toml"))
    file = tuned_gguf(run, recipe, "f16")
    content = file.read_bytes()
    file.unlink()
    assert tuned_gguf(run, recipe, "f16").read_bytes() == content


def test_a_damaged_export_is_not_to_be_deleted_but_exported_again(run):
    run.write("exports/gguf-q8_0/receipt.json", "{}")
    hint = rebuild_hint(run, run.file("exports/gguf-q8_0/model.gguf"), "q8_0")
    run.file("exports/gguf-q8_0/receipt.json").unlink()
    assert hint == f"export it again: tunewright export '{run.path}' --to gguf --dtype q8_0"


def test_a_token_is_taken_without_the_white_space_around_it(monkeypatch):
    """The token of a client is stripped as well, so a line end would never match."""
    monkeypatch.setenv(TOKEN, "a token of sixteen or more\n")
    assert token_for("0.0.0.0") == "a token of sixteen or more"


@pytest.mark.parametrize("passage", [None, "The survey followed 426 nurses."])
def test_the_prompts_of_the_canaries_are_those_of_the_exam(passage):
    words = {"ring": "learned", "document": "d", "gold": "426", "answerable": True, "passage": passage}
    question = Question(id="q", question="How many?", **words)
    for arm in ("base", "tuned"):
        assert exam_prompt("Be brief.", question) == next(arm_prompts(arm, question, "Be brief.", {}, {}))
