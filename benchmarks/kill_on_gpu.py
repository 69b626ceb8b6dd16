"""Train SmolLM2-135M on 2,000 samples twice, once killed two times and resumed; compare the held-out losses.

Run: python benchmarks/kill_on_gpu.py [-o benchmarks/results/kill_on_gpu.json]

The samples are made by rule from the example abstracts (which sentence follows, which stood before, and so on): what is
measured is whether training survives a kill, not what it teaches.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FORMS = (
    ("In the paper {title!r}, what follows the sentence: {this}", 1),
    ("In the paper {title!r}, what stands right before the sentence: {this}", -1),
    ("Continue the abstract of {title!r} after these words: {this}", 1),
    ("Repeat sentence number {number} of the abstract of {title!r}.", 0),
    ("Quote the abstract of {title!r}, its sentence {number}.", 0),
    ("What does the abstract of {title!r} say two sentences after this one: {this}", 2),
    ("What does the abstract of {title!r} say two sentences before this one: {this}", -2),
    ("The next sentence but two in {title!r} after: {this}", 3),
    ("The sentence three places before this one in {title!r}: {this}", -3),
    ("Four sentences further on in {title!r} from: {this}", 4),
    ("Four sentences back in {title!r} from: {this}", -4),
    ("In {title!r}, five sentences after: {this}", 5),
    ("In {title!r}, five sentences before: {this}", -5),
)
NUM_SAMPLES = 2000
KILLS = (40, 85)


def samples() -> list:
    from tunewright.examples import abstracts_folder
    from tunewright.records import Message, Sample

    made = []
    for path in sorted(abstracts_folder().glob("*.md")):
        lines = path.read_text(encoding="utf-8").split("---", 2)[-1].strip().splitlines()
        title = lines[0].lstrip("# ")
        body = " ".join(line for line in lines[1:] if line and not line.startswith("#"))
        sentences = re.split(r"(?<=[.!?]) +(?=[A-Z])", body)
        for number, this in enumerate(sentences):
            for form, step in FORMS:
                if 0 <= number + step < len(sentences):
                    question = form.format(title=title, this=this, number=number + 1)
                    turns = (
                        Message(role="user", content=question),
                        Message(role="assistant", content=sentences[number + step]),
                    )
                    made.append(Sample(id=f"{len(made):05d}", task="own", messages=turns))
    return made[:NUM_SAMPLES]


def recipe():
    from tunewright.recipe import Recipe
    from tunewright.settings import TrainingSettings

    return Recipe(training=TrainingSettings(epochs=1, learning_rate=5e-4, checkpoint_steps=10))


def train(folder: Path) -> None:
    from tunewright.run_folder import RunFolder
    from tunewright.training.stage import train_adapter

    run = RunFolder.create(folder)
    run.write_records("train.jsonl", samples())
    train_adapter(run, recipe())


def rows(folder: Path) -> list[dict]:
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.exists() else []


def attempt(folder: Path, kill_at: int) -> None:
    """Train in a process; kill it (SIGKILL) once metrics.jsonl has that step."""
    child = subprocess.Popen([sys.executable, __file__, "--train", str(folder)])
    while child.poll() is None:
        if kill_at and any(row["step"] >= kill_at for row in rows(folder)):
            child.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    if not kill_at and child.returncode:
        raise SystemExit(child.returncode)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/kill_on_gpu.json"))
    parser.add_argument("--train", type=Path)
    options = parser.parse_args()
    if options.train:
        train(options.train)
        return
    import torch

    with tempfile.TemporaryDirectory() as work:
        whole, killed = Path(work) / "whole", Path(work) / "killed"
        attempt(whole, 0)
        for step in (*KILLS, 0):
            attempt(killed, step)
        metrics = {name: rows(path) for name, path in (("whole", whole), ("killed", killed))}
        plan = json.loads((whole / "plan.json").read_text())
    held = {name: [row["held_out_loss"] for row in own if "held_out_loss" in row] for name, own in metrics.items()}
    losses = {name: [row["loss"] for row in own if "loss" in row] for name, own in metrics.items()}
    difference = max(abs(loss - other) for loss, other in zip(losses["whole"], losses["killed"], strict=True))
    result = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "samples": len(samples()),
        "steps": len(losses["whole"]),
        "killed_at_steps": KILLS,
        "held_out_loss": held,
        "held_out_difference": abs(held["whole"][-1] - held["killed"][-1]),
        "largest_step_difference": difference,
        "plan": plan,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
