"""The plan of a training, proven: predicted from shapes, corrected by two real steps, scored by what came."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunewright import console
from tunewright.models.memory import Shape, choose_capacity, peak_flops, predict_memory
from tunewright.models.source import locate, read_config
from tunewright.recipe import Recipe
from tunewright.training import checkpoint
from tunewright.training.batches import Example, num_steps, step_examples
from tunewright.training.capacity import Capacity, is_out_of_memory, random_state, set_random_state
from tunewright.training.loop import LoopSettings, Task, accumulate, rows_of
from tunewright.training.metrics import gpu_peak_bytes
from tunewright.training.optimizers import OPTIMIZERS


@dataclass(frozen=True)
class Plan:
    """A training's memory (bytes of the GPU, 0 on a CPU) and time (seconds of its steps): planned and measured.

    ``predicted_bytes`` come from the model's shapes alone; ``planned_bytes`` and ``planned_s`` from two real steps.
    """

    micro_batch_tokens: int
    checkpointing: bool
    why: str
    predicted_bytes: float
    planned_bytes: float
    planned_s: float
    flops_per_token: float
    peak_flops: float
    measured_bytes: float = 0.0
    measured_s: float = 0.0
    halvings: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return asdict(self)

    def measured(self, rows: Sequence[Mapping[str, Any]], phase: str, capacity: Capacity) -> Plan:
        """Return the plan with what the phase's steps took, from its lines of metrics."""
        took = [row["num_tokens"] / row["tokens_per_s"] for row in rows if row["phase"] == phase and row["step"]]
        return replace(
            self,
            micro_batch_tokens=capacity.micro_batch_tokens,
            checkpointing=capacity.checkpointing,
            halvings=capacity.halvings,
            measured_bytes=float(gpu_peak_bytes()),
            measured_s=sum(took),
        )


def first_capacity(recipe: Recipe, device: str, compute: Any) -> tuple[Capacity, str]:
    """Return the micro-batch to begin with, and the reason."""
    import torch

    shape = known_shape(recipe)
    free = float(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()) if device.startswith("cuda") else 0.0
    tokens, checkpointing, why = choose_capacity(recipe, shape, free)
    capacity = Capacity(tokens, checkpointing)
    return (capacity.with_loss_scaling() if compute == torch.float16 else capacity), why


def known_shape(recipe: Recipe) -> Shape | None:
    """Return the base's shape, or None where its config does not tell it in the usual words."""
    try:
        return Shape.of(read_config(locate(recipe.model.base, recipe.folder)))
    except (KeyError, TypeError, ValueError):
        return None


def longest_row(examples: Sequence[Example], micro_batch_tokens: int) -> list[Example]:
    """Return the fullest row of long examples that the budget allows: what takes the most memory."""
    row: list[Example] = []
    room = micro_batch_tokens
    for example in sorted(examples, key=lambda example: -example.num_tokens):
        if not row or example.num_tokens <= room:
            row.append(example)
            room -= example.num_tokens
    return row


def prove(
    model: Any, task: Task, settings: LoopSettings, capacity: Capacity, why: str, recipe: Recipe
) -> tuple[Capacity, Plan]:
    """Take two real steps on the longest row, undo them, and return the capacity that fits and the plan.

    The second step is timed; the first one pays for what happens once. Weights, gradients and random state are
    afterwards what they were.
    """
    import torch

    random = random_state()
    kept = {name: value.detach().cpu().clone() for name, value in checkpoint.trainable(model).items()}
    model.train()
    while True:
        row = longest_row(task.examples, capacity.micro_batch_tokens)
        capacity.apply(model)
        gradient_s = step_s = 0.0
        try:
            gradient_s, step_s = _two_steps(model, task, row, settings, capacity)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        model.zero_grad(set_to_none=True)
        if settings.processes.all(gradient_s > 0, settings.device):
            break
        capacity = capacity.smaller(row)
    planned_bytes = float(gpu_peak_bytes())
    with torch.no_grad():
        for name, parameter in checkpoint.trainable(model).items():
            parameter.copy_(kept[name])
    set_random_state(random)
    if settings.device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    plan = _plan(recipe, task, settings, capacity, why, row, (gradient_s, step_s), planned_bytes)
    memory = f", {planned_bytes / 2**30:.1f} GiB" if planned_bytes else ""
    console.line(
        f"plan: {capacity.micro_batch_tokens:,} tokens at once ({why}), activation checkpointing "
        f"{'on' if capacity.checkpointing else 'off'}; two steps took{memory}; "
        f"training will take about {console.duration(plan.planned_s)}"
    )
    return capacity, plan


def _two_steps(
    model: Any, task: Task, row: Sequence[Example], settings: LoopSettings, capacity: Capacity
) -> tuple[float, float]:
    """Return the seconds of the second step's gradient and of its optimizer."""
    alone = replace(settings, processes=type(settings.processes)())
    optimizer = OPTIMIZERS[settings.optimizer](checkpoint.trainable(model).values())
    gradient_s = step_s = 0.0
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        began = _now(settings.device)
        accumulate(model, task.objective, row, alone, capacity)
        between = _now(settings.device)
        optimizer.step()
        gradient_s, step_s = between - began, _now(settings.device) - between
    return gradient_s, step_s


def _now(device: str) -> float:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.monotonic()


def _plan(
    recipe: Recipe,
    task: Task,
    settings: LoopSettings,
    capacity: Capacity,
    why: str,
    row: Sequence[Example],
    seconds: tuple[float, float],
    planned_bytes: float,
) -> Plan:
    import torch

    per_token = seconds[0] / sum(example.num_tokens for example in row)
    steps = num_steps(len(task.examples), settings.batch_size, settings.epochs)
    per_epoch = steps // settings.epochs
    tokens = 0
    for step in range(per_epoch):
        chosen = [task.examples[n] for n in step_examples(len(task.examples), settings.batch_size, 0, step)]
        tokens += sum(example.num_tokens for packed, _ in rows_of(chosen, capacity, settings) for example in packed)
    shape = known_shape(recipe)
    full = recipe.training.method == "full"
    name = torch.cuda.get_device_name() if settings.device.startswith("cuda") else ""
    predicted = (
        predict_memory(recipe, shape, capacity.micro_batch_tokens, capacity.checkpointing).total
        if shape and planned_bytes
        else 0.0
    )
    return Plan(
        micro_batch_tokens=capacity.micro_batch_tokens,
        checkpointing=capacity.checkpointing,
        why=why,
        predicted_bytes=predicted,
        planned_bytes=planned_bytes,
        planned_s=settings.epochs * tokens * per_token + steps * seconds[1],
        flops_per_token=shape.flops_per_token(full, capacity.checkpointing) if shape else 0.0,
        peak_flops=peak_flops(name),
    )
