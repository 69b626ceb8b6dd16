"""Every family with tokens that were added to it, and without a template of its own."""

from dataclasses import replace

import pytest
import torch

from support.bench_of_training import run_loop
from support.families import TINY, WORDS, adapted, base_of, logits_of, make_family, turns
from tunewright.models.chat_template import DEFAULT_TEMPLATE, encode, load_tokenizer
from tunewright.models.loading import load_adapter, save_adapter
from tunewright.records import Sample
from tunewright.training.dataset import encode_samples
from tunewright.training.loop import TrainingTask
from tunewright.training.metrics import read_metrics
from tunewright.training.objectives import NEXT_TOKEN
from tunewright.training.step_plan import Capacity

ADDED = ("<dose>", "<gene>")


def chats_with(*answers):
    return [
        Sample(id=f"{n:02d}", task="own", messages=turns(f"Which group {n}?", answers[n % len(answers)]))
        for n in range(4)
    ]


def train_on(model, tokenizer, samples, where, steps):
    examples, rejections = encode_samples(samples, tokenizer, 512)
    assert not rejections
    changes = {"epochs": steps, "learning_rate": 2e-2, "checkpoint_steps": steps}
    run_loop(model, TrainingTask(examples, NEXT_TOKEN), where, {"data": "same"}, Capacity(400), **changes)
    losses = [row["loss"] for row in read_metrics(where / "metrics.jsonl")]
    assert losses[-1] < losses[0] - 1
    return examples


@pytest.mark.parametrize("name", TINY)
def test_added_tokens_are_learned_and_come_back(name, tmp_path):
    folder = make_family(name, tmp_path / "base")
    tokenizer = load_tokenizer(folder, ADDED)
    ids = tuple(tokenizer.convert_tokens_to_ids(list(ADDED)))
    assert min(ids) >= 400
    base = base_of(folder, len(tokenizer))
    every = torch.arange(len(tokenizer))
    rows = base.get_input_embeddings()(every).clone()
    text = encode(tokenizer, turns("Which <dose>?", "It had <gene>.")).input_ids
    untrained = logits_of(base, text)
    assert untrained.shape[1] == len(tokenizer)
    assert torch.equal(logits_of(base_of(folder, len(tokenizer)), text), untrained)
    model = adapted(base, ids)
    assert torch.equal(logits_of(model, text), untrained)

    examples = train_on(model, tokenizer, chats_with("<dose> of <gene>"), tmp_path, 30)
    with torch.inference_mode():
        changed = (model.get_input_embeddings()(every) != rows).any(dim=1)
    assert set(every[changed].tolist()) == set(ids)
    sequence = examples[0].sequences[0]
    predicted = logits_of(model, sequence.input_ids).argmax(-1)
    positions = [position for position, label in enumerate(sequence.labels) if label in ids]
    assert len(positions) == 2
    assert [int(predicted[position - 1]) for position in positions] == [
        sequence.labels[position] for position in positions
    ]

    save_adapter(model, tmp_path / "adapter", "a/name")
    fresh = load_adapter(base_of(folder, len(tokenizer)), tmp_path / "adapter")
    assert torch.equal(logits_of(fresh, text), logits_of(model, text))


@pytest.mark.parametrize("name", TINY)
def test_a_base_without_template_gets_the_default_and_trains(name, tmp_path):
    words = replace(WORDS[TINY[name].words], template=None)
    folder = make_family(name, tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    words.write(folder)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.chat_template == DEFAULT_TEMPLATE
    samples = chats_with("The treated group.", "Nobody")
    examples = train_on(adapted(base_of(folder)), tokenizer, samples, tmp_path / "run", 8)
    assert all(example.sequences[0].labels.count(tokenizer.eos_token_id) == 1 for example in examples)
