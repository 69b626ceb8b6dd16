"""A trained run folder with an exam, on a tiny model: what exports are made of in the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewright.models.chat_template import encode
from tunewright.models.student import student_base, student_tokenizer
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import Question, Sample, Score
from tunewright.run_folder import RunFolder
from tunewright.settings import DocumentSettings, EvaluationSettings, ModelSettings, TrainingSettings


def make_recipe(base: Path, training: dict | None = None, model: dict | None = None) -> Recipe:
    return Recipe(
        documents=DocumentSettings(paths=("/home/someone/private/documents",)),
        model=ModelSettings(**({"base": str(base), "quantization": "none", "compute": "fp32"} | (model or {}))),
        training=TrainingSettings(**({"rank": 4, "alpha": 8, "epochs": 2, "learning_rate": 0.01} | (training or {}))),
        evaluation=EvaluationSettings(max_new_tokens=8),
    )


def questions(refusal: str, number: int = 8) -> list[Question]:
    return [
        Question(
            id=f"q{n}",
            ring="learned",
            document=f"d{n}",
            question=f"Which group had risk {n}?",
            gold=refusal if n == 0 else f"The treated group had risk {n}.",
            answerable=n > 0,
        )
        for n in range(number)
    ]


def adapted_run(folder: Path, recipe: Recipe, seed: int = 0) -> RunFolder:
    """Write a run whose adapter has random weights of some size in every part: no training, and no zeros."""
    import torch

    from tunewright.models.loading import attach_adapter, save_adapter

    run = RunFolder.create(folder)
    run.write("recipe.toml", dump_recipe(recipe))
    run.write_records("exam.jsonl", questions(recipe.refusal))
    run.write_records("train.jsonl", samples())
    scores = [
        Score(question=item.id, arm="tuned", ring="learned", document=item.document, primary=0.25, metrics={})
        for item in questions(recipe.refusal)
    ]
    run.write_records("scores.jsonl", scores)
    run.write("verdict.json", "{}")
    tokenizer = student_tokenizer(recipe)
    new = tuple(tokenizer.convert_tokens_to_ids(token) for token in recipe.model.added_tokens)
    model = attach_adapter(student_base(recipe, "cpu", tokenizer), recipe.training, seed, new)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=draw)
                # Magnitudes of DoRA stay near those of the base; the rest is drawn again.
                changed = weight * (1 + 0.1 * noise) if "magnitude" in name else 0.1 * noise
                weight.copy_(weight + 0.02 * noise if recipe.training.method == "full" else changed)
    save_adapter(model, run.file("adapter"), recipe.model.base)
    tokenizer.save_pretrained(run.file("adapter"))
    return run


def samples(number: int = 16) -> list[Sample]:
    from support.families import turns

    return [
        Sample(id=f"{n:02d}", task="own", messages=turns(f"Which group had risk {n}?", f"The treated group. {n}"))
        for n in range(number)
    ]


def evaluated(run: RunFolder, recipe: Recipe) -> tuple[Any, Any]:
    """Load the evaluated model (the base as evaluated, with the adapter on it) and its tokenizer."""
    from tunewright.models.loading import for_inference, load_adapter

    tokenizer = student_tokenizer(recipe)
    return load_adapter(for_inference(student_base(recipe, "cpu", tokenizer)), run.file("adapter")), tokenizer


def some_ids(tokenizer: Any, recipe: Recipe) -> list[int]:
    from support.families import turns

    messages = turns(
        "Which group had the lower risk? " * 3, "The treated group. " + " ".join(recipe.model.added_tokens)
    )
    return encode(tokenizer, messages).input_ids
