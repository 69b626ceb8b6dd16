"""A run up to its trained adapter on a tiny model, without any teacher: own data and an own exam on made-up facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.recipe import Recipe, parse_recipe

NUM_DOCUMENTS = 6
_TRAINING = {"epochs": 2, "rank": 4, "learning_rate": 0.01, "checkpoint_steps": 2, "batch_size": 4}


def write_data(folder: Path) -> tuple[Path, Path]:
    """Write chats and an exam of two questions on each of six documents; return their paths."""
    chats, questions = [], []
    for n in range(2 * NUM_DOCUMENTS):
        turns = [
            {"role": "user", "content": f"Which group is number {n}?"},
            {"role": "assistant", "content": f"Group {n} of {100 + n}."},
        ]
        chats.append({"messages": turns})
        question = {"question": f"What is the name of group number {n}?", "answer": f"Group {n} of {100 + n}."}
        questions.append(question | {"document": f"d{n // 2}"})
    data, exam = folder / "own.jsonl", folder / "exam.jsonl"
    data.write_text("".join(json.dumps(chat) + "\n" for chat in chats), encoding="utf-8")
    exam.write_text("".join(json.dumps(question) + "\n" for question in questions), encoding="utf-8")
    return data, exam


def own_recipe(folder: Path, student: Path, **sections: Mapping[str, Any]) -> Recipe:
    """Return a recipe that needs no teacher; ``sections`` add or replace settings."""
    folder.mkdir(parents=True, exist_ok=True)
    data, exam = write_data(folder)
    content: dict[str, dict[str, Any]] = {
        "exam": {"file": str(exam)},
        "synthesis": {"samples_per_document": 0, "data": [str(data)]},
        "model": {"base": str(student), "quantization": "none", "compute": "fp32"},
        "training": dict(_TRAINING),
        "retrieval": {"model": ""},
        "evaluation": {"arms": ["base", "few-shot", "tuned"], "max_new_tokens": 6, "few_shot": 2},
    }
    for name, values in sections.items():
        content[name] = content.get(name, {}) | dict(values)
    return parse_recipe(content, folder)
