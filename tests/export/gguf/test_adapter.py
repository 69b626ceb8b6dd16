"""Adapters as GGUF, on the base's GGUF, against the merged model."""

from __future__ import annotations

import json

import pytest

from support.exported import divergences, log_probs_of, make_exportable, prompts_of
from support.families import adapted, base_of
from support.gguf_folder import write_gguf
from tunewright.errors import ModelError
from tunewright.export.gguf.llama_runner import LlamaRunner
from tunewright.export.gguf.model import write_gguf_adapter
from tunewright.export.merge import read_deltas
from tunewright.models.loading import save_adapter
from tunewright.models.source import read_config


def make_adapter(base, folder, new_tokens=(), **changes):
    """Write an adapter that changes every target's output."""
    import torch

    model = adapted(base_of(base), new_tokens, **changes)
    torch.manual_seed(7)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.2)
    save_adapter(model, folder, "base")
    return folder


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama2", {}),
        ("llama3", {"method": "rslora"}),
        ("qwen2", {"alpha": 3}),
        ("qwen3", {}),
        ("gemma2", {}),
        ("gemma3_text", {}),
        ("gemma3", {}),
        ("phi3", {}),
    ],
)
def test_the_adapter_on_the_base_is_the_merged_model(family, changes, tmp_path):
    base = make_exportable(family, tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **changes)
    config = read_config(base)
    write_gguf(base, tmp_path / "base.gguf", "f32")
    write_gguf_adapter(read_deltas(adapter), config, tmp_path / "adapter.gguf", "f32")
    prompts = prompts_of(4)
    expected = log_probs_of(base, prompts, adapter)
    with LlamaRunner(tmp_path / "base.gguf", tmp_path / "adapter.gguf") as runner:
        got = list(runner.log_probs(prompts))
    assert max(divergences(expected, got)) < 1e-4
    assert max(divergences(log_probs_of(base, prompts), got)) > 0.1  # the adapter does something


def test_the_exported_adapter_comes_near(tmp_path):
    base = make_exportable("smollm2", tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    write_gguf(base, tmp_path / "base.gguf", "f32")
    write_gguf_adapter(read_deltas(adapter), read_config(base), tmp_path / "adapter.gguf", "f16")
    prompts = prompts_of(5)
    with LlamaRunner(tmp_path / "base.gguf", tmp_path / "adapter.gguf") as runner:
        assert max(divergences(log_probs_of(base, prompts, adapter), list(runner.log_probs(prompts)))) < 0.01


def _edited(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def _cut(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    return folder


def _halved(folder):
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    weights.pop(next(name for name in weights if "lora_B" in name))
    save_file(weights, file)
    return folder


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda base, folder: make_adapter(base, folder, method="dora"), "DoRA"),
        (lambda base, folder: make_adapter(base, folder, new_tokens=(5,)), "more than pairs"),
        (lambda base, folder: _edited(make_adapter(base, folder), peft_type="IA3"), "IA3"),
        (lambda base, folder: _edited(make_adapter(base, folder), rank_pattern={"q_proj": 8}), "rank_pattern"),
        (lambda base, folder: _edited(make_adapter(base, folder), r=8), "do not have its rank"),
        (lambda base, folder: _halved(make_adapter(base, folder)), "one matrix only"),
        (lambda base, folder: _cut(make_adapter(base, folder)), "cannot read the adapter"),
    ],
)
def test_what_is_no_plain_lora_is_refused_before_anything_is_written(made, reason, tmp_path):
    base = make_exportable("smollm2", tmp_path / "base")
    adapter = made(base, tmp_path / "adapter")
    with pytest.raises(ModelError, match=reason) as caught:
        write_gguf_adapter(read_deltas(adapter), read_config(base), tmp_path / "out.gguf", "f16")
    assert caught.value.hint
    assert not (tmp_path / "out.gguf").exists()
