"""Speed and memory of training on a GPU, beside other trainers where they are installed.

Run: python benchmarks/gpu.py [-o benchmarks/results/gpu.json] [--repeats 3] [--only WORD ...]

Every run is a process of its own; the order of the arms alternates between the repeats. Models have random weights of
well-known shapes (shapes.py): speed and memory do not depend on them. All arms train NF4 with double quantization,
LoRA of rank 16 on the seven linear layers, without dropout, and count the tokens that are not padding.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

WARM_UP, MEASURED = 4, 9
SAMPLES = {"packed2k": 8, "chat": 128, "512": 8, "dpo": 64}  # samples or pairs per optimizer step
# shape, workload, name of the settings, the recipe's settings, GiB that the card is cut to (0: all of it)
OURS = (
    ("8B", "packed2k", "as planned", {}, 0),
    ("8B", "packed2k", "fp8 gradients", {"fp8": True}, 0),
    ("8B", "packed2k", "checkpointing", {"kept": 0, "micro_batch_tokens": 8192}, 11.5),
    ("8B", "packed2k", "as planned, 15.2 GiB card", {"micro_batch_tokens": 8192}, 15.2),
    ("8B", "chat", "as planned", {}, 0),
    ("8B", "chat", "fp8 gradients", {"fp8": True}, 0),
    ("0.5B", "packed2k", "as planned", {}, 0),
    ("0.5B", "chat", "as planned", {}, 0),
    ("8B", "packed2k", "as planned, 16 GB card, fp16 without flash", {"compute": "fp16"}, 14.5),
    ("7B", "packed2k", "as planned, 16 GB card, fp16 without flash", {"compute": "fp16"}, 14.5),
    ("7B", "512", "micro-batch of one, fp16 without flash", {"compute": "fp16", "micro_batch_tokens": 512}, 6.5),
    ("8B", "dpo", "as planned", {}, 0),
    ("0.5B", "packed2k", "plain path", {"kernels": "off"}, 0),
    ("gemma-3-4B", "chat", "as planned", {}, 0),
    ("gemma-3-4B", "chat", "plain path", {"kernels": "off"}, 0),
    ("gemma-3-1B", "chat", "as planned", {}, 0),
    ("gemma-2-2B", "chat", "as planned", {}, 0),
    ("phi-4-mini", "chat", "as planned", {}, 0),
    ("phi-4-mini", "chat", "plain path", {"kernels": "off"}, 0),
    ("qwen3-moe-12", "chat", "as planned", {}, 0),
    ("granite-moe-3B", "chat", "as planned", {}, 0),
    ("qwen3-30B-A3B", "chat", "attention alone, 23.5 GiB card", {"targets": ("attention",)}, 23.5),
)
PEERS = (
    ("8B", "packed2k", "trl_best_nogc"),
    ("8B", "packed2k", "trl_best"),
    ("8B", "chat", "trl_best_nogc"),
    ("0.5B", "packed2k", "trl_best_nogc"),
    ("8B", "dpo", "trl_nogc"),
)


def measure_ours(number: int) -> dict:
    """Time one of our configurations through the loop's own optimizer step."""
    import torch
    from shapes import config_of, examples, paired_examples
    from timed import prepare

    from tunewright.models.memory_plan import Choice, describe_choice
    from tunewright.training.loop import optimizer_step
    from tunewright.training.objectives import NEXT_TOKEN, dpo

    shape, workload, _, changes, gib = OURS[number]
    device, size = "cuda:0", SAMPLES[workload]
    if "without flash" in OURS[number][2]:
        from tunewright.training.kernels import attention, elementwise

        elementwise.compiled = lambda device: None
        attention._is_ampere = lambda device: False  # as on a T4: grouped heads and several lengths have no kernel
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cuda.enable_flash_sdp(False)
    of_model = {key: changes[key] for key in ("fp8", "compute") if key in changes}
    of_training = {"batch_size": size, "max_tokens": 2048}
    of_training |= {key: value for key, value in changes.items() if key not in (*of_model, "kept")}
    path, optimizer, settings, capacity, why, predicted = prepare(
        shape, device, of_model, of_training, changes.get("kept"), gib
    )
    data = paired_examples(4 * size) if workload == "dpo" else examples(workload, 4 * size)
    objective = NEXT_TOKEN
    if workload == "dpo":
        objective = dpo("sigmoid", 0.1, 0.0, {example.sample: (-900.0, -900.0) for example in data})
    seconds, tokens, losses = [], [], []
    for step in range(WARM_UP + MEASURED):
        batch = data[step % 4 * size : (step % 4 + 1) * size]
        torch.cuda.synchronize()
        began = time.perf_counter()
        row, capacity = optimizer_step(path, optimizer, objective, batch, step, 10**6, settings, capacity)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        tokens.append(row["num_tokens"])
        losses.append(round(row["loss"], 4))
    rates = [count / took for count, took in zip(tokens[WARM_UP:], seconds[WARM_UP:], strict=True)]
    choice = Choice(capacity.micro_batch_tokens, capacity.kept, capacity.cached)
    return {
        "settings": f"{OURS[number][2]}: {describe_choice(choice, config_of(shape).num_hidden_layers)} ({why})",
        "tok_s": round(statistics.median(rates)),
        "peak_reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2),
        "predicted_gib": round(predicted / 2**30, 2),
        "losses": [*losses[:3], *losses[-2:]],
        "halvings": capacity.halvings,
    }


