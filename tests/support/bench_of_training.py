"""A tiny training set, model and settings that the training tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tunewright.models.chat_template import load_tokenizer
from tunewright.models.loading import attach_adapter
from tunewright.records import Document, Message, PreferencePair, Sample
from tunewright.settings import TrainingSettings
from tunewright.training.dataset import encode_pairs, encode_samples, encode_texts
from tunewright.training.kernels.distillation import Mixture
from tunewright.training.loop import LoopSettings, TrainingTask, train
from tunewright.training.metrics import MetricsLog
from tunewright.training.objectives import NEXT_TOKEN, Objective, distillation, dpo, reference_logps
from tunewright.training.packing import Example, collate, pack
from tunewright.training.plain_path import PlainPath
from tunewright.training.step_plan import Capacity
from tunewright.training.teacher_prompts import with_teachers

ANSWERS = ["The treated group.", "426 patients in three hospitals.", "It had.", "The documents do not give the answer."]
FIRST = Capacity(micro_batch_tokens=96)


def prompt(number: int) -> tuple[Message, ...]:
    return (
        Message(role="system", content="You answer questions."),
        Message(role="user", content=f"Which group had risk {number}?" + " Who?" * (number % 4)),
    )


def samples(number: int) -> list[Sample]:
    return [
        Sample(
            id=f"{n:03d}",
            task="own",
            messages=(*prompt(n), Message(role="assistant", content=ANSWERS[n % 4] + f" {n}")),
        )
        for n in range(number)
    ]


def pairs(number: int) -> list[PreferencePair]:
    return [
        PreferencePair(id=f"{n:03d}", prompt=prompt(n), chosen=ANSWERS[n % 4] + f" {n}", rejected=ANSWERS[(n + 1) % 4])
        for n in range(number)
    ]


def tiny_examples(folder: Path, number: int = 20) -> list[Example]:
    return encode_samples(samples(number), load_tokenizer(folder), 512)[0]


def tiny_pairs(folder: Path, number: int = 20) -> list[Example]:
    return encode_pairs(pairs(number), load_tokenizer(folder), 512)[0]


PASSAGES = [
    "A trial of 426 patients in three hospitals. The treated group had the lower risk.",
    "Boats lie in the harbor. " * 6,
    "The mill grinds barley by night, and the miller sleeps by day.",
]


def tiny_distilled(folder: Path, number: int = 20) -> list[Example]:
    """Every third sample has no passage; the others have one or two."""
    passages = {sample.id: PASSAGES[n % 3 : n % 3 + 2] for n, sample in enumerate(samples(number)) if n % 3}
    examples, rejections = with_teachers(
        tiny_examples(folder, number), samples(number), passages, load_tokenizer(folder), 512
    )
    assert not rejections
    return examples


def tiny_texts(folder: Path, number: int = 6) -> list[Example]:
    texts = [" ".join(f"{ANSWERS[(n + k) % 4]} {k}" for k in range(20)) for n in range(number)]
    documents = [Document(id=f"d{n}", title="", source="", text=text) for n, text in enumerate(texts)]
    return encode_texts(documents, load_tokenizer(folder), 48, 4)


def dpo_objective(folder: Path, examples: list[Example], **changes: Any) -> Objective:
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference = reference_logps(PlainPath(base), pack(examples, 200), lambda row: collate(row, "cpu"))
    values: dict[str, Any] = {"kind": "sigmoid", "beta": 0.3, "label_smoothing": 0.0, "reference": reference}
    return dpo(**(values | changes))


def tasks(folder: Path) -> dict[str, TrainingTask]:
    preferred = tiny_pairs(folder)
    return {
        "sft": TrainingTask(tiny_examples(folder), NEXT_TOKEN),
        "text": TrainingTask(tiny_texts(folder), NEXT_TOKEN),
        "distillation": TrainingTask(tiny_distilled(folder), distillation(Mixture(1.5, 0.25))),
        "dpo": TrainingTask(preferred, dpo_objective(folder, preferred)),
    }


def tiny_adapted(folder: Path, dropout: float = 0.0, **changes: Any) -> Any:
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    base.requires_grad_(False)
    settings = TrainingSettings(**({"rank": 4, "alpha": 8, "dropout": dropout} | changes))
    return attach_adapter(base, settings, 0)


def loop_settings(**changes: Any) -> LoopSettings:
    values: dict[str, Any] = {
        "seed": 0,
        "learning_rate": 1e-2,
        "epochs": 2,
        "batch_size": 8,
        "warmup_share": 0.1,
        "max_grad_norm": 1.0,
        "checkpoint_steps": 1,
        "device": "cpu",
    }
    return LoopSettings(**(values | changes))


def run_loop(
    model: Any, task: TrainingTask, folder: Path, identity: dict[str, Any], capacity: Capacity = FIRST, **changes: Any
) -> Capacity:
    folder.mkdir(exist_ok=True)
    log = MetricsLog(folder / "metrics.jsonl")
    return train(PlainPath(model), task, loop_settings(**changes), capacity, folder / "checkpoints", identity, log)


def wake(model: Any, seed: int = 1) -> Any:
    """Give the adapter's zero halves values, so that every parameter has a gradient."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model
