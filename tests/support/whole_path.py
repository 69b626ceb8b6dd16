"""A recipe for the whole path on a tiny model with a teacher on the loopback: seconds instead of minutes."""

from __future__ import annotations

import re
from pathlib import Path

from support.faulty_server import Answer, Seen, completion
from tunewright.recipe import toml_value


def asks(seen: Seen) -> Answer:
    """Write a question from the words of the sentence that the prompt shows: deterministic, different per sentence."""
    asked = seen.body["messages"][-1]["content"]
    training = re.search(r"Sentence: (.*)", asked)
    sentence = training or re.search(r"this sentence answers: (.*)", asked)
    assert sentence, asked
    words = re.findall(r"[A-Za-z]{4,}", sentence.group(1))
    lead = "What was reported about" if training else "What did the authors find on"
    return Answer(body=completion(f"{lead} {' '.join(sorted(set(words), key=words.index)[1:6]).lower()}?"))


def write_recipe(folder: Path, student: Path, url: str, sources: Path, **sections: dict[str, object]) -> Path:
    """Write a small recipe; ``sections`` add or replace settings."""
    content: dict[str, dict[str, object]] = {
        "documents": {"paths": [str(sources)], "chunk_tokens": 256},
        "exam": {"learned_per_document": 1, "unseen_per_document": 2, "retention_items": 24},
        "teacher": {"url": url, "model": "fake", "concurrency": 4},
        "synthesis": {"samples_per_document": 4},
        "model": {"base": str(student), "quantization": "none"},
        "training": {"epochs": 2, "rank": 4, "learning_rate": 0.01, "checkpoint_steps": 2},
        "retrieval": {"model": "", "passages": 1},
        "evaluation": {"max_new_tokens": 8, "few_shot": 2},
    }
    for name, values in sections.items():
        content[name] = content.get(name, {}) | values
    lines = []
    for name, values in content.items():
        lines += [f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in values.items()), ""]
    path = folder / "recipe.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
