from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, FalconConfig

from support.families import MORE, TINY, WINDOW, base_of, make_family
from tunewright.models.decoder import Decoder, cache_name
from tunewright.models.recorded_steps import RecordedSteps, can_record

PROMPTS = [[7, 8, 9, 10, 11, 12], [5, 6, 7], [9, 3, 4, 5]]  # of different lengths: rows are padded
STEPS = 6


def in_steps(model, fixed, refused=False):
    """The logits of the prompts' next tokens, step by step; the likeliest token is taken."""
    with torch.inference_mode():
        decoder = Decoder(model, PROMPTS, 0)
        logits = [decoder.logits.clone()]
        if fixed:
            decoder.recorded = RecordedSteps(model, cache_name(model), decoder.cache.layers, decoder.mask, STEPS)
            decoder.recorded._may_record = refused
        for _ in range(STEPS):
            decoder.step(logits[-1].argmax(-1))
            logits.append(decoder.logits.clone())
        return torch.stack(logits)


def test_a_step_that_cannot_be_recorded_is_taken_and_those_after_it_are_launched(tiny_model, monkeypatch):
    tries = []

    @contextmanager
    def refused(graph):
        tries.append(graph)
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {"CUDAGraph": object, "Stream": lambda: stream, "current_stream": lambda: stream}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "stream", lambda aside: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", refused)
    model = base_of(tiny_model).eval()
    torch.testing.assert_close(in_steps(model, True, refused=True), in_steps(model, False), rtol=1e-4, atol=1e-5)
    assert len(tries) == 1


@pytest.mark.parametrize("name", TINY | MORE)
def test_fixed_buffers_give_the_logits_of_a_growing_cache(name, tmp_path):
    model = base_of(make_family(name, tmp_path / name)).eval()
    with torch.inference_mode():
        layers = Decoder(model, PROMPTS, 0).cache.layers
    sparse = "num_experts_per_tok" in (TINY | MORE)[name].config
    assert can_record(model, layers, len(PROMPTS[0]) + STEPS) == (not sparse)
    torch.testing.assert_close(in_steps(model, True), in_steps(model, False), rtol=1e-4, atol=1e-5)


SIZES = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "n_layer": 2,
    "n_head": 4,
}


@pytest.mark.parametrize("config", [BloomConfig(**SIZES), FalconConfig(**SIZES, alibi=True)])
def test_positions_that_follow_from_the_mask_are_not_recorded(config):
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.inference_mode():
        layers = Decoder(model, PROMPTS, 0).cache.layers
    assert not can_record(model, layers, len(PROMPTS[0]) + STEPS)
    with pytest.raises(ValueError):
        in_steps(model, True)  # why


def model_of(**config):
    text = SimpleNamespace(**({"_attn_implementation": "sdpa", "model_type": "llama"} | config))
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text, to_dict=lambda: dict(config)))


@pytest.mark.parametrize(
    ("config", "possible"),
    [
        ({}, True),
        ({"sliding_window": WINDOW}, True),
        ({"sliding_window": WINDOW - 1}, False),
        ({"attention_chunk_size": WINDOW - 1}, False),
        ({"rope_parameters": {"rope_type": "llama3"}}, True),
        ({"rope_parameters": {"rope_type": "longrope"}}, False),
        ({"rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}, False),
        ({"_attn_implementation": "flash_attention_2"}, False),
        ({"model_type": "bloom"}, False),
        ({"model_type": "falcon", "alibi": True}, False),
        ({"model_type": "falcon", "alibi": False}, True),
    ],
)
def test_what_a_window_or_a_rotation_would_change_is_not_recorded(config, possible):
    assert can_record(model_of(**config), [], WINDOW) == possible


def test_a_cache_of_another_kind_is_not_recorded():
    assert not can_record(model_of(), [SimpleNamespace(keys=None)], WINDOW)
