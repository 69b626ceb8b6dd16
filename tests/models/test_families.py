"""Every family on a tiny random model: training, packing, decoding and adapters."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from support.bench_of_training import loop_settings, run_loop, wake
from support.families import TINY, WINDOW, adapted, base_of, logits_of, make_family, turns
from tunewright.models.chat_template import IGNORED, encode_prompt, end_ids, load_tokenizer
from tunewright.models.families import FAMILIES
from tunewright.models.generation import AnswerJob, answer_batch
from tunewright.models.loading import load_adapter, save_adapter
from tunewright.records import Sample
from tunewright.training.checkpoint import trainable
from tunewright.training.dataset import encode_samples
from tunewright.training.loop import TrainingTask, accumulate
from tunewright.training.metrics import read_metrics
from tunewright.training.objectives import NEXT_TOKEN, sequence_logps
from tunewright.training.packing import collate
from tunewright.training.plain_path import PlainPath
from tunewright.training.step_plan import Capacity


@pytest.fixture(scope="module", params=TINY)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory):
    return make_family(name, tmp_path_factory.mktemp("families") / name)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def examples(tokenizer):
    """Twelve conversations of different lengths, all of them longer than a sliding window."""
    answers = ("The treated group.", "426 patients in three hospitals.", "It had.")
    samples = [
        Sample(
            id=f"{n:02d}",
            task="own",
            messages=turns(
                f"Which group had risk {n}?" + " Who?" * n, answers[n % 3], "And then?", answers[n % 2], system=True
            ),
        )
        for n in range(12)
    ]
    examples, rejections = encode_samples(samples, tokenizer, 512)
    assert len(examples) == 12, rejections
    assert min(example.num_tokens for example in examples) > 2 * WINDOW
    return examples


# Training


def test_trains_resumes_and_comes_back(folder, examples, tmp_path):
    """Stop after each run's half, go on, and save: the same weights, and the same logits on a fresh base."""
    from peft import PeftModel

    def run(where, stop_at=None):
        model = adapted(base_of(folder), dropout=0.1)
        torch.manual_seed(5)
        task = TrainingTask(examples if stop_at is None else Interrupting(examples, stop_at), NEXT_TOKEN)
        changes = {"epochs": 4, "learning_rate": 1e-2, "batch_size": 4, "checkpoint_steps": 4}
        try:
            run_loop(model, task, where, {"data": "same"}, Capacity(400), **changes)
        except KeyboardInterrupt:
            assert stop_at
        return model

    whole = run(tmp_path / "whole")
    losses = [row["loss"] for row in read_metrics(tmp_path / "whole" / "metrics.jsonl")]
    assert len(losses) == 12
    assert sum(losses[-3:]) < sum(losses[:3]) - 3 * 0.5
    run(tmp_path / "cut", stop_at=6)
    assert len(read_metrics(tmp_path / "cut" / "metrics.jsonl")) == 6
    resumed = run(tmp_path / "cut")
    weights = trainable(whole)
    assert all(torch.equal(weights[key], value) for key, value in trainable(resumed).items())

    save_adapter(whole, tmp_path / "adapter", "a/name")
    ids = examples[-1].sequences[0].input_ids
    expected = logits_of(whole, ids)
    assert torch.equal(logits_of(load_adapter(base_of(folder), tmp_path / "adapter"), ids), expected)
    assert torch.equal(logits_of(PeftModel.from_pretrained(base_of(folder), tmp_path / "adapter"), ids), expected)
    assert not torch.allclose(logits_of(base_of(folder), ids), expected, atol=1e-2)


class Interrupting(list):
    """Sends Ctrl-C while the given step, counted from 1, asks for its examples."""

    def __init__(self, examples, step):
        super().__init__(examples)
        self.calls, self.at = 0, (step - 1) * 4 + 1

    def __getitem__(self, index):
        import signal

        self.calls += 1
        if self.calls == self.at:
            signal.raise_signal(signal.SIGINT)
        return super().__getitem__(index)


def test_a_packed_row_gives_each_sample_what_it_gets_alone(folder, examples):
    model = wake(adapted(base_of(folder))).eval()
    with torch.inference_mode():
        packed = sequence_logps(PlainPath(model), collate(examples, "cpu"))[0]
        alone = torch.cat([sequence_logps(PlainPath(model), collate([example], "cpu"))[0] for example in examples])
        plain = torch.stack([unmasked_logp(model, example.sequences[0]) for example in examples])
    assert torch.allclose(packed, alone, rtol=1e-5, atol=0)
    assert torch.allclose(packed, plain, rtol=1e-5, atol=0)


