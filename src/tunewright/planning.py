"""What a run will do before it does it: calls, tokens, memory and time per stage; what is fresh."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import console, pipeline
from tunewright.documents.stage import source_files
from tunewright.errors import ModelError
from tunewright.models.source import locate, read_config
from tunewright.recipe import EMBEDDED, Recipe
from tunewright.records import Document, Sample, SplitEntry
from tunewright.rundir import RunFolder

# Stated guesses, replaced by what this run's journal and metrics measured as soon as there is something.
_SECONDS_PER_CALL = {True: 0.6, False: 2.0}  # embedded teacher on two cores; one call to a server
_TOKENS_PER_CALL = 160
_TOKENS_PER_SAMPLE = 110
_YIELD = 0.75  # share of the written samples that curation keeps
_FLOPS = {"cpu": 1.2e11, "cuda": 2.5e14}  # sustained, two cores with wide vectors; one large GPU


@dataclass(frozen=True)
class Sizes:
    """How much there is to do."""

    num_train_documents: int
    num_exam_documents: int
    num_samples: int
    num_tokens: int
    num_questions: int


def show_plan(recipe: Recipe, folder: Path) -> None:
    """Print a line per stage, and the peak memory of training."""
    run = RunFolder(folder)
    sizes = _sizes(recipe, run)
    shape = _shape(recipe)
    rows = []
    for state in pipeline.states(run, recipe):
        work, seconds = _work(state.stage.name, recipe, run, sizes, shape)
        if state.state == "fresh":
            work, seconds = "nothing: fresh", 0.0
        rows.append((state.stage.name, state.state, work, _duration(seconds), state.why))
    console.table(f"plan for {folder}", ("stage", "state", "work", "about", "why"), rows)
    for line in _memory(recipe, shape):
        console.line(line)


def _sizes(recipe: Recipe, run: RunFolder) -> Sizes:
    """Count from the run folder where it knows, else from the files and the recipe."""
    if run.file("split.jsonl").exists():
        sides = [entry.side for entry in run.read_records("split.jsonl", SplitEntry)]
        exam = sides.count("exam")
        train = len(sides) - exam
    elif run.file("documents.jsonl").exists():
        total = len(run.read_records("documents.jsonl", Document))
        exam = round(total * recipe.split.exam_share)
        train = total - exam
    else:
        total = len(source_files(recipe)) if recipe.documents.paths or not recipe.synthesis.data else 0
        exam = round(total * recipe.split.exam_share)
        train = total - exam
    written = train * recipe.synthesis.samples_per_document
    kept = round(written * _YIELD * (1 + 2 * recipe.synthesis.refusal_share * ("refusal" in recipe.synthesis.tasks)))
    tokens = kept * _TOKENS_PER_SAMPLE
    if run.file("train.jsonl").exists():
        samples = run.read_records("train.jsonl", Sample)
        kept = len(samples)
        tokens = sum(len(message.content) for sample in samples for message in sample.messages) // 4
    questions = train * recipe.exam.learned_per_document + 2 * exam * recipe.exam.unseen_per_document
    return Sizes(train, exam, kept, tokens, questions)


def _shape(recipe: Recipe) -> dict[str, Any]:
    """Return the base model's config where it is at hand; a plan fetches nothing but the embedded one's config."""
    path = recipe.resolve(recipe.model.base)
    try:
        if recipe.model.base == EMBEDDED or path.is_dir():
            return read_config(locate(recipe.model.base, recipe.folder))
    except ModelError:
        pass
    return {}


def num_parameters(shape: dict[str, Any]) -> tuple[int, int]:
    """Return (parameters of the block linears, parameters of embedding and head) of a decoder with gated MLPs."""
    hidden, layers = int(shape["hidden_size"]), int(shape["num_hidden_layers"])
    heads = int(shape["num_attention_heads"])
    head_size = int(shape.get("head_dim") or hidden // heads)
    key_values = int(shape.get("num_key_value_heads") or heads) * head_size
    attention = 2 * hidden * heads * head_size + 2 * hidden * key_values
    block = attention + 3 * hidden * int(shape["intermediate_size"])
    vocabulary = int(shape["vocab_size"]) * hidden
    return layers * block, vocabulary * (1 if shape.get("tie_word_embeddings") else 2)


def _work(stage: str, recipe: Recipe, run: RunFolder, sizes: Sizes, shape: dict[str, Any]) -> tuple[str, float]:
    """Return (what a stage does, about how many seconds it takes)."""
    calls = 0
    if stage == "exam" and not recipe.exam.file:
        calls = (
            sizes.num_train_documents * recipe.exam.learned_per_document
            + sizes.num_exam_documents * recipe.exam.unseen_per_document
        )
    if stage == "synth" and recipe.synthesis.tasks:
        calls = sizes.num_train_documents * recipe.synthesis.samples_per_document
    if calls:
        per_call = _seconds_per_call(recipe, run)
        return f"≤ {calls} calls, ≤ {calls * _TOKENS_PER_CALL:,} tokens", calls * per_call
    if stage == "train" and shape:
        steps = -(-sizes.num_samples // recipe.training.batch_size) * recipe.training.epochs
        tokens = sizes.num_tokens * recipe.training.epochs
        linears, head = num_parameters(shape)
        return f"{steps} steps, {tokens:,} tokens", 4 * (linears + head) * tokens / _FLOPS[_device()]
    if stage == "train":
        return f"{sizes.num_samples} samples; time is known once {recipe.model.base} is fetched", 0.0
    if stage == "evaluate":
        answers = sizes.num_questions * len(recipe.evaluation.arms)
        return f"{answers} answers", answers * (0.5 if _device() == "cpu" else 0.1)
    return "", 2.0


def _seconds_per_call(recipe: Recipe, run: RunFolder) -> float:
    """Return the mean of the journalled calls, else the stated guess, divided by the calls under way at once."""
    embedded = recipe.teacher.url == EMBEDDED
    at_once = 1 if embedded else recipe.teacher.concurrency
    journal = run.file("teacher.jsonl")
    # Read line by line, not as a Journal: another process may be writing to it.
    lines = journal.read_text(encoding="utf-8").split("\n")[:-1] if journal.exists() else []
    took = [float(entry["seconds"]) for entry in map(json.loads, lines) if "seconds" in entry]
    return (sum(took) / len(took) if took else _SECONDS_PER_CALL[embedded]) / at_once


def _memory(recipe: Recipe, shape: dict[str, Any]) -> Iterator[str]:
    """Yield the predicted peak memory of training, term by term."""
    if not shape:
        yield f"memory: known once {recipe.model.base} is fetched"
        return
    linears, head = num_parameters(shape)
    bits = {"nf4-double": 4.13, "nf4": 4.5, "none": 16}[recipe.model.quantization]
    base = linears * bits / 8 + head * 2
    hidden, layers = int(shape["hidden_size"]), int(shape["num_hidden_layers"])
    widths = 7 * hidden + 2 * int(shape["intermediate_size"]) + hidden
    adapter = recipe.training.rank * layers * widths * 16  # fp32 weight, gradient and two moments
    tokens = recipe.training.micro_batch_size * recipe.training.max_tokens
    activations = tokens * layers * 2 * (8 * hidden + 5 * int(shape["intermediate_size"]))
    total = (base + adapter + activations) / 2**30
    yield (
        f"memory of training: about {total:.1f} GiB at most = base {base / 2**30:.1f} + adapter {adapter / 2**30:.1f}"
        f" + activations {activations / 2**30:.1f} ({recipe.training.micro_batch_size} × "
        f"{recipe.training.max_tokens} tokens)"
    )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
