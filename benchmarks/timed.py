"""Prepares a model of a well-known shape for timing: with its adapter, its compute path and its planned capacity."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any


def prepare(
    shape: str, device: str, model: dict, training: dict, kept: int | None = None, gib: float = 0
) -> tuple[Any, Any, Any, Any, str, float]:
    """Return (path, optimizer, loop settings, capacity, why, predicted bytes) for these settings of a recipe.

    ``kept`` replaces the planned number of kept activations; 0 recomputes all of them. ``gib`` cuts the GPU to that
    much memory as soon as the base is made.
    """
    import torch
    from shapes import config_of, make_base

    from tunewright.models.loading import attach_adapter, compute_dtype, quiet_libraries
    from tunewright.models.memory_plan import Choice, predict_memory
    from tunewright.recipe import Recipe
    from tunewright.settings import ModelSettings, TrainingSettings
    from tunewright.training.checkpoint import trainable
    from tunewright.training.compute_path import choose_path
    from tunewright.training.loop import LoopSettings
    from tunewright.training.optimizers import OPTIMIZERS
    from tunewright.training.profiling import base_shape, first_capacity

    quiet_libraries()
    folder = Path(tempfile.mkdtemp())
    config_of(shape).save_pretrained(folder)
    recipe = Recipe(
        model=ModelSettings(base=str(folder), **model), training=TrainingSettings(rank=16, alpha=16, **training)
    )
    dtype = compute_dtype(device, recipe.model.compute)
    adapted = attach_adapter(make_base(shape, device, dtype), recipe.training, 0).train()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        if gib:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total)
        torch.cuda.reset_peak_memory_stats()
    path = choose_path(recipe, adapted, device)
    capacity, why = first_capacity(recipe, path, device, dtype)
    if kept is not None:
        capacity, why = replace(capacity, kept=kept), "as set"
    capacity.apply(path)
    settings = LoopSettings(
        seed=0, learning_rate=2e-4, epochs=1, batch_size=recipe.training.batch_size, warmup_share=0, max_grad_norm=1.0,
        checkpoint_steps=1, device=device, schedule="constant", compute=None if dtype == torch.float32 else dtype,
    )  # fmt: skip
    choice = Choice(capacity.micro_batch_tokens, capacity.kept, capacity.cached)
    predicted = predict_memory(recipe, base_shape(recipe), choice, path.is_fast).total
    return path, OPTIMIZERS["adamw"](trainable(adapted).values()), settings, capacity, why, predicted
