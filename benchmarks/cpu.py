"""Training speed on a CPU: the embedded model's shape, NF4 with double quantization, batches of 4 x 256 chat tokens.

Run: python benchmarks/cpu.py [-o benchmarks/results/cpu.json]
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path


def measure(kernels: str, steps: int) -> dict:
    import torch
    from shapes import config_of, examples, make_base

    from tunewright.models.load import attach_adapter, compute_dtype, quiet_libraries
    from tunewright.recipe import Recipe
    from tunewright.settings import ModelSettings, TrainingSettings
    from tunewright.training.checkpoint import trainable
    from tunewright.training.loop import LoopSettings, optimizer_step
    from tunewright.training.objectives import NEXT_TOKEN
    from tunewright.training.optimizers import OPTIMIZERS
    from tunewright.training.path import take_fast_path
    from tunewright.training.proof import first_capacity

    quiet_libraries()
    folder = Path(tempfile.mkdtemp())
    config_of("0.135B").save_pretrained(folder)
    recipe = Recipe(
        model=ModelSettings(base=str(folder)),
        training=TrainingSettings(rank=16, alpha=16, batch_size=4, max_tokens=256, kernels=kernels),
    )
    dtype = compute_dtype("cpu")
    model = attach_adapter(make_base("0.135B", "cpu", dtype), recipe.training, 0).train()
    take_fast_path(recipe, model, "cpu")
    capacity, _ = first_capacity(recipe, model, "cpu", dtype)
    capacity.apply(model)
    settings = LoopSettings(
        seed=0, learning_rate=2e-4, epochs=1, batch_size=4, warmup_share=0, max_grad_norm=1.0, checkpoint_steps=1,
        device="cpu", schedule="constant", compute=None if dtype == torch.float32 else dtype,
    )  # fmt: skip
    optimizer = OPTIMIZERS["adamw"](trainable(model).values())
    batch = examples("chat256", 4)
    rates, losses = [], []
    for step in range(1 + steps):
        began = time.perf_counter()
        row, capacity = optimizer_step(model, optimizer, NEXT_TOKEN, batch, step, 10**6, settings, capacity)
        rates.append(row["num_tokens"] / (time.perf_counter() - began))
        losses.append(round(row["loss"], 5))
    return {
        "path": "fast" if kernels == "auto" else "plain",
        "tok_s": round(statistics.median(rates[1:]), 1),
        "threads": torch.get_num_threads(),
        "losses": losses[:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/cpu.json"))
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    import torch

    rows = [measure(kernels, options.steps) for kernels in ("auto", "off")]
    content = {
        "date": datetime.date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "rows": rows,
    }
    print(json.dumps(content, indent=1))
    options.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
