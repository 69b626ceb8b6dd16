"""The plan of a training, proven: predicted from shapes, corrected by real steps, scored by what came."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunewright import console
from tunewright.models.memory import Shape, choose_capacity, peak_flops, predict_memory
from tunewright.models.source import locate, read_config
from tunewright.parallel import Processes
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

    ``predicted_bytes`` come from the model's shapes alone; ``planned_bytes`` and ``planned_s`` from real steps.
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


def fullest_row(examples: Sequence[Example], micro_batch_tokens: int, by: Callable[[Example], int]) -> list[Example]:
    """Return the row that the budget allows of the examples that are largest ``by`` some measure."""
    row: list[Example] = []
    room = micro_batch_tokens
    for example in sorted(examples, key=lambda example: -by(example)):
        if not row or example.num_tokens <= room:
            row.append(example)
            room -= example.num_tokens
    return row


def prove(
    model: Any, task: Task, settings: LoopSettings, capacity: Capacity, why: str, recipe: Recipe
) -> tuple[Capacity, Plan]:
    """Take real steps on the largest rows, undo them, and return the capacity that fits and the plan.

    The first step, on the row with the most supervised tokens, pays for what happens once; then the longest row and
    a part of it are timed, for the cost per row and per token. Weights, gradients and random state are afterwards what
    they were.
    """
    import torch

    random = random_state()
    kept = {name: value.detach().cpu().clone() for name, value in checkpoint.trainable(model).items()}
    model.train()
    while True:
        capacity.apply(model)
        timing: _Timing | None = None
        try:
            timing = _trial(model, task, settings, capacity)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        model.zero_grad(set_to_none=True)
        if settings.processes.all(timing is not None, settings.device):
            break
        capacity = capacity.smaller(fullest_row(task.examples, capacity.micro_batch_tokens, lambda e: e.num_tokens))
    assert timing is not None
    planned_bytes = float(gpu_peak_bytes())
    with torch.no_grad():
        for name, parameter in checkpoint.trainable(model).items():
            parameter.copy_(kept[name])
    set_random_state(random)
    if settings.device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    plan = _plan(recipe, task, settings, capacity, why, timing, planned_bytes)
    memory = f", {planned_bytes / 2**30:.1f} GiB" if planned_bytes else ""
    console.line(
        f"plan: {capacity.micro_batch_tokens:,} tokens at once ({why}), activation checkpointing "
        f"{'on' if capacity.checkpointing else 'off'}; real steps took{memory}; "
        f"training will take about {console.duration(plan.planned_s)}"
    )
    return capacity, plan


@dataclass(frozen=True)
class _Timing:
    """Seconds of a row's gradient, as a constant and a slope over its tokens, and of the optimizer's step."""

    row_s: float
    token_s: float
    optimizer_s: float


def _trial(model: Any, task: Task, settings: LoopSettings, capacity: Capacity) -> _Timing:
    alone = replace(settings, processes=Processes())
    optimizer = OPTIMIZERS[settings.optimizer](checkpoint.trainable(model).values())
    longest = fullest_row(task.examples, capacity.micro_batch_tokens, lambda example: example.num_tokens)
    heaviest = fullest_row(task.examples, capacity.micro_batch_tokens, lambda example: example.num_supervised)
    points = []
    optimizer_s = 0.0
    for row in (heaviest, longest, longest[: max(1, len(longest) // 2)]):
        model.zero_grad(set_to_none=True)
        began = _now(settings.device)
        accumulate(model, task.objective, row, alone, capacity)
        between = _now(settings.device)
        optimizer.step()
        optimizer_s = _now(settings.device) - between
        points.append((sum(example.num_tokens for example in row), between - began))
    (most, most_s), (fewer, fewer_s) = points[1], points[2]
    if fewer == most or fewer_s >= most_s:  # one example alone, or a clock too coarse: all cost is the tokens'
        return _Timing(0.0, most_s / most, optimizer_s)
    token_s = min((most_s - fewer_s) / (most - fewer), most_s / most)
    return _Timing(most_s - token_s * most, token_s, optimizer_s)


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
    timing: _Timing,
    planned_bytes: float,
) -> Plan:
    import torch

    steps = num_steps(len(task.examples), settings.batch_size, settings.epochs)
    rows = tokens = 0
    for step in range(steps // settings.epochs):
        chosen = step_examples(len(task.examples), settings.batch_size, settings.seed, step)
        for row, _ in rows_of([task.examples[number] for number in chosen], capacity, settings):
            rows, tokens = rows + 1, tokens + sum(example.num_tokens for example in row)
    shape = known_shape(recipe)
    full = recipe.training.method == "full"
    name = torch.cuda.get_device_name() if settings.device.startswith("cuda") else ""
    predicted = 0.0
    if shape and planned_bytes:
        predicted = predict_memory(recipe, shape, capacity.micro_batch_tokens, capacity.checkpointing).total
    return Plan(
        micro_batch_tokens=capacity.micro_batch_tokens,
        checkpointing=capacity.checkpointing,
        why=why,
        predicted_bytes=predicted,
        planned_bytes=planned_bytes,
        planned_s=settings.epochs * (rows * timing.row_s + tokens * timing.token_s) + steps * timing.optimizer_s,
        flops_per_token=shape.flops_per_token(full, capacity.checkpointing) if shape else 0.0,
        peak_flops=peak_flops(name),
    )
