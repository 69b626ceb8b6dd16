"""`tunewright export` to what llama.cpp and Ollama run, with the certificate."""

from __future__ import annotations

import json

import pytest
from gguf import GGUFReader

from support import exported_run
from support.exported import adapted_run, make_exportable
from support.exported_run import make_recipe, questions
from tunewright.errors import ExportError, ModelError
from tunewright.export.comparison import compare_prompts
from tunewright.export.gguf.llama_runner import LEAST_CONTEXT_TOKENS, LlamaRunner
from tunewright.export.gguf.write import MODEL_DTYPES
from tunewright.export.receipt import verify
from tunewright.export.reference import longest_exchange
from tunewright.export.stage import TARGETS, export
from tunewright.export.target import ExportRequest, Limit
from tunewright.models.chat_template import load_tokenizer
from tunewright.recipe import load_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return adapted_run(folder / "run", make_exportable("llama3", folder / "base"), quantization="nf4")


@pytest.mark.parametrize(
    ("target", "files"),
    [("gguf", {"model.gguf"}), ("gguf-adapter", {"adapter.gguf"}), ("ollama", {"model.gguf", "Modelfile"})],
)
def test_each_target_is_certified_on_the_base_that_was_evaluated(target, files, run):
    folder = export(run, target)
    assert files <= {file.name for file in folder.iterdir()}
    assert verify(folder)
    certificate = json.loads((folder / "certificate.json").read_text())
    assert certificate["dtype"] == "f16"
    assert certificate["exported"].startswith(("llama.cpp", "the Modelfile's template, llama.cpp"))
    assert certificate["distributions"]["max_kl"] < 1e-3
    prompts = certificate["prompts"]
    assert prompts["identical"] + prompts["limited"] == prompts["conversations"]
    # This family's template trims, and some of the conversations have white space around their text.
    assert prompts["limited"] > 0
    assert any("trim" in limit for limit in prompts["limits"])
    text = (folder / "certificate.md").read_text()
    assert "avoids what the program cannot do" in text
    assert ("merged into the trained base" in text) == (target != "gguf-adapter")
    if target == "ollama":
        prompt = load_recipe(run.file("recipe.toml")).system_prompt
        assert prompt
        assert f'\nSYSTEM """{prompt}"""\n' in (folder / "Modelfile").read_text()
        room = GGUFReader(folder / "model.gguf").fields["llama.context_length"].contents()
        assert f"PARAMETER num_ctx {room}\n" in (folder / "Modelfile").read_text()
    assert not list(run.file("exports").glob(".base-*"))


def test_every_listed_type_has_a_floor_and_a_size(run):
    from tunewright.export.certificate import FLOORS

    recipe = load_recipe(run.file("recipe.toml"))
    adapter = run.file("adapter")
    sizes = [TARGETS["gguf"].num_bytes(ExportRequest(adapter, recipe, dtype=dtype)) for dtype in MODEL_DTYPES]
    assert all(size > 0 for size in sizes)
    assert set(MODEL_DTYPES) <= set(FLOORS)


def test_a_worse_artifact_is_refused_and_the_earlier_one_is_kept(run, monkeypatch):
    folder = export(run, "gguf")
    before = (folder / "model.gguf").read_bytes()
    monkeypatch.setattr("tunewright.export.gguf.architectures._interleaved", lambda heads, dim: None)  # rows unturned
    with pytest.raises(ExportError, match="differs from the evaluated model"):
        export(run, "gguf")
    assert (folder / "model.gguf").read_bytes() == before


def test_dora_is_merged_but_has_no_adapter_file(tmp_path):
    run = adapted_run(tmp_path / "run", make_exportable("smollm2", tmp_path / "base"), method="dora")
    with pytest.raises(ModelError, match="DoRA") as caught:
        export(run, "gguf-adapter")
    assert caught.value.hint.endswith("tunewright export DIR --to gguf")
    assert (export(run, "gguf") / "model.gguf").is_file()


@pytest.mark.slow
def test_a_limit_excuses_only_what_it_names(run):
    tokenizer = load_tokenizer(export(run, "gguf") / ".." / ".." / ".." / "base")
    with LlamaRunner(run.file("exports") / "gguf-f16" / "model.gguf") as runner:
        whole = compare_prompts(tokenizer, runner)
        runner.limits = (Limit("is loud", str.upper),)
        other = compare_prompts(tokenizer, runner)
    assert not whole.first
    assert other.first
    assert other.identical == whole.identical


def test_the_base_that_an_adapter_is_tested_on_is_in_the_folder_that_a_kill_leaves_behind(run, tmp_path):
    """The next export removes the folder of a killed one; a file beside it would stay forever."""
    recipe = load_recipe(run.file("recipe.toml"))
    folder = tmp_path / "exports" / "fresh"
    folder.mkdir(parents=True)
    request = ExportRequest(run.file("adapter"), recipe, dtype="f16", base="original")
    TARGETS["gguf-adapter"].write(request, folder)
    with TARGETS["gguf-adapter"].runner(request, folder):
        assert len(list(folder.rglob("model.gguf"))) == 1
        assert list(folder.parent.iterdir()) == [folder]
    assert [file.name for file in folder.iterdir()] == ["adapter.gguf"]


def test_a_fully_tuned_model_has_no_adapter_file(tmp_path):
    recipe = make_recipe(make_exportable("smollm2", tmp_path / "base"), {"method": "full"})
    run = exported_run.adapted_run(tmp_path / "run", recipe)
    with pytest.raises(ModelError, match="a fully tuned model has no adapter") as caught:
        export(run, "gguf-adapter")
    assert caught.value.hint.endswith("tunewright export DIR --to gguf")


def test_a_refusal_comes_before_anything_is_computed_or_written(tmp_path):
    recipe = make_recipe(make_exportable("smollm2", tmp_path / "base"))
    run = exported_run.adapted_run(tmp_path / "run", recipe.model_copy(update={"system_prompt": 'Say """ x.'}))
    with pytest.raises(ModelError, match="system prompt cannot be written"):
        export(run, "ollama")
    assert list(run.file("exports").iterdir()) == []


@pytest.mark.slow
def test_an_exam_with_long_questions_is_compared_to_its_end(tmp_path):
    """The context has room for the longest prompt and answer, whatever a teacher's context is."""
    recipe = make_recipe(make_exportable("smollm2", tmp_path / "base", max_position_embeddings=8192))
    run = exported_run.adapted_run(tmp_path / "run", recipe)
    long = questions(recipe.refusal)[1].model_copy(update={"passage": "The treated group. " * 900, "gold": "Risk 1."})
    run.write_records("exam.jsonl", [long])
    assert longest_exchange(recipe, [long]) > LEAST_CONTEXT_TOKENS
    certificate = json.loads((export(run, "gguf") / "certificate.json").read_text())
    assert certificate["distributions"]["positions"] > 1
