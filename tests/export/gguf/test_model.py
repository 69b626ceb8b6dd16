"""GGUF files of tiny models of every family, computed by stock llama.cpp."""

from __future__ import annotations

import json

import pytest

from support.exported import divergences, log_probs_of, make_exportable, prompts_of
from support.families import TINY
from support.gguf_folder import write_gguf
from support.tiny import make_model
from tunewright.errors import ModelError
from tunewright.export.gguf.architectures import context_length
from tunewright.export.gguf.file import DTYPES
from tunewright.export.gguf.llama_runner import LlamaRunner
from tunewright.models.source import read_config

# llama.cpp keeps keys and values in 16 bits: nats that this costs on tiny models with large random weights.
ROUNDING = 1e-4


@pytest.mark.parametrize("name", TINY)
def test_llama_cpp_computes_what_transformers_does(name, tmp_path):
    folder = make_exportable(name, tmp_path / name)
    write_gguf(folder, tmp_path / "model.gguf", "f32")
    prompts = prompts_of(1, longest=min(60, context_length(read_config(folder))))
    expected = log_probs_of(folder, prompts)
    with LlamaRunner(tmp_path / "model.gguf") as runner:
        got = list(runner.log_probs(prompts))
    assert [p.argmax() for p in expected] == [q.argmax() for q in got]
    assert max(divergences(expected, got)) < ROUNDING


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        {"rope_type": "longrope", "long_factor": [1.5] * 8, "short_factor": [1.1] * 8},
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_stretched_positions_are_computed_alike(rope, tmp_path):
    long = rope["rope_type"] == "longrope"
    original = {"original_max_position_embeddings": 4096} if long else {}
    changes = {"rope_parameters": {"rope_theta": 10000.0, **rope, **original}, "sliding_window": None, **original}
    changes |= {"max_position_embeddings": 8192} if long else {}
    folder = make_exportable("phi3" if long else "qwen3", tmp_path / "model", **changes)
    write_gguf(folder, tmp_path / "model.gguf", "f32")
    prompts = prompts_of(2, longest=80)
    if long:
        assert context_length(read_config(folder)) == 4096
    with LlamaRunner(tmp_path / "model.gguf") as runner:
        assert max(divergences(log_probs_of(folder, prompts), list(runner.log_probs(prompts)))) < ROUNDING


@pytest.mark.parametrize(("dtype", "most"), [("f16", 1e-3), ("bf16", 5e-3), ("q8_0", 5e-3), ("q4_0", 0.6)])
def test_smaller_types_load_and_come_near(dtype, most, tmp_path):
    folder = make_model(tmp_path / "model")
    write_gguf(folder, tmp_path / "model.gguf", dtype)
    write_gguf(folder, tmp_path / "whole.gguf", "f32")
    assert (tmp_path / "model.gguf").stat().st_size < (tmp_path / "whole.gguf").stat().st_size
    prompts = prompts_of(3)
    with LlamaRunner(tmp_path / "model.gguf") as runner:
        assert max(divergences(log_probs_of(folder, prompts), list(runner.log_probs(prompts)))) < most


