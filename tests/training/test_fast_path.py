"""The fast path gives the loss and the gradients of the plain one (transformers and peft), in fp32 on a CPU."""

import copy

import pytest
import torch
from bench_of_training import loop_settings, tasks, tiny_adapted, tiny_examples, wake

from families import TINY, WINDOW, adapted, base_of, make_family
from tunewright.models.load import attach_adapter, load_base
from tunewright.models.template import load_tokenizer
from tunewright.settings import TrainingSettings
from tunewright.training.batches import collate
from tunewright.training.capacity import Capacity
from tunewright.training.checkpoint import trainable
from tunewright.training.kernels.decoder import FastDecoder, why_not
from tunewright.training.loop import accumulate
from tunewright.training.objectives import FAST, NEXT_TOKEN, token_logps

LIKE_LLAMA = [name for name in TINY if name.startswith(("llama", "mistral", "qwen", "smollm", "zephyr"))]


def gradients(model, objective, examples, budget=1000):
    model.zero_grad()
    loss = accumulate(model, objective, examples, loop_settings(), Capacity(budget))["loss"]
    return loss, {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


def assert_same(one, other, tolerance):
    (loss, ours), (expected, theirs) = one, other
    assert float(loss) == pytest.approx(float(expected), rel=tolerance)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient.norm() > 0
        assert (ours[name] - gradient).norm() <= tolerance * gradient.norm(), name


def fast(model, raised=10**6, cached=True):
    decoder = FastDecoder(model)
    decoder.configure(raised, cached)
    setattr(model, FAST, decoder)
    return decoder


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("quantization", ["none", "nf4", "nf4-double"])
def test_loss_and_gradients_are_those_of_the_reference(tiny_model, quantization, kept, cached):
    base = load_base(tiny_model, quantization, "cpu", torch.float32)
    model = wake(attach_adapter(base, TrainingSettings(rank=4, alpha=8), 0)).train()
    examples = tiny_examples(tiny_model, 8)
    reference = gradients(model, NEXT_TOKEN, examples)
    decoder = fast(model)
    decoder.configure(round(kept * len(decoder.layers)), cached)
    assert_same(gradients(model, NEXT_TOKEN, examples), reference, 1e-5)


@pytest.mark.parametrize("name", ["text", "dpo"])
def test_other_objectives(tiny_model, name):
    model, task = wake(tiny_adapted(tiny_model)), tasks(tiny_model)[name]
    reference = gradients(model, task.objective, task.examples)
    fast(model)
    assert_same(gradients(model, task.objective, task.examples), reference, 1e-5)


@pytest.mark.parametrize("name", TINY)
def test_every_family_takes_it_or_says_why_not(name, tmp_path):
    folder = make_family(name, tmp_path / name)
    model = wake(adapted(base_of(folder))).train()
    examples = tiny_examples(folder, 6)
    longest = max(len(example.sequences[0].input_ids) for example in examples)
    reason = why_not(model, longest)
    if name not in LIKE_LLAMA:
        assert reason
        return
    assert not reason or (longest > WINDOW and "looks back" in reason)
    if not reason:
        reference = gradients(model, NEXT_TOKEN, examples)
        fast(model)
        assert_same(gradients(model, NEXT_TOKEN, examples), reference, 1e-5)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",), ("up_proj", "o_proj")])
def test_layers_without_an_adapter(tiny_model, targets):
    model = wake(tiny_adapted(tiny_model, targets=targets))
    examples = tiny_examples(tiny_model, 6)
    reference = gradients(model, NEXT_TOKEN, examples)
    fast(model).configure(0, False)
    assert_same(gradients(model, NEXT_TOKEN, examples), reference, 1e-5)


@pytest.mark.parametrize("changes", [{"method": "dora"}, {"dropout": 0.1}])
def test_what_it_cannot_do_is_refused(tiny_model, changes):
    assert why_not(tiny_adapted(tiny_model, **changes), 100)


def test_factors_are_read_anew_after_a_step(tiny_model):
    """The cached matrices follow the optimizer, and a checkpoint read into the adapter."""
    model, batch = wake(tiny_adapted(tiny_model)), collate(tiny_examples(tiny_model, 4), "cpu")
    plain = copy.deepcopy(model)
    fast(model)
    before = token_logps(model, batch)
    with torch.no_grad():
        for one, other in zip(trainable(model).values(), trainable(plain).values(), strict=True):
            one.mul_(1.5)
            other.mul_(1.5)
    after = token_logps(model, batch)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, token_logps(plain, batch), rtol=1e-5, atol=1e-5)


def test_without_the_adapter_it_is_the_base(tiny_model):
    model, batch = wake(tiny_adapted(tiny_model)), collate(tiny_examples(tiny_model, 4), "cpu")
    with torch.no_grad(), model.disable_adapter():
        base = token_logps(model, batch)
        fast(model)
        torch.testing.assert_close(token_logps(model, batch), base, rtol=1e-5, atol=1e-5)


def test_added_tokens_are_trained_through_it(tiny_model):
    base = load_base(tiny_model, "none", "cpu", torch.float32, len(load_tokenizer(tiny_model)))
    model = wake(attach_adapter(base, TrainingSettings(rank=4), 0, new_tokens=(7, 9)))
    examples = tiny_examples(tiny_model, 6)
    reference = gradients(model, NEXT_TOKEN, examples)
    fast(model)
    assert_same(gradients(model, NEXT_TOKEN, examples), reference, 1e-5)
