"""The embedded SmolLM2 through GGUF: the same answers and nearly the same probabilities as transformers."""

from __future__ import annotations

import numpy as np
import pytest

from support.exported import divergences, log_probs_of
from support.families import turns
from support.gguf_folder import write_gguf
from tunewright.export.gguf.llama_runner import LlamaRunner
from tunewright.models.chat_template import encode_prompt, load_tokenizer
from tunewright.models.source import model_folder

QUESTIONS = ("Name the capital of France.", "What is 2 + 2?", "Say hello in one word.")


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(model_folder(), file, "f16")
    with LlamaRunner(file) as opened:
        yield opened


@pytest.mark.slow
def test_answers_are_those_of_transformers(runner):
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(model_folder())
    prompts = [encode_prompt(tokenizer, turns(question)) for question in QUESTIONS]
    assert [runner.prompt_ids(turns(question)) for question in QUESTIONS] == prompts
    model = AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32).eval()
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        answers.append(tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True).strip())
    assert runner.answers(prompts, 12) == answers
    assert all(answers)


@pytest.mark.slow
def test_probabilities_are_the_softmax_of_the_raw_logits(runner):
    tokenizer = load_tokenizer(model_folder())
    prompts = [encode_prompt(tokenizer, turns(question)) for question in QUESTIONS]
    got = list(runner.log_probs(prompts))
    assert [len(row) for row in got] == [49152] * 3
    assert np.allclose([np.exp(row.astype(np.float64)).sum() for row in got], 1.0, atol=1e-4)
    assert max(divergences(log_probs_of(model_folder(), prompts), got)) < 1e-4
