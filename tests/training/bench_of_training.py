"""A tiny training set, model and settings that the training tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tunewright.models.load import attach_adapter
from tunewright.models.template import load_tokenizer
from tunewright.records import Message, Sample
from tunewright.training.batches import Example, encode_samples
from tunewright.training.loop import LoopSettings

ANSWERS = ["The treated group.", "426 patients in three hospitals.", "It had.", "The documents do not give the answer."]


def samples(number: int) -> list[Sample]:
    return [
        Sample(
            id=f"{n:03d}",
            task="own",
            messages=(
                Message(role="system", content="You answer questions."),
                Message(role="user", content=f"Which group had risk {n}?" + " Who?" * (n % 4)),
                Message(role="assistant", content=ANSWERS[n % 4] + f" {n}"),
            ),
        )
        for n in range(number)
    ]


def tiny_examples(folder: Path, number: int = 20) -> list[Example]:
    return encode_samples(samples(number), load_tokenizer(folder), 512)[0]


def tiny_adapted(folder: Path, dropout: float = 0.0) -> Any:
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    base.requires_grad_(False)
    return attach_adapter(base, 4, 8, dropout, ("all-linear",), seed=0)


def loop_settings(**changes: Any) -> LoopSettings:
    values: dict[str, Any] = {
        "seed": 0,
        "learning_rate": 1e-2,
        "epochs": 2,
        "batch_size": 8,
        "micro_batch_size": 3,
        "warmup_share": 0.1,
        "max_grad_norm": 1.0,
        "checkpoint_steps": 1,
        "pad_id": 2,
        "device": "cpu",
    }
    return LoopSettings(**(values | changes))
