"""Mixtures of experts: quantized, adapted, trained by both paths alike, saved and read by peft, or refused by name."""

import shutil

import pytest
import torch

from support.bench_of_training import loop_settings, tiny_examples, wake
from support.families import MORE, logits_of, make_family
from tunewright.errors import ModelError
from tunewright.export.merge import open_merge, write_weights
from tunewright.models import loading
from tunewright.models.coverage import check_coverage
from tunewright.models.experts import check_experts, expert_modules, packed_parameter
from tunewright.models.hardware import Shape
from tunewright.models.loading import attach_adapter, for_inference, load_adapter, load_base, save_adapter
from tunewright.models.memory_plan import require_room
from tunewright.recipe import Recipe
from tunewright.settings import ModelSettings, TrainingSettings
from tunewright.training.checkpoint import trainable
from tunewright.training.kernels.decoder import FastPath
from tunewright.training.loop import accumulate
from tunewright.training.objectives import NEXT_TOKEN
from tunewright.training.plain_path import PlainPath
from tunewright.training.step_plan import Capacity

SPARSE = [name for name, tiny in MORE.items() if "num_experts_per_tok" in tiny.config]
TRAINING = TrainingSettings(rank=4, alpha=8)


@pytest.fixture(scope="module", params=SPARSE)
def folder(request, tmp_path_factory):
    return make_family(request.param, tmp_path_factory.mktemp("experts") / request.param)


def base_of(folder, quantization="nf4-double"):
    return load_base(folder, quantization, "cpu", torch.float32)


def gradients(path, examples):
    path.model.zero_grad()
    loss = accumulate(path, NEXT_TOKEN, examples, loop_settings(), Capacity(1000))["loss"]
    return loss, {name: parameter.grad for name, parameter in trainable(path.model).items()}


@pytest.mark.parametrize("targets", [("all-linear",), ("attention",)])
def test_quantized_experts_train_alike_by_both_paths(folder, targets):
    training = TrainingSettings(rank=4, alpha=8, targets=targets)
    model = wake(attach_adapter(base_of(folder), training, 0)).train()
    check_coverage(model, "nf4-double", training)
    assert all(packed_parameter(module, "down_proj")[1] is not None for _, module in expert_modules(model))
    assert any("experts" in name for name in trainable(model)) == (targets == ("all-linear",))
    examples = tiny_examples(folder, 6)
    expected_loss, expected = gradients(PlainPath(model), examples)
    path = FastPath(model)
    for level in (3, 1, 0):
        path.configure(level * len(path.layers), False)
        loss, ours = gradients(path, examples)
        assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
        for name, reference in expected.items():
            assert reference.norm() > 0
            assert (ours[name] - reference).norm() <= 1e-5 * reference.norm(), name


def test_a_saved_adapter_comes_back(folder, tmp_path):
    from peft import PeftModel

    model = wake(attach_adapter(base_of(folder), TRAINING, 0))
    save_adapter(model, tmp_path, "a/name")
    ids = tiny_examples(folder, 1)[0].sequences[0].input_ids
    expected = logits_of(model, ids)
    assert torch.allclose(logits_of(load_adapter(base_of(folder), tmp_path), ids), expected, atol=1e-5)
    assert not torch.allclose(logits_of(base_of(folder), ids), expected, atol=1e-3)
    # Through peft alone on the base in 32 bit: the adapter does not depend on the base's quantization.
    plain = logits_of(load_adapter(base_of(folder, "none"), tmp_path), ids)
    assert torch.equal(logits_of(PeftModel.from_pretrained(base_of(folder, "none"), tmp_path), ids), plain)
    assert not torch.allclose(plain, logits_of(base_of(folder, "none"), ids), atol=1e-3)


def test_several_adapters_on_one_base(folder, tmp_path):
    """As the exam and a server load them: on an unpacked base, one beside the other, or off."""
    ids = tiny_examples(folder, 1)[0].sequences[0].input_ids
    expected = {}
    for seed, name in enumerate(("default", "other")):
        model = wake(attach_adapter(base_of(folder), TRAINING, 0), seed)
        save_adapter(model, tmp_path / name, "a/name")
        expected[name] = logits_of(model, ids)
    base = for_inference(base_of(folder))
    plain = logits_of(base, ids)
    model = load_adapter(load_adapter(base, tmp_path / "default"), tmp_path / "other", "other")
    for name, logits in expected.items():
        model.set_adapter(name)
        assert torch.allclose(logits_of(model, ids), logits, atol=1e-4)
    with model.disable_adapter():
        assert torch.allclose(logits_of(model, ids), plain, atol=1e-5)
    assert not torch.allclose(expected["default"], expected["other"], atol=1e-2)


