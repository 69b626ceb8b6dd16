"""The train stage: training set in, adapter out."""

from __future__ import annotations

import json

from tunewright import console
from tunewright.models.load import attach_adapter, load_base, pick_device, save_adapter
from tunewright.models.source import identity, locate
from tunewright.models.template import load_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import Sample, StageSummary
from tunewright.rundir import RunFolder, atomic_folder, disk_errors, file_digest
from tunewright.training.batches import encode_samples, num_steps
from tunewright.training.loop import LoopSettings, train
from tunewright.training.preflight import check, show

CHECKPOINTS = "checkpoints"


def train_adapter(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Train a LoRA adapter on train.jsonl; resume where a previous attempt of the same training ended.

    Writes adapter/ (peft format), metrics.jsonl, checkpoints/ and checkpoints/epoch-N/ adapters.
    """
    settings = recipe.training
    samples = run.read_records("train.jsonl", Sample)
    folder = locate(recipe.model.base, recipe.folder)
    tokenizer = load_tokenizer(folder)
    examples, rejections = encode_samples(samples, tokenizer, settings.max_tokens)
    rejected = run.reject("train", rejections)
    check(examples, rejections, settings.max_tokens)
    show(examples[0], tokenizer)

    device = pick_device()
    console.line(f"loading {recipe.model.base} ({recipe.model.quantization}) on {device}")
    model = load_base(folder, recipe.model.quantization, device)
    model = attach_adapter(model, settings.rank, settings.alpha, settings.dropout, settings.targets, recipe.seed)
    loop = LoopSettings(
        seed=recipe.seed,
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        micro_batch_size=settings.micro_batch_size,
        warmup_share=settings.warmup_share,
        max_grad_norm=settings.max_grad_norm,
        checkpoint_steps=settings.checkpoint_steps,
        pad_id=tokenizer.pad_token_id,
        device=device,
    )
    trained_on = {
        "data": file_digest(run.file("train.jsonl")),
        "base": identity(recipe.model.base, recipe.folder),
        "quantization": recipe.model.quantization,
        "seed": recipe.seed,
        **json.loads(settings.model_dump_json(exclude={"checkpoint_steps"})),
    }
    checkpoints = run.file(CHECKPOINTS)

    def keep_epoch(epoch: int) -> None:
        with disk_errors(checkpoints, 0), atomic_folder(checkpoints / f"epoch-{epoch}") as target:
            save_adapter(model, target, recipe.model.base)

    train(model, examples, loop, checkpoints, trained_on, run.file("metrics.jsonl"), keep_epoch)
    with disk_errors(run.file("adapter"), 0), atomic_folder(run.file("adapter")) as target:
        save_adapter(model, target, recipe.model.base)
        tokenizer.save_pretrained(target)
    losses = [json.loads(line)["loss"] for line in run.file("metrics.jsonl").read_text().splitlines()]
    return StageSummary(
        num_in=len(samples),
        num_out=len(examples),
        rejected=rejected,
        figures={
            "steps": num_steps(len(examples), settings.batch_size, settings.epochs),
            "supervised_tokens": sum(example.encoded.num_supervised for example in examples),
            **({"first_loss": round(losses[0], 4), "last_loss": round(losses[-1], 4)} if losses else {}),
        },
    )
