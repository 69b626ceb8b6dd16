"""Training speed on a CPU: the embedded model's shape, NF4 with double quantization, batches of 4 x 256 chat tokens.

Run: python benchmarks/cpu.py [-o benchmarks/results/cpu.json]
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from pathlib import Path


def measure(kernels: str, steps: int) -> dict:
    import torch
    from shapes import examples
    from timed import prepare

    from tunewright.training.loop import optimizer_step
    from tunewright.training.objectives import NEXT_TOKEN

    training = {"batch_size": 4, "max_tokens": 256, "kernels": kernels}
    path, optimizer, settings, capacity, *_ = prepare("0.135B", "cpu", {}, training)
    batch = examples("chat256", 4)
    rates, losses = [], []
    for step in range(1 + steps):
        began = time.perf_counter()
        row, capacity = optimizer_step(path, optimizer, NEXT_TOKEN, batch, step, 10**6, settings, capacity)
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