@pytest.mark.parametrize("quantization", ["nf4-double", "none"])
def test_the_merged_model_is_the_adapted_base(folder, tmp_path, quantization):
    """In the numbers of training; the files keep the names that the base is published with."""
    model = wake(attach_adapter(base_of(folder, quantization), TRAINING, 0))
    save_adapter(model, tmp_path / "adapter", "a/name")
    ids = tiny_examples(folder, 1)[0].sequences[0].input_ids
    merged = tmp_path / "merged"
    merged.mkdir()
    recipe = Recipe(model=ModelSettings(base=str(folder), quantization=quantization, compute="fp32"), training=TRAINING)
    write_weights(open_merge(tmp_path / "adapter", recipe, "trained"), merged, "fp32")
    shutil.copy(folder / "config.json", merged)
    assert torch.allclose(logits_of(base_of(merged, "none"), ids), logits_of(model, ids), atol=2e-4)


def test_what_is_not_covered_is_named(folder, monkeypatch):
    model = attach_adapter(base_of(folder, "none"), TRAINING, 0)
    with pytest.raises(ModelError, match=r"q_proj.* would not be quantized"):
        check_coverage(model, "nf4", TRAINING)
    with monkeypatch.context() as patched:
        patched.setattr(loading, "quantize_experts", lambda *rest: None)
        with pytest.raises(ModelError, match=r"layers.0.*experts.gate_up_proj.* would not be quantized"):
            check_coverage(base_of(folder), "nf4-double", TRAINING)
    with pytest.raises(ModelError, match="w9 would get no adapter"):
        check_coverage(model, "none", TrainingSettings(targets=("q_proj", "w9")))
    attention = attach_adapter(base_of(folder, "none"), TrainingSettings(targets=("attention",)), 0)
    with pytest.raises(ModelError, match="would get no adapter"):
        check_coverage(attention, "none", TRAINING)


@pytest.mark.parametrize(
    ("model", "training", "cause"),
    [
        ({"quantization": "int8"}, {}, "NF4 only"),
        ({}, {"method": "dora"}, "not by DoRA"),
        ({}, {"dropout": 0.1}, "no dropout"),
        ({}, {"targets": ("q_proj", "up_proj")}, "not up_proj alone"),
        ({"fp8": True}, {}, "do not cover experts"),
        ({}, {"dropout": 0.1, "targets": ("attention",)}, ""),
        ({}, {}, ""),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_loaded(model, training, cause):
    recipe = Recipe(model=ModelSettings(base="x", **model), training=TrainingSettings(**training))
    check_experts(recipe, {"model_type": "qwen3"})
    if cause:
        with pytest.raises(ModelError, match=cause):
            check_experts(recipe, {"model_type": "qwen3_moe", "num_experts": 8})
    else:
        check_experts(recipe, {"model_type": "qwen3_moe", "num_experts": 8})


@pytest.mark.parametrize(
    ("model", "training", "cause"),
    [
        ({}, {}, "'gpt_oss' are not quantized"),
        ({"quantization": "none"}, {}, "'gpt_oss' get no adapter"),
    ],
)
def test_experts_of_other_kinds_stay_as_they_are_only_if_the_recipe_says_so(model, training, cause):
    config = {"model_type": "gpt_oss", "num_local_experts": 4}
    with pytest.raises(ModelError, match=cause):
        check_experts(Recipe(model=ModelSettings(base="x", **model), training=TrainingSettings(**training)), config)
    attention = TrainingSettings(targets=("attention",))
    check_experts(Recipe(model=ModelSettings(base="x", quantization="none"), training=attention), config)


@pytest.mark.parametrize("targets", [("all-linear",), ("attention",)])
def test_the_plan_counts_every_weight(folder, targets):
    model = attach_adapter(base_of(folder, "none"), TrainingSettings(rank=4, targets=targets), 0)
    shape = Shape.of(model.config.to_dict())
    frozen = [
        parameter for parameter in model.base_model.model.model.layers.parameters() if not parameter.requires_grad
    ]
    router = shape.layers * shape.experts * shape.hidden
    assert shape.block_weights == sum(part.numel() for part in frozen if part.dim() > 1) - router
    assert shape.adapter_weights(4, targets == ("attention",)) == sum(p.numel() for p in trainable(model).values())


def test_a_base_that_cannot_fit_is_refused_with_the_figures():
    config = {
        "model_type": "qwen3_moe", "hidden_size": 2048, "moe_intermediate_size": 768, "intermediate_size": 6144,
        "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "tie_word_embeddings": False,
    }  # fmt: skip
    shape, model = Shape.of(config), ModelSettings(base="30B-A3B")
    assert 30.2e9 < shape.block_weights + shape.vocabulary_weights < 30.8e9
    with pytest.raises(ModelError, match=r"takes at least 2\d\.\d of 24\.0 GiB"):
        require_room(Recipe(model=model, training=TrainingSettings(rank=16)), shape, 24 * 2**30)
    require_room(Recipe(model=model, training=TrainingSettings(targets=("attention",))), shape, 24 * 2**30)
