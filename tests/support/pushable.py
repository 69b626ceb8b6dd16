"""A finished run with an adapter's files, as a push wants it: no model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support import finished_run
from tunewright.recipe import Recipe
from tunewright.records import Document, Message, Sample, SplitEntry, digest
from tunewright.run_folder import RunFolder
from tunewright.storage import file_digest

WEIGHTS = bytes(range(256)) * 40


def sample(text: str = "The treated group.", task: str = "answer-first") -> Sample:
    messages = (Message(role="user", content="Which group?"), Message(role="assistant", content=text))
    return Sample(id=digest(text, task), task=task, messages=messages)


def write(
    path: Path, recipe: Recipe = finished_run.RECIPE, docs: list[Document] | None = None, **more: Any
) -> RunFolder:
    """Write a run folder that may be pushed; ``more`` goes to finished_run.write."""
    run, _ = finished_run.write(path, recipe, docs=docs, **more)
    documents = finished_run.documents() if docs is None else docs
    sides = [
        SplitEntry(document=d.id, side="exam" if n % 4 == 3 else "train", group="g") for n, d in enumerate(documents)
    ]
    run.write_records("split.jsonl", sides)
    run.write_records("train.jsonl", [sample(), sample("No.", "refusal"), sample("Own.", "own")])
    run.write_json("adapter/adapter_config.json", {"base_model_name_or_path": "/home/someone/base", "r": 16})
    run.write("adapter/adapter_model.safetensors", WEIGHTS)
    run.write("adapter/tokenizer.json", json.dumps({"vocabulary": list(range(1000))}))
    record(run, "train", "outputs", adapter=file_digest(run.file("adapter")))
    record(run, "evaluate", "ingredients", adapter=file_digest(run.file("adapter")))
    record(run, "curate", "outputs", **{"train.jsonl": file_digest(run.file("train.jsonl"))})
    return run


def record(run: RunFolder, stage: str, part: str, **values: str) -> None:
    name = f"stages/{stage}.json"
    content = run.read_json(name)
    run.write_json(name, {**content, part: content.get(part, {}) | values})
