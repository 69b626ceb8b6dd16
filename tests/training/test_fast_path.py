"""The fast path gives the loss and the gradients of the plain one (transformers and peft), in fp32 on a CPU."""

import copy

import pytest
import torch
from bench_of_training import loop_settings, tasks, tiny_adapted, tiny_examples, wake

from families import TINY, adapted, base_of, make_family
from tunewright.errors import RecipeError
from tunewright.models.load import attach_adapter, load_base
from tunewright.models.template import load_tokenizer
from tunewright.recipe import Recipe
from tunewright.settings import ModelSettings, TrainingSettings
from tunewright.training.batches import collate
from tunewright.training.capacity import FAST, Capacity
from tunewright.training.checkpoint import trainable
from tunewright.training.kernels.decoder import FastDecoder
from tunewright.training.loop import accumulate
from tunewright.training.objectives import NEXT_TOKEN, token_logps
from tunewright.training.optimizers import OPTIMIZERS
from tunewright.training.path import take_fast_path

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
def test_every_family_takes_it_or_says_why_not(name, tmp_path, capsys, monkeypatch):
    folder = make_family(name, tmp_path / name)
    model = wake(adapted(base_of(folder))).train()
    examples = tiny_examples(folder, 6)
    reference = gradients(model, NEXT_TOKEN, examples)
    recipe = Recipe(model=ModelSettings(base=str(folder)), training=TrainingSettings(max_tokens=512))
    take_fast_path(recipe, model, "cuda:0")  # named only to be told why
    told = capsys.readouterr().err
    if TINY[name].windowed:
        assert "plain path is taken" in told
        assert not hasattr(model, FAST)
    elif name in LIKE_LLAMA:
        assert not told
        assert_same(gradients(model, NEXT_TOKEN, examples), reference, 1e-5)
    else:
        assert "have layers of their own" in told


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",), ("up_proj", "o_proj")])
def test_layers_without_an_adapter(tiny_model, targets):
    model = wake(tiny_adapted(tiny_model, targets=targets))
    examples = tiny_examples(tiny_model, 6)
    reference = gradients(model, NEXT_TOKEN, examples)
    fast(model).configure(0, False)
    assert_same(gradients(model, NEXT_TOKEN, examples), reference, 1e-5)


@pytest.mark.parametrize("changes", [{"method": "dora"}, {"dropout": 0.1}, {"kernels": "off"}])
def test_what_it_cannot_do_takes_the_plain_path(tiny_model, changes, capsys):
    model = tiny_adapted(tiny_model, **changes)
    settings = TrainingSettings(**changes)
    take_fast_path(Recipe(model=ModelSettings(base=str(tiny_model)), training=settings), model, "cuda:0")
    assert not hasattr(model, FAST)
    assert "plain path is taken" in capsys.readouterr().err


def test_eight_bits_need_the_hardware(tiny_model):
    recipe = Recipe(model=ModelSettings(base=str(tiny_model), fp8=True))
    with pytest.raises(RecipeError, match="needs a GPU with 8-bit"):
        take_fast_path(recipe, tiny_adapted(tiny_model), "cpu")


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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizers_step_is_seen(tiny_model, name):
    """bitsandbytes changes parameters without torch's knowledge."""
    model, batch = wake(tiny_adapted(tiny_model)), collate(tiny_examples(tiny_model, 4), "cpu")
    decoder = fast(model)
    optimizer = OPTIMIZERS[name](trainable(model).values())
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    (-token_logps(model, batch).sum()).backward()
    optimizer.step()
    cached = token_logps(model, batch)
    decoder.configure(0, False)
    for layer in decoder.layers:
        for group in layer.groups:
            group._seen = []  # forget: everything is read anew
    torch.testing.assert_close(cached, token_logps(model, batch))


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
