"""The training loop: gradients of packed rows, clipping, the optimizer, metrics, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.distributed import Processes
from tunewright.errors import TrainingError, is_lack_of_memory
from tunewright.training import checkpoint
from tunewright.training.checkpoint import resume, stop_signal
from tunewright.training.metrics import MetricsLog
from tunewright.training.objectives import Objective, without_dropout
from tunewright.training.optimizers import OPTIMIZERS, learning_rate
from tunewright.training.packing import Example, collate, num_steps, pack, step_examples
from tunewright.training.step_plan import Capacity

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.optim import Optimizer

    from tunewright.training.compute_path import ComputePath


@dataclass(frozen=True)
class LoopSettings:
    """The loop's settings, as flat values.

    Attributes:
        batch_size: examples per optimizer step, over all processes.
        compute: the type that matrix products run in under autocast; None for the parameters' own.
        sharded: whether each process holds only a part of the base.
    """

    seed: int
    learning_rate: float
    epochs: int
    batch_size: int
    warmup_share: float
    max_grad_norm: float
    checkpoint_steps: int
    device: str
    optimizer: str = "adamw"
    schedule: str = "cosine"
    compute: torch.dtype | None = None
    processes: Processes = Processes()
    sharded: bool = False


@dataclass(frozen=True)
class TrainingTask:
    """The examples to train on, those held out, and the objective."""

    examples: Sequence[Example]
    objective: Objective
    held_out: Sequence[Example] = ()


def autocast(settings: LoopSettings) -> AbstractContextManager[None]:
    """Return the context in which matrix products run in ``settings.compute``."""
    import torch

    if settings.compute is None:
        return nullcontext()
    context: AbstractContextManager[None] = torch.autocast(settings.device.partition(":")[0], dtype=settings.compute)
    return context


def rows_of(
    examples: Sequence[Example], capacity: Capacity, settings: LoopSettings
) -> list[tuple[list[Example], float]]:
    """Return this process's packed rows of a step, each with its weight: 1, or 0 for a row that only keeps it in step.

    Every process gets rows if there are enough examples. Where each process holds a part of the base, all have to run
    equally many rows.
    """
    group = settings.processes
    share = -(-sum(example.num_tokens for example in examples) // group.world_size)
    rows = pack(
        examples, min(capacity.micro_batch_tokens, share) if group.world_size > 1 else capacity.micro_batch_tokens
    )
    mine = [(row, 1.0) for row in rows[group.rank :: group.world_size]]
    if settings.sharded and len(mine) * group.world_size < len(rows):
        mine.append((rows[0], 0.0))
    return mine


def accumulate(
    path: ComputePath, objective: Objective, examples: Sequence[Example], settings: LoopSettings, capacity: Capacity
) -> dict[str, Any]:
    """Add the gradient of a step's mean loss to the parameters; return that loss ("loss") and the objective's figures.

    The result depends neither on how the examples are cut into rows nor on the number of processes. Each value is a
    tensor of shape []: a GPU may still be computing it.
    """
    divisor = sum(objective.count(example) for example in examples)
    totals: dict[str, Any] = dict.fromkeys(("loss", *objective.figures), 0.0)
    for row, weight in rows_of(examples, capacity, settings):
        with autocast(settings):
            loss, figures = objective.loss(path, collate(row, settings.device, capacity.micro_batch_tokens), row)
        (loss * (weight * capacity.loss_scale / divisor)).backward()
        for name, value in {"loss": loss.detach(), **figures}.items():
            totals[name] += weight * value
    return {name: total / divisor for name, total in totals.items()}


def held_out_loss(
    path: ComputePath, task: TrainingTask, settings: LoopSettings, capacity: Capacity
) -> dict[str, float]:
    """Return the mean loss on the held-out examples ("held_out_loss"); an empty dict when there are none."""
    import torch

    if not task.held_out:
        return {}
    group, total, size = settings.processes, 0.0, settings.batch_size
    with without_dropout(path.model), torch.no_grad(), autocast(settings):
        # In batches like those of training, so that no row is larger than a row that training has held.
        for start in range(0, len(task.held_out), size):
            for row, weight in rows_of(task.held_out[start : start + size], capacity, settings):
                tensors = collate(row, settings.device, capacity.micro_batch_tokens)
                total += weight * float(task.objective.loss(path, tensors, row)[0])
    divisor = sum(task.objective.count(example) for example in task.held_out)
    return {"held_out_loss": group.sum([total], settings.device)[0] / divisor}


def train(
    path: ComputePath,
    task: TrainingTask,
    settings: LoopSettings,
    capacity: Capacity,
    folder: Path,
    identity: Mapping[str, Any],
    metrics: MetricsLog,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Capacity:
    """Train the model's trainable parameters; continue from the newest checkpoint in ``folder``.

    Args:
        path: the model with a trainable adapter, or with all parameters trainable, and how it is computed.
        task: the examples and the objective.
        settings: the loop's settings.
        capacity: the micro-batch to begin with.
        folder: where checkpoints go.
        identity: what the training depends on (data, settings, base); a checkpoint of another training is refused.
        metrics: gets one line per step.
        on_epoch: called with the number of each epoch that ends, in the first process.

    Returns:
        The capacity that the training ended with.

    Raises:
        TrainingError: a loss or gradient is not finite, or a single example does not fit into the memory; the last
            checkpoint is kept.
        KeyboardInterrupt: Ctrl-C, after a checkpoint of the current step.
    """
    optimizer = OPTIMIZERS[settings.optimizer](checkpoint.trainable(path.model).values())
    total = num_steps(len(task.examples), settings.batch_size, settings.epochs)
    per_epoch = total // max(1, settings.epochs)
    start, capacity = resume(folder, identity, path.model, optimizer, capacity, settings.processes)
    capacity.apply(path)
    metrics.keep_until(start)
    path.model.train()
    first = settings.processes.is_first
    with console.progress(metrics.label, total) as bar, stop_signal(settings.processes, settings.device) as stopping:
        bar.advance(start)
        if start == 0 and total and task.held_out:
            metrics.write({"step": 0, "epoch": 0.0, **held_out_loss(path, task, settings, capacity)})
        for step in range(start, total):
            order = step_examples(len(task.examples), settings.batch_size, settings.seed, step)
            batch = [task.examples[number] for number in order]
            row, capacity = optimizer_step(path, optimizer, task.objective, batch, step, total, settings, capacity)
            row["epoch"] = (step + 1) / per_epoch
            ends_epoch = (step + 1) % per_epoch == 0
            if ends_epoch:
                row |= held_out_loss(path, task, settings, capacity)
            metrics.write(row)
            bar.advance(1, metrics.note(row))
            stop = stopping()
            if ends_epoch and first:
                on_epoch((step + 1) // per_epoch)
            if first and (ends_epoch or stop or (step + 1) % settings.checkpoint_steps == 0):
                checkpoint.save(folder, path.model, optimizer, step + 1, total, identity, capacity.as_dict())
            if stop:
                raise KeyboardInterrupt
    return capacity


def optimizer_step(
    path: ComputePath,
    optimizer: Optimizer,
    objective: Objective,
    examples: Sequence[Example],
    step: int,
    total: int,
    settings: LoopSettings,
    capacity: Capacity,
) -> tuple[dict[str, float], Capacity]:
    """Take one optimizer step on these examples; return its line of metrics and the capacity for the next step.

    Steps count from 0.

    Raises:
        TrainingError: the loss or the gradient is not finite; the parameters are unchanged.
    """
    import torch

    began = time.monotonic()
    rate = learning_rate(step, total, settings.learning_rate, settings.warmup_share, settings.schedule)
    for group in optimizer.param_groups:
        group["lr"] = rate
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    random = checkpoint.random_state()
    while True:
        figures, capacity = _gradient(path, objective, examples, settings, capacity)
        settings.processes.sum_gradients(parameters)
        for parameter in parameters if capacity.loss_scale != 1 else ():
            parameter.grad /= capacity.loss_scale
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        *values, norm = _numbers([*figures.values(), norm], settings.device)
        figures = dict(zip(figures, values, strict=True))
        if math.isfinite(figures["loss"]) and math.isfinite(norm):
            break
        if capacity.loss_scale <= 1 or not math.isfinite(figures["loss"]):
            raise _not_finite(step, figures["loss"], norm)
        # The scaled gradient left fp16's range: repeat the step at half the scale, so that no sample is lost.
        capacity = replace(capacity, loss_scale=capacity.loss_scale / 2, good_steps=0)
        checkpoint.set_random_state(random)
    optimizer.step()
    num_tokens = sum(example.num_tokens for example in examples)
    row = {
        "step": step + 1,
        **figures,
        "learning_rate": rate,
        "grad_norm": norm,
        "num_tokens": num_tokens,
        "tokens_per_s": num_tokens / (time.monotonic() - began),
        "micro_batch_tokens": capacity.micro_batch_tokens,
    }
    return row, capacity.after_good_step()


def _gradient(
    path: ComputePath, objective: Objective, examples: Sequence[Example], settings: LoopSettings, capacity: Capacity
) -> tuple[dict[str, Any], Capacity]:
    """Compute a step's gradient; when memory runs out, cut the step into smaller rows and compute it again."""
    random = checkpoint.random_state()
    while True:
        path.model.zero_grad(set_to_none=True)
        figures: dict[str, Any] = {}
        try:
            figures = accumulate(path, objective, examples, settings, capacity)
        except Exception as error:
            # With a sharded base, the other processes wait for this part: the error has to end them all.
            if not is_lack_of_memory(error) or settings.sharded:
                raise
        # Outside of the handler: its traceback would keep the failed step's tensors alive.
        if settings.processes.all(bool(figures), settings.device):
            names = list(figures)
            totals = settings.processes.sum([figures[name] for name in names], settings.device)
            return dict(zip(names, totals, strict=True)), capacity
        path.model.zero_grad(set_to_none=True)
        capacity = capacity.smaller(examples)
        capacity.apply(path)
        checkpoint.set_random_state(random)


def _numbers(values: Sequence[Tensor | float], device: str) -> list[float]:
    """Return the values as numbers; the GPU is waited for once, not for each."""
    import torch

    return list(torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device) for value in values]).tolist())


def _not_finite(step: int, loss: float, norm: float) -> TrainingError:
    return TrainingError(
        f"step {step + 1} gave a loss of {loss} and a gradient norm of {norm}",
        "training stops at the first non-finite number; the last good checkpoint is kept",
        "lower training.learning_rate and start over, or check the samples of this step",
    )
