"""Fused norms of the plain path: the values and gradients of transformers' own classes, for every form of theirs."""

from importlib import import_module

import pytest
import torch

from support.bench_of_training import wake
from support.families import adapted, base_of, make_family
from tunewright.training.kernels.norms import fuse_norms

SIZE = 16
FORMS = {  # how transformers writes them: a weight, a weight of 32-bit values, a difference from 1, a power
    "llama.LlamaRMSNorm": True,
    "olmo2.Olmo2RMSNorm": True,
    "gemma3.Gemma3RMSNorm": True,
    "gemma4.Gemma4RMSNorm": True,
    "nemotron_h.NemotronHRMSNorm": True,
    "qwen3_next.Qwen3NextRMSNormGated": False,
    "t5.T5LayerNorm": False,
}


def norm_of(name):
    kind, _, class_name = name.partition(".")
    return getattr(import_module(f"transformers.models.{kind}.modeling_{kind}"), class_name)(SIZE, eps=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_the_classs_own(name):
    torch.manual_seed(0)
    norm = norm_of(name).requires_grad_(False)
    norm.weight.copy_(torch.randn(SIZE))
    values = torch.randn(1, 5, 3, SIZE).transpose(1, 2).requires_grad_()  # heads, as attention turns them
    upper = torch.randn(1, 3, 5, SIZE)
    assert fuse_norms(norm) == FORMS[name]
    if FORMS[name]:
        ours = norm(values)
        (gradient,) = torch.autograd.grad(ours, values, upper)
        expected = type(norm).forward(norm, values)
        (reference,) = torch.autograd.grad(expected, values, upper)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-6)
        assert ours.stride() == values.stride()


def test_norms_that_are_trained_or_that_only_look_alike_stay():
    trained = norm_of("llama.LlamaRMSNorm")
    assert fuse_norms(trained) == 0

    class ShiftedRMSNorm(type(trained)):
        def forward(self, x):
            return super().forward(x) + 0.1

    assert fuse_norms(ShiftedRMSNorm(SIZE).requires_grad_(False)) == 0


@pytest.mark.parametrize("name", ["gemma3", "qwen3"])
def test_all_norms_of_a_model_and_its_gradients(name, tmp_path):
    model = wake(adapted(base_of(make_family(name, tmp_path / name)))).train()
    factors = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tokens = torch.arange(3, 33)[None]

    def gradients():
        loss = model(input_ids=tokens, labels=tokens).loss
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, factors)])

    expected = gradients()
    assert fuse_norms(model) == sum("RMSNorm" in type(part).__name__ for part in model.modules())
    ours = gradients()
    assert (ours - expected).norm() <= 1e-5 * expected.norm()
