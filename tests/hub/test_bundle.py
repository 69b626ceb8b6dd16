"""Exports are pushed only as their receipt has them, and only those of the adapter that is there now."""

import hashlib

import pytest
from transformers import AutoTokenizer

from support import pushable
from support.exported_run import adapted_run, make_recipe
from support.families import TINY, WORDS
from tunewright.errors import ExportError, RunFolderError
from tunewright.export.base_model import read_base
from tunewright.export.comparison import short_conversations
from tunewright.export.receipt import write_receipt
from tunewright.hub.bundle import export_bundle, weights_bundle
from tunewright.models.chat_template import load_tokenizer, render
from tunewright.storage import file_digest


def bundle_of(run, target):
    return export_bundle(run.file("exports"), target, run.file("adapter"))


def export(run, name="merged-bf16", target="merged", **facts):
    """Write an export's folder with its receipt, as the export stage leaves it."""
    folder = run.file(f"exports/{name}")
    run.write(f"exports/{name}/model.safetensors", b"w" * 3000)
    run.write(f"exports/{name}/README.md", "of the export")
    run.write(f"exports/{name}/certificate.md", "# Parity\n\n- prompts: 3 of 3\n- KL: 0\n")
    # A real receipt but for what it was made of: there is no base model behind these files.
    write_receipt(folder, {"target": target, "made_of": {"adapter": file_digest(run.file("adapter"))}, **facts})
    return folder


@pytest.fixture
def run(tmp_path):
    return pushable.write(tmp_path / "run")


def test_an_export_is_sent_whole_with_its_receipt_and_its_certificate(run):
    export(run)
    bundle = bundle_of(run, "merged")
    assert [file.name for file in bundle.files] == ["certificate.md", "model.safetensors", "receipt.json"]
    assert bundle.files[1].sha256 == hashlib.sha256(b"w" * 3000).hexdigest()
    assert (bundle.kind, bundle.parity, bundle.is_evaluated) == ("merged", ("prompts: 3 of 3", "KL: 0"), False)
    assert bundle_of(run, "merged-bf16") == bundle


def test_several_or_none_are_an_error_with_their_names(run):
    with pytest.raises(RunFolderError) as caught:
        bundle_of(run, "gguf")
    assert "tunewright export" in caught.value.hint
    export(run, "gguf-q8_0", "gguf")
    export(run, "gguf-q4_0", "gguf")
    with pytest.raises(RunFolderError) as caught:
        bundle_of(run, "gguf")
    assert "gguf-q4_0, gguf-q8_0" in caught.value.hint
    assert bundle_of(run, "gguf-q4_0").kind == "gguf"


def test_an_adapter_in_gguf_is_not_taken_for_the_model_in_gguf(run):
    export(run, "gguf-adapter-f16", "gguf-adapter")
    with pytest.raises(RunFolderError, match="has no export gguf"):
        bundle_of(run, "gguf")
    export(run, "gguf-f16", "gguf")
    assert bundle_of(run, "gguf").kind == "gguf"
    assert bundle_of(run, "gguf-adapter").kind == "gguf-adapter"


def test_an_export_that_a_stopped_swap_left_aside_is_restored(run):
    folder = export(run)
    folder.rename(folder.with_name(f".{folder.name}.tunewright.old"))
    assert bundle_of(run, "merged").kind == "merged"
    assert folder.is_dir()


@pytest.mark.parametrize("words", ["qwen3", "llama3.2", "gemma2"])
def test_the_pushed_template_alone_makes_the_prompts_of_the_exam(words, tmp_path):
    """A program that loads it gives no variables and moves no turn."""
    WORDS[words].write(tmp_path / "words")
    recipe = make_recipe(TINY["llama3"].write(tmp_path / "base"))
    run = adapted_run(tmp_path / "run", recipe)
    evaluated = load_tokenizer(tmp_path / "words")
    evaluated.save_pretrained(run.file("adapter"))
    for file in weights_bundle(run.file("adapter"), read_base(recipe.model.base)).files:
        content = file.path.read_bytes() if file.content is None else file.content
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        (tmp_path / "pushed").mkdir(exist_ok=True)
        (tmp_path / "pushed" / file.name).write_bytes(content)
    pushed = AutoTokenizer.from_pretrained(tmp_path / "pushed", local_files_only=True)
    for messages in short_conversations():
        turns = [message.model_dump() for message in messages]
        plain = pushed.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert plain == render(evaluated, messages, True)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("model.safetensors", b"other", "model.safetensors was changed"),
        ("extra.py", b"x", "extra.py was added"),
        ("receipt.json", None, "receipt.json was changed"),
        ("receipt.json", b"{}", "receipt.json was changed"),
        ("receipt.json", b"\xff", "receipt.json was changed"),
    ],
)
def test_a_changed_export_is_refused(run, name, content, words):
    folder = export(run)
    if content is None:
        content = (folder / name).read_bytes().replace(b'"merged"', b'"adapter"')
    (folder / name).write_bytes(content)
    with pytest.raises(ExportError) as caught:
        bundle_of(run, "merged")
    assert words in str(caught.value)


def test_an_export_of_an_earlier_adapter_is_refused(run):
    export(run, dtype="bf16", base="original")
    run.write("adapter/adapter_model.safetensors", b"trained again")
    with pytest.raises(RunFolderError, match="another adapter") as caught:
        bundle_of(run, "merged")
    assert caught.value.hint.endswith("--to merged --dtype bf16 --base original")
