"""Each part of a base is quantized and adapted as the recipe says, or the base is refused before it is loaded."""

import shutil

import pytest
import torch

from support.bench_of_training import tiny_examples, wake
from support.families import adapted, logits_of
from support.tiny import make_tokenizer
from tunewright.errors import ModelError
from tunewright.export.merge import open_merge, write_weights
from tunewright.models.base_contents import require_base
from tunewright.models.hardware import Shape
from tunewright.models.loading import attention_layers, load_base, outline, save_adapter
from tunewright.models.source import read_config
from tunewright.recipe import Recipe
from tunewright.settings import ModelSettings, TrainingSettings
from tunewright.training.objectives import sequence_logps
from tunewright.training.packing import collate
from tunewright.training.plain_path import PlainPath

_SIZES = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def made(kind, folder, **changes):
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir()
    make_tokenizer(folder)
    torch.manual_seed(0)
    sizes = {key: value for key, value in {**_SIZES, **changes}.items() if value is not None}
    config = AutoConfig.for_model(kind, **sizes)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def test_the_sizes_of_a_config_with_other_names_are_known():
    shape = Shape.of({"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 400})
    assert (shape.hidden, shape.intermediate, shape.layers, shape.query) == (64, 256, 2, 64)
    falcon = {"model_type": "falcon", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    assert Shape.of({**falcon, "ffn_hidden_size": 256}).intermediate == 256


def test_a_config_with_infinity_is_read(tmp_path):
    """Mamba 2 and Nemotron-H state an open limit, which JSON has no number for."""
    folder = made("mamba2", tmp_path / "model", intermediate_size=None, num_heads=4, head_dim=32, state_size=8)
    assert "__float__" in (folder / "config.json").read_text(encoding="utf-8")
    assert read_config(folder)["time_step_limit"][1] == float("inf")
    assert Shape.of(read_config(folder)).hidden == 64


def recipe_of(folder, quantization="nf4-double", targets=("all-linear",)):
    model = ModelSettings(base=str(folder), quantization=quantization, compute="fp32")
    return Recipe(model=model, training=TrainingSettings(targets=targets))


@pytest.mark.parametrize(
    ("kind", "changes", "targets", "parts"),
    [
        ("falcon", {"head_dim": None}, ("all-linear",), ("query_key_value", "would not be quantized")),
        ("ernie4_5_moe", {"moe_num_experts": 4, "moe_k": 2}, ("all-linear",), ("mixture of experts",)),
        ("mamba", {"state_size": 8, "time_step_rank": 4}, ("all-linear",), ("out_proj", "in_proj", "x_proj")),
        ("llama", {}, ("q_proj", "w9"), ("w9 would get no adapter",)),
    ],
)
def test_a_part_that_would_be_left_out_is_named_before_anything_is_loaded(kind, changes, targets, parts, tmp_path):
    folder = made(kind, tmp_path / kind, **changes)
    with pytest.raises(ModelError) as refused:
        require_base(recipe_of(folder, targets=targets), fetch=False)
    assert all(part in str(refused.value) for part in parts), str(refused.value)


def test_what_a_model_computes_with_stays_unquantized(tmp_path):
    """Gemma 3n clamps the weights that mix its streams, in each step of a training."""
    changes = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 400, "num_kv_shared_layers": 0}
    folder = made("gemma3n_text", tmp_path / "model", **changes, laurel_rank=4, altup_num_inputs=2)
    require_base(recipe_of(folder), fetch=False)
    model = wake(adapted(load_base(folder, "nf4-double", "cpu", torch.float32))).train()
    loss = -sequence_logps(PlainPath(model), collate(tiny_examples(folder, 2), "cpu"))[0].sum()
    loss.backward()
    assert loss.isfinite()
    assert type(model.get_base_model().model.layers[0].mlp.up_proj.base_layer).__name__ == "Linear4bit"


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("gpt2", {"n_embd": 64, "n_head": 4, "n_layer": 2}, {"attn.c_attn", "attn.c_proj"}),
        (
            "deepseek_v3",
            {"q_lora_rank": 16, "kv_lora_rank": 16, "n_routed_experts": 4, "n_group": 1, "topk_group": 1},
            {f"self_attn.{name}" for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")},
        ),
    ],
)
def test_attention_means_all_linear_layers_of_attention(kind, changes, expected, tmp_path):
    assert set(attention_layers(outline(made(kind, tmp_path / kind, **changes), "none", torch.float32))) == expected


@pytest.mark.parametrize("quantization", ["none", "nf4-double"])
@pytest.mark.parametrize("kind", ["gpt_neox", "gpt2"])
def test_layers_of_any_name_are_merged_in_the_numbers_of_the_training(kind, quantization, tmp_path):
    """GPT-NeoX calls its layers gpt_neox.layers; the weights of GPT-2's are transposed."""
    folder = made(kind, tmp_path / "base", initializer_range=0.1, n_embd=64, n_head=4, n_layer=2)
    model = wake(adapted(load_base(folder, quantization, "cpu", torch.float32)))
    save_adapter(model, tmp_path / "adapter", "a/name")
    merged = tmp_path / "merged"
    merged.mkdir()
    write_weights(open_merge(tmp_path / "adapter", recipe_of(folder, quantization), "trained"), merged, "fp32")
    shutil.copy(folder / "config.json", merged)
    ids = list(range(5, 30))
    ours = logits_of(load_base(merged, "none", "cpu", torch.float32), ids)
    torch.testing.assert_close(ours, logits_of(model, ids), rtol=1e-3, atol=1e-3)