def run(arguments: list[str], limit_s: float) -> dict:
    """Run one measurement in a process of its own."""
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        return {"failed": f"no result within {limit_s:.0f} s: " + str(error.stderr or b"")[-500:]}
    line = next((text for text in ended.stdout.splitlines() if text.startswith("RESULT")), None)
    return json.loads(line.removeprefix("RESULT")) if line else {"failed": (ended.stderr + ended.stdout)[-1500:]}


def versions() -> str:
    lines = []
    for name in ("torch", "transformers", "peft", "bitsandbytes", "triton", "trl", "unsloth"):
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="run what has all these words in its name")
    parser.add_argument("--limit", type=float, default=300, help="seconds of one measurement")
    parser.add_argument("--numbers", nargs="*", type=int, help="run these of our configurations alone")
    parser.add_argument("--ours", type=int)
    parser.add_argument("--peer", type=int)
    options = parser.parse_args()
    if options.ours is not None:
        print("RESULT" + json.dumps(measure_ours(options.ours)))
        return
    if options.peer is not None:
        from peers import measure_peer

        print("RESULT" + json.dumps(measure_peer(*PEERS[options.peer], WARM_UP, MEASURED)))
        return
    jobs = [("tunewright", "--ours", number, configuration[:3]) for number, configuration in enumerate(OURS)]
    if options.numbers is not None:
        jobs = [job for job in jobs if job[2] in options.numbers]
    elif find_spec("trl"):
        jobs += [("trl", "--peer", number, peer) for number, peer in enumerate(PEERS)]
    jobs = [job for job in jobs if all(word in " ".join((job[0], *job[3])) for word in options.only)]
    import torch

    results = []
    for repeat in range(options.repeats):
        for arm, flag, number, (shape, workload, name) in jobs if repeat % 2 == 0 else reversed(jobs):
            measured = run([flag, str(number)], options.limit)
            row = {
                "date": datetime.date.today().isoformat(),
                "gpu": torch.cuda.get_device_name(),
                "versions": versions(),
                "shape": shape,
                "workload": workload,
                "arm": arm,
                "repeat": repeat,
                **({"settings": name} | measured),
            }
            results.append(row)
            print(json.dumps({key: row[key] for key in row if key not in ("date", "gpu", "versions")}), flush=True)
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
