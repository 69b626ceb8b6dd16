"""The figures of docs/scale.md, by the functions of ``tunewright plan``: 50,000 documents, and bases up to 70B."""

from __future__ import annotations

from pathlib import Path

from tunewright.commands.plan import call_range
from tunewright.commands.plan_sizes import Sizes
from tunewright.models.hardware import Shape
from tunewright.models.memory_plan import choose, predict_memory
from tunewright.recipe import Recipe, parse_recipe

_DOCUMENTS = (500, 5_000, 50_000)
_EXAM = 400  # documents held out, whatever their number
_CALL_S, _CONCURRENCY = 2.0, 16  # plan's guess before the first call; calls at once to each server
_TOKENS_PER_SAMPLE = 110  # plan's guess before there are samples
_YIELD = 0.75  # as above
_GPU_FLOPS = 2.5e14  # as above
_BASES = {
    "Llama-3.2-3B": (3072, 8192, 28, 24, 8, 128256, True),
    "Llama-3.1-8B": (4096, 14336, 32, 32, 8, 128256, False),
    "Llama-3.3-70B": (8192, 28672, 80, 64, 8, 128256, False),
}
_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_KEYS += ("num_key_value_heads", "vocab_size", "tie_word_embeddings")


def _recipe() -> Recipe:
    return parse_recipe(
        {
            "exam": {"learned_per_document": 0, "unseen_per_document": 4},
            "synthesis": {"tasks": ["free-qa", "refusal"], "samples_per_document": 8},
            "model": {"quantization": "nf4-double"},
            "training": {"epochs": 1},
        },
        Path(),
    )


def work() -> str:
    """Return the table of the work by number of documents."""
    recipe = _recipe()
    lines = [
        "| documents | exam questions | calls of the teacher | hours, 1 server | hours, 8 servers | training tokens |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for number in _DOCUMENTS:
        train, exam = number - _EXAM, _EXAM
        if train < exam:
            train, exam = round(number * 0.75), round(number * 0.25)
        questions = 2 * exam * recipe.exam.unseen_per_document
        written = train * recipe.synthesis.samples_per_document
        samples = round(written * _YIELD * (1 + 3 * recipe.synthesis.refusal_share))
        sizes = Sizes(train, exam, samples, samples * _TOKENS_PER_SAMPLE, questions, 0)
        least, most = (sum(call_range(stage, recipe, sizes)[end] for stage in ("exam", "synth")) for end in (0, 1))
        hours = most * _CALL_S / _CONCURRENCY / 3600
        cells = (f"{number:,}", f"{questions:,}", f"{least:,}–{most:,}", f"{hours:,.1f}", f"{hours / 8:,.2f}")
        lines.append(f"| {' | '.join(cells)} | {sizes.num_tokens:,} |")
    return "\n".join(lines)


def memory() -> str:
    """Return the table of memory and hours by base."""
    recipe = _recipe()
    train = _DOCUMENTS[-1] - _EXAM
    tokens = train * recipe.synthesis.samples_per_document * _YIELD * (1 + 3 * recipe.synthesis.refusal_share)
    lines = ["| base | on each of 1 GPU | 4 GPUs, sharded | 8 GPUs, sharded | GPU hours, one epoch of the 50,000 |"]
    lines.append("|---|---|---|---|---|")
    for name, values in _BASES.items():
        shape = Shape.of({"model_type": "llama", **dict(zip(_KEYS, values, strict=True))})
        predicted = predict_memory(recipe, shape, choose(recipe, shape, 0.0, True, gpu=True), True)
        weights = predicted.base + predicted.trained
        sizes = [f"{(predicted.total - weights * (1 - 1 / count)) / 2**30:.1f} GiB" for count in (1, 4, 8)]
        hours = shape.flops_per_token(False, checkpointing=False) * tokens * _TOKENS_PER_SAMPLE / _GPU_FLOPS / 3600
        lines.append(f"| {name} | {' | '.join(sizes)} | {hours:,.0f} |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """Return the tables by their marks."""
    return {"work": work(), "memory": memory()}
