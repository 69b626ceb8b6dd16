"""The plain path: attention by lengths is that of transformers' masks, in value and gradient, for every kind of score."""

import pytest
import torch

from support.bench_of_training import loop_settings, tiny_examples, wake
from support.families import adapted, base_of, make_family
from tunewright.training import plain_path
from tunewright.training.checkpoint import trainable
from tunewright.training.loop import accumulate
from tunewright.training.objectives import NEXT_TOKEN
from tunewright.training.packing import collate
from tunewright.training.plain_path import PlainPath
from tunewright.training.step_plan import Capacity

KINDS = ["gemma2", "gemma3", "mistral", "phi3"]  # windows; with soft caps and a scale; nested; fused projections


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    folder = make_family(request.param, tmp_path_factory.mktemp("plain") / request.param)
    return wake(adapted(base_of(folder))).train(), tiny_examples(folder, 6)


def gradients(path, examples):
    path.model.zero_grad()
    loss = accumulate(path, NEXT_TOKEN, examples, loop_settings(), Capacity(1000))["loss"]
    return loss, torch.cat([parameter.grad.flatten() for parameter in trainable(path.model).values()])


def with_masks(model):
    path = PlainPath(model)
    path._configs = ()
    return path


def test_lengths_give_what_masks_give(case, monkeypatch):
    model, examples = case
    expected = gradients(with_masks(model), examples)
    calls, real = [], plain_path._attention
    monkeypatch.setattr(plain_path, "_attention", lambda *parts, **rest: calls.append(1) or real(*parts, **rest))
    ours = gradients(PlainPath(model), examples)
    assert len(calls) == model.config.get_text_config().num_hidden_layers
    for value, reference in zip(ours, expected, strict=True):
        assert (value - reference).norm() <= 1e-5 * reference.norm()


def test_recomputed_layers_see_the_same_row(case):
    """The recomputation runs in the backward pass, when the next row could be the current one."""
    model, examples = case
    path = PlainPath(model)
    expected = gradients(path, examples)
    path.configure(0, False)
    again = gradients(path, examples)
    model.gradient_checkpointing_disable()
    for value, reference in zip(again, expected, strict=True):
        assert (value - reference).norm() <= 1e-5 * reference.norm()


def test_the_models_own_attention_is_back_afterwards(case):
    model, examples = case
    before = model.config.get_text_config()._attn_implementation
    PlainPath(model).token_logps(collate(examples, "cpu"))
    assert model.config.get_text_config()._attn_implementation == before != plain_path.BY_LENGTHS


@pytest.mark.parametrize("right", [True, False])
def test_a_kind_without_tests_is_tried_first(tmp_path, monkeypatch, right):
    from transformers import GemmaConfig, GemmaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = GemmaConfig(**sizes, head_dim=16, num_hidden_layers=2, vocab_size=64, initializer_range=0.3)
    torch.manual_seed(0)
    model = GemmaForCausalLM(config)
    real = plain_path._attention
    if not right:
        monkeypatch.setattr(plain_path, "_attention", lambda *parts, **rest: (2 * real(*parts, **rest)[0], None))
    assert bool(PlainPath(model)._configs) == right


def test_padding_and_single_sequences_change_nothing(case):
    model, examples = case
    row, path = collate(examples, "cpu"), PlainPath(model)
    with torch.no_grad():
        expected = path.token_logps(row)
        padded = row.padded_to(256)
        assert padded.input_ids.shape[1] == sum(padded.lengths) == -(-sum(row.lengths) // 256) * 256
        torch.testing.assert_close(path.token_logps(padded), expected, rtol=1e-5, atol=1e-6)
        path._configs = ()  # as for layers that carry a state from token to token
        torch.testing.assert_close(path.token_logps(row), expected, rtol=1e-5, atol=1e-6)
