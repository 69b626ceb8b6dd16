"""Kinds of models of this year on the plain path: trained, resumed, saved, loaded and merged, each as a tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from support.bench_of_training import run_loop, tiny_examples
from support.families import adapted, base_of, logits_of
from support.tiny import make_tokenizer
from tunewright.export.merge import open_merge, write_weights
from tunewright.models.base_contents import require_base
from tunewright.models.families import PLAIN_KINDS
from tunewright.models.generation import AnswerJob, answer_batch
from tunewright.models.hardware import Shape
from tunewright.models.loading import load_adapter, load_base, save_adapter
from tunewright.models.source import read_config
from tunewright.recipe import Recipe
from tunewright.settings import ModelSettings, TrainingSettings
from tunewright.training.checkpoint import trainable
from tunewright.training.loop import TrainingTask
from tunewright.training.objectives import NEXT_TOKEN, sequence_logps
from tunewright.training.packing import collate
from tunewright.training.plain_path import PlainPath
from tunewright.training.step_plan import Capacity

_SIZES = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "sliding_window": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
    "num_hidden_layers": 2,
}
_GEMMA = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 400, "num_kv_shared_layers": 0}
_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "qwen3_5_text": _LINEAR,
    "qwen3_5": _LINEAR,
    "gemma3n_text": {**_GEMMA, "laurel_rank": 4, "altup_num_inputs": 2},
    "gemma4_text": {**_GEMMA, "global_head_dim": 16, "num_global_key_value_heads": 2},
    "gemma4": {**_GEMMA, "global_head_dim": 16, "num_global_key_value_heads": 2},
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 96, "attention_chunk_size": 16},
}
_FIRST = ("qwen3_5_text", "gemma4_text", "llama4_text")  # the others are slow together


@pytest.fixture(
    scope="module", params=[pytest.param(k, marks=[] if k in _FIRST else [pytest.mark.slow]) for k in PLAIN_KINDS]
)
def folder(request, tmp_path_factory):
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if request.param not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        pytest.skip(f"this version of transformers has no {request.param}")
    values = {**_SIZES, **_CHANGES.get(request.param, {})}
    nested = PLAIN_KINDS[request.param].nested
    folder = tmp_path_factory.mktemp("kinds") / request.param
    make_tokenizer(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **({nested: values} if nested else values))
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recipe(folder):
    # Experts of these kinds get no adapter, and a recipe that asks for them is refused.
    sparse = folder.name == "gpt_oss" or "num_local_experts" in _CHANGES.get(folder.name, {})
    training = TrainingSettings(targets=("attention",) if sparse else ("all-linear",))
    return Recipe(model=ModelSettings(base=str(folder), quantization="none", compute="fp32"), training=training)


class Interrupting(list):
    """Sends Ctrl-C once a step beyond the first asks for its examples."""

    def __init__(self, examples):
        super().__init__(examples)
        self.calls = 0

    def __getitem__(self, index):
        self.calls += 1
        if self.calls == 9:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_trains_resumes_comes_back_and_merges(folder, recipe, tmp_path):
    require_base(recipe)
    assert Shape.of(read_config(folder)).hidden == 64
    examples = tiny_examples(folder, 8)

    def run(where, rows=examples):
        torch.manual_seed(3)
        model = adapted(base_of(folder), targets=recipe.training.targets)
        run_loop(model, TrainingTask(rows, NEXT_TOKEN), tmp_path / where, {"data": "same"}, Capacity(200), batch_size=4)
        return model

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("cut", Interrupting(examples))
    resumed, weights = run("cut"), trainable(whole)
    assert all(torch.equal(weights[key], value) for key, value in trainable(resumed).items())

    save_adapter(whole, tmp_path / "adapter", "a/name")
    ids = examples[-1].sequences[0].input_ids
    expected = logits_of(whole, ids)
    assert not torch.allclose(logits_of(base_of(folder), ids), expected, atol=1e-3)
    assert torch.allclose(logits_of(load_adapter(base_of(folder), tmp_path / "adapter"), ids), expected, atol=1e-5)
    merged = tmp_path / "merged"
    merged.mkdir()
    write_weights(open_merge(tmp_path / "adapter", recipe, "trained"), merged, "fp32")
    shutil.copy(folder / "config.json", merged)
    assert torch.allclose(logits_of(load_base(merged, "none", "cpu", torch.float32), ids), expected, atol=2e-4)


def test_a_packed_row_gives_each_sample_what_it_gets_alone(folder):
    examples = tiny_examples(folder, 4)
    path = PlainPath(adapted(base_of(folder)).eval())
    with torch.inference_mode():
        packed = sequence_logps(path, collate(examples, "cpu"))[0]
        alone = torch.cat([sequence_logps(path, collate([example], "cpu"))[0] for example in examples])
    assert torch.allclose(packed, alone, rtol=1e-6, atol=1e-5)


def assert_answers_as_the_whole_text_does(model):
    """Prompts of two lengths with a common start: each answer, and each gold answer's score, is the row's own."""
    drawn = torch.randint(5, 390, (31,), generator=torch.Generator().manual_seed(0)).tolist()
    jobs = [AnswerJob(drawn[:size], gold) for size, gold in ((31, (7, 8)), (24, (11,)))]
    answers = answer_batch(model, jobs, 2, [], 0)
    for job, answer in zip(jobs, answers, strict=True):
        ids = list(job.prompt_ids)
        for _ in range(2):
            ids.append(int(logits_of(model, ids)[-1].argmax()))
        assert answer.token_ids == ids[len(job.prompt_ids) :]
        logits = logits_of(model, [*job.prompt_ids, *job.gold_ids])[len(job.prompt_ids) - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(job.gold_ids))
        assert answer.gold_nll == pytest.approx(float(expected), abs=1e-4)


def test_answers_as_the_whole_text_does(folder):
    assert_answers_as_the_whole_text_does(base_of(folder).eval())


_STATES = {  # kinds that no other test knows: a state beside keys and values, a state alone, and no usable cache
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 8},
    "mamba": {"state_size": 8, "time_step_rank": 4},
    "rwkv": {"attention_hidden_size": 64},
}


@pytest.mark.parametrize("kind", ["bamba", *(pytest.param(k, marks=pytest.mark.slow) for k in ("mamba", "rwkv"))])
def test_a_kind_that_keeps_a_state_answers_as_the_whole_text_does(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**_SIZES, "num_hidden_layers": 2, **_STATES[kind]})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    assert_answers_as_the_whole_text_does(model.eval())


@pytest.mark.parametrize("kind", [kind for kind in PLAIN_KINDS if kind.startswith(("qwen", "lfm"))])
def test_attention_alone_reaches_every_layer_of_a_mixed_model(kind):
    """Layers of linear attention or convolution have their own names."""
    layers = PLAIN_KINDS[kind].attention_layers
    assert set(layers) >= {"q_proj", "out_proj"}
