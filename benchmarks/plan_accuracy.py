"""Planned against measured memory and time of training on a GPU, on eight shapes with random weights.

Run: python benchmarks/plan_accuracy.py [-o benchmarks/results/plan.json] [NUMBER ...]

Each configuration trains NF4 QLoRA (rank 16, all linear layers) for 20 steps (10 for the two largest) on samples of log-normal length (median 220
tokens, 40-75 % of each a masked prompt), cut at the configuration's longest sample, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path

# shape, tokens at once, longest sample, steps
CONFIGURATIONS = (
    ("0.135B", 512, 512, 20),
    ("0.135B", 8192, 1024, 20),
    ("0.5B", 2048, 1024, 20),
    ("0.5B", 8192, 2048, 20),
    ("3B", 2048, 2048, 20),
    ("3B", 8192, 2048, 10),
    ("8B", 2048, 1024, 20),
    ("8B", 8192, 4096, 10),
)


def make_base(name: str, folder: Path) -> Path:
    """Write a Llama of that shape with random 16-bit weights, once."""
    import torch
    from shapes import config_of
    from transformers import AutoModelForCausalLM

    target = folder / name
    if (target / "config.json").exists():
        return target
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config_of(name))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(target)
    return target


def chats(number: int, longest: int, seed: int = 0) -> list:
    """Return examples of random tokens with the lengths and masks of chat data."""
    from tunewright.models.chat_template import IGNORED, Encoded
    from tunewright.training.packing import Example

    drawn = random.Random(seed)
    examples = []
    for index in range(number):
        size = max(16, min(longest, int(math.exp(drawn.gauss(math.log(220), 0.8)))))
        prompt = int(size * drawn.uniform(0.4, 0.75))
        ids = [drawn.randrange(3, 49000) for _ in range(size)]
        examples.append(Example(f"{index:05d}", (Encoded(ids, [IGNORED] * prompt + ids[prompt:], True),)))
    return examples


def measure(shape: str, tokens: int, longest: int, steps: int, folder: Path) -> dict:
    """Train one configuration; return its plan and the measurements."""
    from tunewright.recipe import Recipe
    from tunewright.run_folder import RunFolder
    from tunewright.settings import ModelSettings, TrainingSettings
    from tunewright.training.dataset import TrainingData
    from tunewright.training.stage import start_session, train_phases

    base = make_base(shape, folder)
    batch_size = max(4, 4 * tokens // 260)
    recipe = Recipe(
        model=ModelSettings(base=str(base)),
        training=TrainingSettings(
            epochs=1,
            batch_size=batch_size,
            micro_batch_tokens=tokens,
            max_tokens=longest,
            checkpoint_steps=1000,
        ),
    )
    examples = chats(steps * batch_size, longest)
    with tempfile.TemporaryDirectory() as work:
        run = RunFolder.create(Path(work) / "run")
        session = start_session(run, recipe, tokenizer=None)
        plan = train_phases(session, TrainingData(examples, [], [], [], [], [], len(examples), 0.0))["sft"]
    return {
        "shape": shape,
        "tokens_at_once": tokens,
        "longest_sample": longest,
        "steps": steps,
        "tokens": sum(example.num_tokens for example in examples),
        "predicted_gib": round(plan.predicted_bytes / 2**30, 3),
        "planned_gib": round(plan.planned_bytes / 2**30, 3),
        "measured_gib": round(plan.measured_bytes / 2**30, 3),
        "planned_s": round(plan.planned_s, 2),
        "measured_s": round(plan.measured_s, 2),
        "memory_off": round(plan.measured_bytes / max(1, plan.planned_bytes) - 1, 4),
        "time_off": round(plan.measured_s / plan.planned_s - 1, 4),
        "halvings": plan.halvings,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("numbers", nargs="*", type=int)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/plan.json"))
    parser.add_argument("--models", type=Path, default=Path("/dev/shm/tunewright-shapes"))
    parser.add_argument("--number", type=int)
    options = parser.parse_args()
    if options.number is not None:
        print("RESULT" + json.dumps(measure(*CONFIGURATIONS[options.number], options.models)))
        return
    import torch

    results = []
    for number in options.numbers or range(len(CONFIGURATIONS)):
        command = [sys.executable, __file__, "--number", str(number), "--models", str(options.models)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        line = next((text for text in ended.stdout.splitlines() if text.startswith("RESULT")), None)
        results.append(json.loads(line[6:]) if line else {"failed": ended.stderr[-1500:]})
        print(json.dumps(results[-1]), flush=True)
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(
            json.dumps({"device": device, "torch": torch.__version__, "configurations": results}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