def test_matrices_in_four_bits_norms_in_thirty_two_and_the_logits_matrix_in_eight(tmp_path):
    from gguf import GGUFReader

    write_gguf(make_model(tmp_path / "model"), tmp_path / "model.gguf", "q4_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert types["token_embd.weight"] == "Q8_0"
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert types["blk.1.ffn_up.weight"] == "Q4_0"


def test_shards_give_the_same_file_as_one(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = make_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    sharded = tmp_path / "sharded"
    model.save_pretrained(sharded, max_shard_size="60KB")
    for file in folder.glob("*token*"):
        (sharded / file.name).write_bytes(file.read_bytes())
    if (folder / "chat_template.jinja").exists():
        (sharded / "chat_template.jinja").write_bytes((folder / "chat_template.jinja").read_bytes())
    assert len(list(sharded.glob("*.safetensors"))) > 1
    for each in (folder, sharded):
        write_gguf(each, tmp_path / f"{each.name}.gguf", "q8_0")
    assert _tensors(tmp_path / "model.gguf") == _tensors(tmp_path / "sharded.gguf")


def _tensors(file):
    from gguf import GGUFReader

    return {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(file).tensors}


def _edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def _cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _lose_a_tensor(folder):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")


def _overflow(folder):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(tensors, folder / "model.safetensors")


def _weigh_pieces(folder):
    state = json.loads((folder / "tokenizer.json").read_text())
    pieces = sorted(state["model"]["vocab"], key=state["model"]["vocab"].__getitem__)
    state["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [[text, -float(n)] for n, text in enumerate(pieces)]}
    (folder / "tokenizer.json").write_text(json.dumps(state))


def _rewrite_text(folder):
    state = json.loads((folder / "tokenizer.json").read_text())
    state["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: _edit(folder, model_type="mamba"), "kind 'mamba'"),
        (lambda folder: _edit(folder, rope_parameters={"rope_type": "dynamic", "factor": 2.0}), "dynamic"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (_cut, "cannot load the weights"),
        (_lose_a_tensor, "incomplete"),
        (_overflow, "do not fit f16"),
        (_rewrite_text, "rewrites text"),
        (_weigh_pieces, "tokenizers of the type Unigram are not written"),
    ],
)
def test_what_llama_cpp_would_get_wrong_is_refused_and_the_older_file_stands(damage, reason, tmp_path):
    folder = make_model(tmp_path / "model")
    damage(folder)
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    out.write_bytes(b"older")
    with pytest.raises(ModelError, match=reason) as caught:
        write_gguf(folder, out, "f16")
    assert caught.value.hint
    assert out.read_bytes() == b"older"
    assert list(out.parent.iterdir()) == [out]


def test_an_unknown_type_lists_the_choices(tmp_path):
    with pytest.raises(ModelError, match="q5_k") as caught:
        write_gguf(make_model(tmp_path / "model"), tmp_path / "model.gguf", "q5_k")
    assert all(name in caught.value.hint for name in DTYPES)


def test_a_merges_list_that_is_not_sentencepieces_is_refused(tmp_path):
    folder = make_exportable("llama2", tmp_path / "model")
    state = json.loads((folder / "tokenizer.json").read_text())
    state["model"]["merges"] = state["model"]["merges"][::2]
    (folder / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(ModelError, match="tokenize this model's prompts differently"):
        write_gguf(folder, tmp_path / "model.gguf", "f16")


def test_gemmas_with_another_order_of_layers_are_refused(tmp_path):
    folder = TINY["gemma3_text"].write(tmp_path / "model")
    with pytest.raises(ModelError, match="orders this model's layers differently"):
        write_gguf(folder, tmp_path / "model.gguf", "f16")


def test_a_sliding_window_that_llama_cpp_does_not_apply_bounds_the_context(tmp_path):
    assert context_length(read_config(make_exportable("mistral", tmp_path / "mistral"))) == 16
    assert context_length(read_config(make_exportable("gemma2", tmp_path / "gemma2"))) == 2048


def test_a_damaged_file_is_an_error_with_llama_cpps_words(tmp_path):
    write_gguf(make_model(tmp_path / "model"), tmp_path / "model.gguf", "f16")
    content = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot load") as caught:
        LlamaRunner(tmp_path / "model.gguf")
    assert caught.value.cause


@pytest.mark.parametrize("offset", [2**40, 2**63 - 32, 2**64 - 32])
def test_a_file_whose_tensors_are_said_to_lie_elsewhere_is_refused(tmp_path, offset):
    write_gguf(make_model(tmp_path / "model"), tmp_path / "model.gguf", "f16")
    content = bytearray((tmp_path / "model.gguf").read_bytes())
    name = b"blk.1.ffn_up.weight"
    at = content.index(name) + len(name) + 4 + 2 * 8 + 4  # behind the number of dimensions, two of them, the type
    content[at : at + 8] = offset.to_bytes(8, "little")
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ModelError, match="cannot load"):
        LlamaRunner(tmp_path / "model.gguf")


def test_large_tensors_are_written_in_pieces_to_the_same_bytes(tmp_path, monkeypatch):
    folder = make_model(tmp_path / "model")
    write_gguf(folder, tmp_path / "whole.gguf", "q4_0")
    monkeypatch.setattr("tunewright.export.gguf.file._PIECE_BYTES", 700)
    write_gguf(folder, tmp_path / "pieces.gguf", "q4_0")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "pieces.gguf").read_bytes()
