"""Throughput and loss of the same training on one GPU and on two, and with the base spread over both.

Run: python benchmarks/two_gpus.py [-o benchmarks/results/two_gpus.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from plan_accuracy import chats, make_base

SHAPE, TOKENS, LONGEST, STEPS, BATCH = "3B", 4096, 2048, 8, 128
RUNS = {
    "NF4, 1 process": (1, "nf4-double", False),
    "NF4, 2 processes": (2, "nf4-double", False),
    "16 bit, 2 processes, base spread": (2, "none", True),
    "16 bit, 1 process": (1, "none", False),
}


def train(name: str, models: Path, output: Path) -> None:
    from tunewright.distributed import processes
    from tunewright.recipe import Recipe
    from tunewright.run_folder import RunFolder
    from tunewright.settings import ModelSettings, TrainingSettings
    from tunewright.training.dataset import TrainingData
    from tunewright.training.metrics import read_metrics
    from tunewright.training.stage import start_session, train_phases

    _, quantization, sharded = RUNS[name]
    recipe = Recipe(
        model=ModelSettings(base=str(models / SHAPE), quantization=quantization, sharded=sharded),
        training=TrainingSettings(
            epochs=1,
            batch_size=BATCH,
            micro_batch_tokens=TOKENS,
            max_tokens=LONGEST,
            checkpoint_steps=1000,
        ),
    )
    group = processes()
    run = RunFolder(output.with_suffix(".run"))
    run.path.mkdir(exist_ok=True)
    session = start_session(run, recipe, tokenizer=None)
    examples = chats(STEPS * BATCH, LONGEST)
    plan = train_phases(session, TrainingData(examples, [], [], [], [], [], len(examples), 0.0))["sft"]
    if group.is_first:
        rows = read_metrics(run.file("metrics.jsonl"))
        result = {
            "run": name,
            "processes": group.world_size,
            "tokens_per_s": round(statistics.median(row["tokens_per_s"] for row in rows)),
            "losses": [round(row["loss"], 5) for row in rows],
            "measured_gib": round(plan.measured_bytes / 2**30, 2),
        }
        output.write_text(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/two_gpus.json"))
    parser.add_argument("--models", type=Path, default=Path("/dev/shm/tunewright-shapes"))
    parser.add_argument("--one")
    parser.add_argument("--to", type=Path)
    options = parser.parse_args()
    if options.one:
        train(options.one, options.models, options.to)
        return
    import torch

    make_base(SHAPE, options.models)
    torch.cuda.empty_cache()
    results = []
    with tempfile.TemporaryDirectory() as work:
        for number, (name, (count, _, _)) in enumerate(RUNS.items()):
            to = Path(work) / f"{number}.json"
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
            command += [__file__, "--one", name, "--to", str(to), "--models", str(options.models)]
            ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
            results.append(json.loads(to.read_text()) if to.exists() else {"run": name, "failed": ended.stderr[-2500:]})
            print(json.dumps(results[-1]), flush=True)
            options.output.write_text(
                json.dumps(
                    {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "runs": results}, indent=2
                )
                + "\n"
            )


if __name__ == "__main__":
    main()