def unmasked_logp(model, encoded):
    """Return the summed log-probability from an ordinary call: no position ids, no selected logits."""
    logits = model(input_ids=torch.tensor([encoded.input_ids])).logits[0, :-1]
    targets = torch.tensor(encoded.labels[1:])
    return -torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


def test_fused_attention_leaves_nothing_out(folder, examples):
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ids = examples[-1].sequences[0].input_ids
    assert torch.allclose(logits_of(base_of(folder), ids), logits_of(plain, ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in TINY if TINY[name].windowed], scope="module", indirect=True)
def test_the_sliding_window_is_crossed(folder, examples):
    """A wider window gives other logits past its width, so a wrong window would fail the tests beside this one."""
    base = base_of(folder)
    config = copy.deepcopy(base.config)
    text = config.get_text_config()
    text.sliding_window = 4096
    wide = type(base)(config).eval()
    wide.load_state_dict(base.state_dict())
    ids = examples[-1].sequences[0].input_ids
    assert not torch.allclose(logits_of(base, ids)[-1], logits_of(wide, ids)[-1], atol=1e-2)
    assert torch.allclose(logits_of(base, ids[:WINDOW]), logits_of(wide, ids[:WINDOW]), atol=1e-4)


def test_recomputed_activations_give_the_same_gradient(folder, examples):
    model = wake(adapted(base_of(folder))).train()
    gradients = []
    for capacity in (Capacity(200), Capacity(200, kept=0)):
        capacity.apply(PlainPath(model))
        model.zero_grad()
        accumulate(PlainPath(model), NEXT_TOKEN, examples[:4], loop_settings(), capacity)
        gradients.append({key: value.grad.clone() for key, value in trainable(model).items()})
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert all(float(value.abs().max()) > 0 for value in gradients[0].values())
    assert all(torch.equal(gradients[0][key], gradients[1][key]) for key in gradients[0])


# Decoding


def argmax_alone(model, prompt, limit, ends):
    """Decode by a full forward call per token: no cache, no mask, no padding."""
    ids = list(prompt)
    for _ in range(limit):
        token = int(logits_of(model, ids)[-1].argmax())
        if token in ends:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("system", [True, False], ids=["shared prefix", "no system turn"])
def test_batched_decoding_equals_decoding_alone(folder, tokenizer, system):
    base = base_of(folder).eval()
    questions = ["Which group had the lower risk?", "What?", "Who followed 426 patients in three hospitals?" * 2, "W"]
    prompts = [encode_prompt(tokenizer, turns(question, system=system)) for question in questions]
    assert max(map(len, prompts)) - min(map(len, prompts)) > WINDOW
    ends = [*end_ids(tokenizer, base), *range(300, 330)]
    golds = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("It.", "The group had it.", "N", "a")]
    jobs = [AnswerJob(prompt, gold) for prompt, gold in zip(prompts, golds, strict=True)]
    outputs = answer_batch(base, jobs, 20, ends, tokenizer.pad_token_id)
    assert len({tuple(output.token_ids) for output in outputs}) > 1
    for job, output in zip(jobs, outputs, strict=True):
        assert output.token_ids == argmax_alone(base, job.prompt_ids, 20, ends)
        scores = logits_of(base, [*job.prompt_ids, *job.gold_ids])[len(job.prompt_ids) - 1 : -1]
        nll = torch.nn.functional.cross_entropy(scores, torch.tensor(job.gold_ids)).item()
        assert output.gold_nll == pytest.approx(nll, rel=1e-4)


# Adapters


def adapted_layers(model):
    return {key.partition(".lora_A")[0] for key in trainable(model) if ".lora_A" in key}


def test_adapters_reach_the_language_model_alone(name, folder):
    family = FAMILIES[TINY[name].kind]
    attention = adapted_layers(adapted(base_of(folder), targets=("attention",)))
    everything = adapted_layers(adapted(base_of(folder)))
    base = base_of(folder)
    linear = {
        f"base_model.model.{key}"
        for key, module in base.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not base.get_output_embeddings()
    }
    text = {key for key in linear if "vision" not in key and "multi_modal" not in key}
    assert everything == text
    assert attention == {key for key in text if ".self_attn." in key}
    assert {key.rpartition(".")[2] for key in attention} == set(family.attention_layers)
    assert (linear != text) == bool(family.no_adapter)
