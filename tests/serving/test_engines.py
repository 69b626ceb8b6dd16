"""What the engines are given: a GGUF that can be had anew, and the context of the model."""

from __future__ import annotations

import subprocess

import pytest

from support.families import make_family
from tunewright.errors import StageError
from tunewright.evaluation.arms import arm_prompt
from tunewright.models.chat_template import exam_prompt
from tunewright.models.source import read_config
from tunewright.recipe import load_recipe, parse_recipe
from tunewright.records import Question
from tunewright.serving.listen import TOKEN, token_for
from tunewright.serving.llama_cpp import renewal, tuned_gguf
from tunewright.serving.serve import serve
from tunewright.serving.vllm import context_tokens


def test_after_what_the_hint_says_a_damaged_file_is_written_again(run):
    recipe = load_recipe(run.file("recipe.toml"))
    file = tuned_gguf(run, recipe, "f32")
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(StageError, match=r"llama\.cpp does not load") as caught:
        serve(run, "127.0.0.1", 0, "llama.cpp", "f32")
    subprocess.run(caught.value.hint.partition(": ")[2], shell=True, check=True)
    assert tuned_gguf(run, recipe, "f32").read_bytes() == whole


def test_a_file_that_was_deleted_alone_is_written_again(run):
    recipe = load_recipe(run.file("recipe.toml"))
    file = tuned_gguf(run, recipe, "f16")
    whole = file.read_bytes()
    file.unlink()
    assert tuned_gguf(run, recipe, "f16").read_bytes() == whole


def test_an_export_is_not_to_be_deleted_but_made_anew(run):
    run.write("exports/gguf-q8_0/receipt.json", "{}")
    told = renewal(run, run.file("exports/gguf-q8_0/model.gguf"), "q8_0")
    run.file("exports/gguf-q8_0/receipt.json").unlink()
    assert told == f"export it anew: tunewright export '{run.path}' --to gguf --dtype q8_0"


def test_vllm_gets_the_context_of_the_language_model_inside_of_a_multimodal_one(tmp_path):
    base = make_family("gemma3", tmp_path / "base")
    recipe = parse_recipe({"model": {"base": str(base)}}, tmp_path)
    wanted = read_config(base)["text_config"]["max_position_embeddings"]
    assert wanted != 4096
    assert context_tokens(recipe, tmp_path / "adapter") == wanted


def test_a_token_is_taken_without_the_white_space_around_it(monkeypatch):
    """What a client brings is stripped as well: a line end of a file would fit nothing that anybody sends."""
    monkeypatch.setenv(TOKEN, "a token of sixteen or more\n")
    assert token_for("0.0.0.0") == "a token of sixteen or more"


@pytest.mark.parametrize("passage", [None, "The survey followed 426 nurses."])
def test_the_canary_asks_what_base_and_tuned_were_asked_in_the_exam(passage):
    words = {"ring": "learned", "document": "d", "gold": "426", "answerable": True, "passage": passage}
    question = Question(id="q", question="How many?", **words)
    for arm in ("base", "tuned"):
        assert exam_prompt("Be brief.", question) == arm_prompt(arm, question, "Be brief.", (), lambda _: ())
