"""Mixtures of experts: quantized, adapted, trained by both paths alike, saved and read by peft, or refused by name."""

import pytest
import torch

from support.bench_of_training import loop_settings, tiny_examples, wake
from support.families import MORE, logits_of, make_family
from tunewright.errors import ModelError
from tunewright.models import loading
from tunewright.models.coverage import check_coverage
from tunewright.models.experts import expert_modules, obstacle, packed_parameter
from tunewright.models.loading import attach_adapter, load_adapter, load_base, save_adapter
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
def test_what_cannot_be_done_is_said_before_anything_is_loaded(model, training, cause):
    recipe = Recipe(model=ModelSettings(base="x", **model), training=TrainingSettings(**training))
    reason, _ = obstacle(recipe, {"num_experts": 8})
    assert cause in reason
    assert bool(reason) == bool(cause)
    assert obstacle(recipe, {}) == ("", "")
