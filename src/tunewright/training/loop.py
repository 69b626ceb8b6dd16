"""The training loop, in reading order: steps of micro-batches, clipping, AdamW, metrics, checkpoints."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tunewright import console
from tunewright.errors import TrainingError
from tunewright.rundir import write_atomic
from tunewright.training import checkpoint
from tunewright.training.batches import Example, collate, micro_batches, num_steps, step_examples
from tunewright.training.objectives import sft_loss


@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs to know, as flat values."""

    seed: int
    learning_rate: float
    epochs: int
    batch_size: int
    micro_batch_size: int
    warmup_share: float
    max_grad_norm: float
    checkpoint_steps: int
    pad_id: int
    device: str


def learning_rate(step: int, total: int, peak: float, warmup_share: float) -> float:
    """Return the rate of a step (from 0): a linear rise, then half a cosine down to 0 (Loshchilov & Hutter 2017)."""
    warmup = math.ceil(total * warmup_share)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def accumulate(model: Any, examples: Sequence[Example], settings: LoopSettings) -> tuple[float, int]:
    """Add the gradient of a step's mean token loss to the parameters; return that loss and its token count.

    The result does not depend on how the examples are cut into micro-batches.
    """
    supervised = sum(sum(label >= 0 for label in example.encoded.labels[1:]) for example in examples)
    total = 0.0
    for group in micro_batches(examples, settings.micro_batch_size):
        loss, _ = sft_loss(model, collate(group, settings.pad_id, settings.device))
        (loss / supervised).backward()
        total += float(loss.detach())
    return total / supervised, supervised


def train(
    model: Any,
    examples: Sequence[Example],
    settings: LoopSettings,
    folder: Path,
    identity: Mapping[str, Any],
    metrics_file: Path,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> int:
    """Train the adapter; go on from the newest checkpoint in ``folder``; return the steps done in this call.

    Args:
        model: base with a trainable adapter.
        examples: the training set.
        settings: see LoopSettings.
        folder: where checkpoints go.
        identity: what the training depends on (data, settings, base); a checkpoint of another is refused.
        metrics_file: one JSON line per step.
        on_epoch: called with the number of each epoch that ends.

    Raises:
        TrainingError: a loss or gradient that is not finite; the checkpoint before it is kept.
        KeyboardInterrupt: after a checkpoint of the step that was under way.
    """
    import torch

    optimizer = torch.optim.AdamW(checkpoint.trainable(model).values(), lr=settings.learning_rate, weight_decay=0.0)
    total = num_steps(len(examples), settings.batch_size, settings.epochs)
    per_epoch = total // settings.epochs
    start = _resume(folder, identity, model, optimizer)
    _keep_metrics(metrics_file, start)
    model.train()
    with console.progress("train", total) as bar, _stop_signal() as stopping, metrics_file.open("a") as log:
        bar.advance(start)
        for step in range(start, total):
            chosen = [examples[n] for n in step_examples(len(examples), settings.batch_size, settings.seed, step)]
            row = optimizer_step(model, optimizer, chosen, step, total, settings)
            row["epoch"] = (step + 1) / per_epoch
            log.write(json.dumps(row) + "\n")
            log.flush()
            bar.advance(1, f"loss {row['loss']:.3f}  {row['tokens_per_s']:.0f} tok/s")
            ends_epoch = (step + 1) % per_epoch == 0
            if ends_epoch:
                on_epoch((step + 1) // per_epoch)
            if ends_epoch or (step + 1) % settings.checkpoint_steps == 0 or stopping:
                checkpoint.save(folder, model, optimizer, step + 1, total, identity)
            if stopping:
                raise KeyboardInterrupt
    return total - start


def optimizer_step(
    model: Any, optimizer: Any, examples: Sequence[Example], step: int, total: int, settings: LoopSettings
) -> dict[str, float]:
    """Take one step (counted from 0) on these examples; return its line of metrics.

    Raises:
        TrainingError: the loss or the gradient is not finite; the parameters are as before.
    """
    import torch

    began = time.monotonic()
    rate = learning_rate(step, total, settings.learning_rate, settings.warmup_share)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss, _ = accumulate(model, examples, settings)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm))
    _require_finite(step, loss, norm)
    optimizer.step()
    num_tokens = sum(example.num_tokens for example in examples)
    return {
        "step": step + 1,
        "loss": loss,
        "learning_rate": rate,
        "grad_norm": norm,
        "num_tokens": num_tokens,
        "tokens_per_s": num_tokens / (time.monotonic() - began),
    }


def _resume(folder: Path, identity: Mapping[str, Any], model: Any, optimizer: Any) -> int:
    """Restore the newest checkpoint; return the steps that it stands after."""
    found = checkpoint.latest(folder)
    if found is None:
        return 0
    if found.settings != dict(identity):
        if found.step == found.total_steps:  # that training had ended: nothing is lost by a new one
            shutil.rmtree(folder)
            return 0
        changed = [
            f"{key}: {found.settings.get(key)!r} → {identity.get(key)!r}"
            for key in sorted(set(found.settings) | set(identity))
            if found.settings.get(key) != identity.get(key)
        ]
        raise TrainingError(
            f"an unfinished training with other settings stands in {folder}",
            "\n  ".join(changed),
            f"set them back to go on with it, or give it up: rm -r '{folder}'",
        )
    checkpoint.restore(found, model, optimizer)
    console.line(f"going on after step {found.step}, from {found.path.name}")
    return found.step


def _keep_metrics(file: Path, step: int) -> None:
    """Drop the metrics of steps after the checkpoint: they are about to be done again."""
    rows = []
    if file.exists():
        for text in file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(text)
            except ValueError:  # the line that a crash cut short
                break
            if row["step"] > step:
                break
            rows.append(row)
    write_atomic(file, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _require_finite(step: int, loss: float, norm: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(
            f"step {step + 1} gave a loss of {loss} and a gradient norm of {norm}",
            "training stops at the first number that is not finite; the last good checkpoint is kept",
            "lower training.learning_rate and start over, or look at the samples of this step",
        )


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Yield a list that fills on the first Ctrl-C, so that the step under way can end; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        console.line("stopping after this step (Ctrl-C again stops at once)")

    try:
        previous = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not the main thread: the caller's own handling stays
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, previous)
