"""Do the fast path and its 8-bit gradients learn what the plain path learns? Losses of equal trainings, side by side.

Run: python benchmarks/equality.py [-o benchmarks/results/equality.json] [8B] [embedded]

"8B": 50 steps on eight repeated batches of two 2,048-token sequences, Llama-3.1-8B's shape with random weights, through
the plain path (transformers and peft), the fast path, the fast path with 8-bit gradients, and for the truth the plain
path with the same base in 32 bit (TF32 products).
"embedded": 200 steps of SmolLM2-135M-Instruct on samples made by rule from the example abstracts, in 16 and in 8 bit,
with the loss on 64 samples held out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path


def in_full(model) -> None:
    """Replace the packed weights by the 16-bit values that they stand for, in 32 bit."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    for parent in list(model.modules()):
        for key, child in list(parent.named_children()):
            if type(child).__name__ == "Linear4bit":
                weight = dequantize_4bit(child.weight.data, child.weight.quant_state).float()
                linear = torch.nn.Linear(child.in_features, child.out_features, bias=False, device="meta")
                linear.weight = torch.nn.Parameter(weight, requires_grad=False)
                setattr(parent, key, linear)
    torch.nn.Module.float(model).is_loaded_in_4bit = False
    torch.set_float32_matmul_precision("high")


def loop(path, data, batch_size: int, steps: int, held_out, tokens: int, compute):
    """Train; return the losses of all steps and the held-out loss."""

    from tunewright.training.checkpoint import trainable
    from tunewright.training.loop import LoopSettings, TrainingTask, held_out_loss, optimizer_step
    from tunewright.training.objectives import NEXT_TOKEN
    from tunewright.training.optimizers import OPTIMIZERS
    from tunewright.training.step_plan import Capacity

    settings = LoopSettings(
        seed=0, learning_rate=2e-4, epochs=1, batch_size=batch_size, warmup_share=0, max_grad_norm=1.0,
        checkpoint_steps=1, device="cuda:0", schedule="constant", compute=compute,
    )  # fmt: skip
    capacity = Capacity(tokens)
    capacity.apply(path)
    optimizer = OPTIMIZERS["adamw"](trainable(path.model).values())
    losses, count = [], len(data) // batch_size
    for step in range(steps):
        batch = data[step % count * batch_size : (step % count + 1) * batch_size]
        row, capacity = optimizer_step(path, optimizer, NEXT_TOKEN, batch, step, 10**6, settings, capacity)
        losses.append(row["loss"])
    return losses, held_out_loss(path, TrainingTask([], NEXT_TOKEN, held_out), settings, capacity).get("held_out_loss")


def train(base: str, way: str) -> dict:
    import torch
    from shapes import config_of, examples, make_base

    from tunewright.models.loading import attach_adapter, quiet_libraries
    from tunewright.models.student import student_base, student_tokenizer
    from tunewright.recipe import Recipe
    from tunewright.settings import ModelSettings, TrainingSettings
    from tunewright.training.compute_path import choose_path

    quiet_libraries()
    training = TrainingSettings(
        rank=16, alpha=16, max_tokens=2048, kernels="off" if way in ("plain", "exact") else "auto"
    )
    if base == "8B":
        folder = Path(tempfile.mkdtemp())
        config_of(base).save_pretrained(folder)
        recipe = Recipe(model=ModelSettings(base=str(folder), fp8=way == "fp8"), training=training)
        frozen = make_base(base, "cuda:0", torch.bfloat16)
        if way == "exact":
            in_full(frozen)
        data, held_out, size, steps = examples("packed2k", 16), [], 2, 50
    else:
        from kill_on_gpu import samples

        from tunewright.training.dataset import encode_samples

        recipe = Recipe(model=ModelSettings(fp8=way == "fp8"), training=training)
        tokenizer = student_tokenizer(recipe)
        frozen = student_base(recipe, "cuda:0", tokenizer)
        data = encode_samples(samples(), tokenizer, 2048)[0]
        data = data[::7] + [example for index, example in enumerate(data) if index % 7]  # mixes the documents
        data, held_out, size, steps = data[64:], data[:64], 16, 200
    model = attach_adapter(frozen, recipe.training, 0).train()
    path = choose_path(recipe, model, "cuda:0")
    losses, held = loop(path, data, size, steps, held_out, 4096, None if way == "exact" else torch.bfloat16)
    return {"losses": [round(loss, 5) for loss in losses], "held_out_loss": held}


def largest_difference(losses: list[float], reference: list[float]) -> float:
    return max(abs(a - b) / b for a, b in zip(losses, reference, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bases", nargs="*", default=["8B", "embedded"])
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/equality.json"))
    options = parser.parse_args()
    import torch

    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    results |= {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    for base in options.bases:
        ways = ("exact", "plain", "fast", "fp8") if base == "8B" else ("fast", "fp8")
        runs = {way: train(base, way) for way in ways}
        rest = {
            f"{way} against {ways[0]}, largest": largest_difference(runs[way]["losses"], runs[ways[0]]["losses"])
            for way in ways[1:]
        }
        if base == "embedded":
            means = {way: sum(runs[way]["losses"]) / len(runs[way]["losses"]) for way in ways}
            rest["fp8 against fast, mean of all steps"] = abs(means["fp8"] - means["fast"]) / means["fast"]
            held = {way: runs[way]["held_out_loss"] for way in ways}
            rest["fp8 against fast, held out"] = abs(held["fp8"] - held["fast"]) / held["fast"]
        results[base] = {"relative_difference": rest, "runs": runs}
        print(base, json.dumps(rest), {way: run["losses"][-1] for way, run in runs.items()}, flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
