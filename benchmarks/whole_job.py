"""Time of a whole run on a GPU, stage by stage: an 8B base, 1,700 chats, an exam of 100 questions and five arms.

Run: python benchmarks/whole_job.py [-o benchmarks/results/whole_job.json] [--shape 8B] [--samples 1700] [--questions 100]

The base has random weights of the named shape and the embedded student's tokenizer: it writes to the token limit, which
is the slowest that a model can be. Documents, chats and exam are invented facts (invented_facts.py). The base's folder is
made first and is not timed; the general items are the default 400.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from invented_facts import answer, passages
from shapes import config_of, make_base

RECIPE = """
[documents]
paths = ["documents"]
[synthesis]
data = ["chats.jsonl"]
samples_per_document = 0
[exam]
file = "exam.jsonl"
[retrieval]
model = ""
[model]
base = "base"
[training]
batch_size = 16
epochs = 1
held_out_share = 0.0
[evaluation]
arms = ["base", "few-shot", "similar-shot", "rag", "tuned"]
"""


def write_base(shape: str, folder: Path, tokenizer: Path) -> None:
    """Write a base of random weights, in 16 bit, with a tokenizer."""
    import torch
    from transformers import AutoTokenizer

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    model = make_base(shape, device, torch.bfloat16, quantize=False)
    model.config = config_of(shape)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder, max_shard_size="4GB")
    AutoTokenizer.from_pretrained(tokenizer, local_files_only=True).save_pretrained(folder)


def write_data(folder: Path, num_samples: int, num_questions: int) -> None:
    """Write documents, chats and exam."""
    rng = random.Random(0)
    pieces = passages(-(-num_samples // 6), 0)
    (folder / "documents").mkdir(parents=True)
    for number, piece in enumerate(pieces[:100]):
        (folder / f"documents/{number}.md").write_text(f"# {piece.title}\n\n{piece.text}\n", encoding="utf-8")
    facts = [fact for piece in pieces for fact in piece.facts][:num_samples]
    with (folder / "chats.jsonl").open("w", encoding="utf-8") as file:
        for fact in facts:
            turns = [("user", rng.choice(fact.questions)), ("assistant", answer(fact, 0))]
            print(json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]}), file=file)
    with (folder / "exam.jsonl").open("w", encoding="utf-8") as file:
        for fact in facts[:: max(1, len(facts) // num_questions)][:num_questions]:
            print(json.dumps({"question": fact.exam_question, "answer": fact.value}), file=file)
    (folder / "recipe.toml").write_text(RECIPE.strip() + "\n", encoding="utf-8")


def timed(folder: Path, *more: str) -> tuple[float, list[dict[str, Any]]]:
    """Run the recipe; return the seconds in all, and each line of its output with the second in which it came."""
    command = [sys.executable, "-m", "tunewright", "run", "recipe.toml", *more]
    began, lines = time.perf_counter(), []
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if text := re.sub(r"\s+", " ", line).strip():
                lines.append({"at_s": round(time.perf_counter() - began, 1), "line": text[:160]})
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    return round(time.perf_counter() - began, 1), lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/whole_job.json"))
    parser.add_argument("--shape", default="8B")
    parser.add_argument("--samples", type=int, default=1700)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--tokenizer", type=Path, help="a folder with a tokenizer; default: the embedded student's")
    options = parser.parse_args()
    import torch

    from tunewright.models.source import locate

    tokenizer = options.tokenizer or locate("embedded", Path())
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_data(folder, options.samples, options.questions)
        write_base(options.shape, folder / "base", tokenizer)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        stages = {}
        for stage in ("curate", "train", "evaluate"):
            stages[stage], lines = timed(folder, "--until", stage)
            stages[f"{stage}, lines"] = lines
    record = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores",
        "shape": options.shape,
        "samples": options.samples,
        "questions": options.questions,
        "seconds": stages,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
