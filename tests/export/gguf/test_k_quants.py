"""K-quants with an importance matrix: llama.cpp's own quantizers, its own choice of types, and its own runner."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize

from support.exported import adapted_run, make_exportable
from support.families import base_of
from tunewright.errors import ModelError
from tunewright.export import certificate
from tunewright.export.gguf import k_quants
from tunewright.export.gguf.file import Tensor, write_file
from tunewright.export.gguf.importance import importance_of
from tunewright.export.gguf.k_quants import MIXES, k_type, quantized
from tunewright.export.stage import export
from tunewright.models.source import read_config

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "initializer_range": 0.05}


def error(values, dtype, importance, weights=None):
    packed = quantized(values, dtype, importance)
    back = dequantize(packed, GGMLQuantizationType[dtype.upper()]).reshape(values.shape)
    return float((((back - values) ** 2) * (1 if weights is None else weights)).sum() / (values**2).sum())


@pytest.mark.parametrize(("dtype", "most"), [("q4_k", 8e-3), ("q5_k", 2e-3), ("q6_k", 8e-4)])
def test_values_come_back_within_the_types_rounding(dtype, most):
    values = np.random.default_rng(0).standard_normal((64, 512), dtype=np.float32)
    assert most / 20 < error(values, dtype, None) < most
    assert error(values, dtype, np.ones(512, dtype=np.float32)) < most
    assert error(values, dtype, np.zeros(512, dtype=np.float32)) < most


@pytest.mark.parametrize("dtype", ["q4_k", "q5_k"])
def test_important_columns_are_rounded_more_finely(dtype):
    draw = np.random.default_rng(1)
    values = draw.standard_normal((64, 512), dtype=np.float32)
    importance = np.where(draw.random(512) < 0.1, 100.0, 1.0).astype(np.float32)
    assert error(values, dtype, importance, importance) < 0.8 * error(values, dtype, None, importance)


@pytest.mark.parametrize("dtype", ["q4_0", "q5_0", "q5_1"])
def test_smaller_blocks_are_rounded_by_importance_in_the_file_too(dtype, tmp_path):
    """They take the place of K-quants where rows do not divide into blocks of 256, as in SmolLM2-135M."""
    draw = np.random.default_rng(2)
    values = draw.standard_normal((64, 96), dtype=np.float32)
    importance = np.where(draw.random(96) < 0.1, 100.0, 1.0).astype(np.float32)
    tensor = Tensor("blk.0.ffn_up.weight", values.shape, dtype, lambda start, end: values[start:end], importance)
    write_file(tmp_path / "model.gguf", "llama", {}, [tensor])
    (written,) = GGUFReader(tmp_path / "model.gguf").tensors
    kind = GGMLQuantizationType[dtype.upper()]
    ours, plain = dequantize(written.data, kind), dequantize(quantize(values, kind), kind)
    assert (((ours - values) ** 2) * importance).sum() < 0.8 * (((plain - values) ** 2) * importance).sum()


def test_types_are_those_of_llama_cpps_own_program():
    layers = range(16)
    finer = [n for n in layers if k_type("q4_k_m", f"blk.{n}.ffn_down.weight", 512, 16, False) == "q6_k"]
    assert finer == [0, 1, 4, 7, 10, 13, 14, 15]
    assert k_type("q4_k_m", "blk.4.attn_v.weight", 512, 16, False) == "q6_k"
    assert k_type("q4_k_m", "blk.4.ffn_up.weight", 512, 16, False) == "q4_k"
    assert k_type("q5_k_m", "output.weight", 512, 16, True) == "q6_k"
    assert k_type("q4_k_m", "blk.4.ffn_up.weight", 576, 16, False) == "q5_0"  # not divisible by 256
    assert k_type("q6_k", "blk.4.ffn_up.weight", 90, 16, False) == "f16"


def test_importance_is_the_mean_square_of_each_matrixs_input(tmp_path):
    import torch

    folder = make_exportable("qwen2", tmp_path / "model")
    model, ids = base_of(folder).eval(), list(range(10, 40))
    found = importance_of(model, read_config(folder), [ids[:20], ids[20:]])
    assert found.num_tokens == 30
    with torch.inference_mode():
        embedded = [model.model.embed_tokens(torch.tensor([part])) for part in (ids[:20], ids[20:])]
        inputs = torch.cat([model.model.layers[0].input_layernorm(part)[0] for part in embedded])
    assert np.allclose(found.by_tensor["blk.0.attn_q.weight"], inputs.pow(2).mean(0).numpy(), rtol=1e-4)
    assert {"blk.0.attn_v.weight", "blk.2.ffn_down.weight", "blk.1.ffn_gate.weight"} <= found.by_tensor.keys()


@pytest.mark.parametrize("dtype", [pytest.param(d, marks=[] if d == "q4_k_m" else [pytest.mark.slow]) for d in MIXES])
def test_an_export_is_certified_and_names_its_importance_matrix(dtype, tmp_path, monkeypatch):
    # A random model's likeliest tokens are near ties; its distributions must be near all the same.
    monkeypatch.setitem(certificate.FLOORS, dtype, certificate.Floor(agreement=0.0, tie_nats=0.05))
    base = make_exportable("llama3", tmp_path / "base", **WIDE)
    run = adapted_run(tmp_path / "run", base, quantization="none")
    line = {"id": "s1", "task": "own", "messages": [{"role": "user", "content": "Which group?"}]}
    line["messages"].append({"role": "assistant", "content": "The treated group of 426 patients."})
    run.write("train.jsonl", json.dumps(line) + "\n")
    folder = export(run, "gguf", dtype=dtype)
    assert json.loads((folder / "certificate.json").read_text())["distributions"]["max_kl"] < 0.15
    reader = GGUFReader(folder / "model.gguf")
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["blk.1.ffn_up.weight"] == MIXES[dtype][0].upper()
    assert types["token_embd.weight"] == "Q6_K"  # tied: it computes the logits
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert reader.fields["quantize.imatrix.tokens_count"].contents() > 5


def test_a_llama_cpp_without_quantizers_is_named(monkeypatch):
    monkeypatch.setattr(k_quants, "_SYMBOL", "no_such_function")
    k_quants._quantize_chunk.cache_clear()
    try:
        with pytest.raises(ModelError, match="offers no quantizer"):
            quantized(np.ones((1, 256), dtype=np.float32), "q4_k", None)
    finally:
        k_quants._quantize_chunk.cache_clear()
