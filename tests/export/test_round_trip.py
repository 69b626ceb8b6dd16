"""adapter → merged → reload by transformers alone: the evaluated model's logits, for every family and method."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.exported_run import adapted_run, evaluated, make_recipe, some_ids
from support.families import TINY, logits_of, make_family
from tunewright.errors import ModelError
from tunewright.export.certificate import Certificate
from tunewright.export.merge import bare_name, cast_finite, open_merge, write_merged, write_weights
from tunewright.export.stage import export
from tunewright.export.target import ExportRequest
from tunewright.models.loading import quantized_layers

METHODS = {
    "lora": ({}, {}),
    "rslora": ({"method": "rslora"}, {}),
    "dora": ({"method": "dora"}, {}),
    "full": ({"method": "full"}, {}),
    "added-tokens": ({}, {"added_tokens": ("<severity>", "<label>")}),
    "nf4": ({}, {"quantization": "nf4"}),
    "nf4-double-dora": ({"method": "dora"}, {"quantization": "nf4-double"}),
    "nf4-added-tokens": ({}, {"quantization": "nf4-double", "added_tokens": ("<severity>",)}),
    "attention": ({"targets": ("attention",)}, {}),
}


def reloaded(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def merged_and_evaluated(run, recipe, folder, dtype, compute=torch.float32):
    """Merge, reload, and return (logits of the reloaded, logits of the evaluated model), both computed in that type."""
    folder.mkdir()
    write_merged(ExportRequest(run.file("adapter"), recipe, dtype=dtype), folder)
    model, theirs = reloaded(folder, torch.float32)
    tuned, tokenizer = evaluated(run, recipe)
    ids = some_ids(tokenizer, recipe)
    assert some_ids(theirs, recipe) == ids
    return logits_of(model.to(compute), ids), logits_of(tuned.to(compute), ids)


@pytest.mark.parametrize("family", TINY)
def test_every_family_comes_back_within_1e_5_in_fp32_and_within_a_bound_in_bf16(family, tmp_path):
    recipe = make_recipe(make_family(family, tmp_path / "base"))
    run = adapted_run(tmp_path / "run", recipe)
    # In fp32, adding up rounds these logits of up to 8 by 2e-5, in the evaluated model as well; so add up in fp64.
    merged, expected = merged_and_evaluated(run, recipe, tmp_path / "fp32", "fp32", torch.float64)
    assert float((merged - expected).abs().max()) <= 1e-5
    in_bf16, _ = merged_and_evaluated(run, recipe, tmp_path / "bf16", "bf16", torch.float64)
    # bf16 keeps 8 bits, so a weight is off by up to 1 part in 512; these layers make a seventh of the spread of it.
    assert 0 < float((in_bf16 - expected).abs().max()) <= 0.2 * float(expected.std())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_comes_back_within_1e_5(method, tiny_model, tmp_path):
    recipe = make_recipe(tiny_model, *METHODS[method])
    run = adapted_run(tmp_path / "run", recipe)
    merged, expected = merged_and_evaluated(run, recipe, tmp_path / "fp32", "fp32")
    assert float((merged - expected).abs().max()) <= 1e-5
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    known = [n for n in some_ids(evaluated(run, recipe)[1], recipe) if n < 400]
    tuned = reloaded(tmp_path / "fp32", torch.float32)[0]
    assert float((logits_of(plain, known)[:, :400] - logits_of(tuned, known)[:, :400]).abs().max()) > 0.01


@pytest.mark.parametrize("family", ["gemma3", "llama2", "qwen2"])
def test_a_quantized_base_is_merged_in_the_numbers_that_were_evaluated(family, tmp_path):
    recipe = make_recipe(make_family(family, tmp_path / "base"), {}, {"quantization": "nf4-double"})
    run = adapted_run(tmp_path / "run", recipe)
    merged, expected = merged_and_evaluated(run, recipe, tmp_path / "fp32", "fp32")
    assert float((merged - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.std()))
    original = open_merge(run.file("adapter"), recipe, "original")
    trained = open_merge(run.file("adapter"), recipe, "trained")
    layer = next(name for name in trained.files if bare_name(name).startswith("layers.0.mlp.down_proj"))
    assert not torch.equal(original.tensor(layer), trained.tensor(layer))


def test_an_int8_base_is_merged_in_the_weights_that_it_was_loaded_with(tiny_model, tmp_path):
    recipe = make_recipe(tiny_model, {}, {"quantization": "int8"})
    run = adapted_run(tmp_path / "run", recipe)
    merged, expected = merged_and_evaluated(run, recipe, tmp_path / "fp32", "fp32")
    # Activations are rounded to 8 bits in the evaluated model alone.
    assert 1e-5 < float((merged - expected).abs().max()) <= 0.1 * float(expected.std())


def test_the_layers_that_are_quantized_are_those_that_transformers_quantizes(tiny_model):
    from tunewright.models.loading import load_base

    loaded = load_base(tiny_model, "nf4", "cpu", torch.float32)
    wanted = {name for name, module in loaded.named_modules() if type(module).__name__ == "Linear4bit"}
    assert quantized_layers(tiny_model, "nf4", torch.float32) == wanted
    assert wanted


def test_shards_hold_what_one_file_would(tiny_model, tmp_path):
    recipe = make_recipe(tiny_model)
    merge = open_merge(adapted_run(tmp_path / "run", recipe).file("adapter"), recipe, "trained")
    write_weights(merge, tmp_path, "fp32", shard_bytes=40_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(merge.files)
    assert len(set(index["weight_map"].values())) > 5
    assert {path.name for path in tmp_path.glob("*.safetensors")} == set(index["weight_map"].values())


def test_a_weight_that_fp16_cannot_hold_is_refused(tiny_model, tmp_path):
    with pytest.raises(ModelError, match="does not fit into float16") as caught:
        cast_finite("model.norm.weight", torch.tensor([1e5]), torch.float16)
    assert "bf16" in caught.value.hint


def test_an_adapter_of_a_kind_that_is_not_converted_is_refused(tiny_model, tmp_path):
    recipe = make_recipe(tiny_model)
    run = adapted_run(tmp_path / "run", recipe)
    config = json.loads(run.file("adapter/adapter_config.json").read_text())
    run.write_json("adapter/adapter_config.json", config | {"modules_to_save": ["lm_head"]})
    with pytest.raises(ModelError, match="not converted here") as caught:
        open_merge(run.file("adapter"), recipe, "trained")
    assert "modules_to_save" in caught.value.cause


@pytest.mark.parametrize("family", ["gemma2", "llama3", "qwen3", "mistral", "phi3"])
def test_a_family_is_exported_with_a_certificate(family, tmp_path):
    """Templates that refuse a system turn, want variables, or begin with their own token: all 200 prompts the same."""
    recipe = make_recipe(make_family(family, tmp_path / "base"))
    run = adapted_run(tmp_path / "run", recipe)
    folder = export(run, "merged", dtype="fp32")
    certificate = Certificate.model_validate_json((folder / "certificate.json").read_text())
    assert certificate.prompts.identical == certificate.prompts.conversations == 200
    assert certificate.distributions.agreement == 1
    assert certificate.distributions.max_kl < 1e-6
