"""The plan of a training, proven: predicted from shapes, corrected by real steps, scored by what came."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunewright import console
from tunewright.distributed import Processes, processes
from tunewright.models.hardware import Shape, free_bytes, is_out_of_memory, peak_flops
from tunewright.models.memory_plan import Choice, choose, describe_choice, predict_memory
from tunewright.models.source import locate, read_config
from tunewright.recipe import Recipe
from tunewright.training import checkpoint
from tunewright.training.loop import LoopSettings, TrainingTask, accumulate, rows_of
from tunewright.training.metrics import gpu_peak_bytes
from tunewright.training.optimizers import OPTIMIZERS
from tunewright.training.packing import Example, num_steps, step_examples
from tunewright.training.step_plan import FAST, Capacity

_MOST_STEPS = 24
_WARM_S = 15.0


@dataclass(frozen=True)
class Plan:
    """A training's memory (bytes of the GPU, 0 on a CPU) and time (seconds of its steps): planned and measured.

    ``predicted_bytes`` come from the model's shapes alone; ``planned_bytes`` and ``planned_s`` from real steps.
    ``path`` names the path that is taken, ``told`` says what is kept in memory.
    """

    micro_batch_tokens: int
    kept: int
    cached: bool
    path: str
    told: str
    predicted_bytes: float
    planned_bytes: float
    planned_s: float
    flops_per_token: float
    peak_flops: float
    measured_bytes: float = 0.0
    measured_s: float = 0.0
    halvings: int = 0
    layers: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return asdict(self)

    def measured(self, rows: Sequence[Mapping[str, Any]], phase: str, capacity: Capacity) -> Plan:
        """Return the plan with what the phase's steps took, from its lines of metrics."""
        took = [row["num_tokens"] / row["tokens_per_s"] for row in rows if row["phase"] == phase and row["step"]]
        return replace(
            self,
            micro_batch_tokens=capacity.micro_batch_tokens,
            kept=capacity.kept,
            cached=capacity.cached,
            told=_told(capacity, self.layers),
            halvings=capacity.halvings,
            measured_bytes=float(gpu_peak_bytes()),
            measured_s=sum(took),
        )


def first_capacity(recipe: Recipe, model: Any, device: str, compute: Any) -> tuple[Capacity, str]:
    """Return how the first step is computed, and the reason."""
    import torch

    fast = hasattr(model, FAST)
    # All processes cut a step alike, or samples would be trained twice or never: the fullest device decides.
    free = processes().smallest(free_bytes(device), device)
    choice = choose(recipe, known_shape(recipe), free, fast, device.startswith("cuda"))
    capacity = Capacity(choice.tokens, choice.kept, choice.cached)
    return (capacity.with_loss_scaling() if compute == torch.float16 else capacity), choice.why


def _told(capacity: Capacity, layers: int) -> str:
    return describe_choice(Choice(capacity.micro_batch_tokens, capacity.kept, capacity.cached), layers)


def known_shape(recipe: Recipe) -> Shape | None:
    """Return the base's shape, or None where its config does not tell it in the usual words."""
    try:
        return Shape.of(read_config(locate(recipe.model.base, recipe.folder)))
    except (KeyError, TypeError, ValueError):
        return None


def _batches(task: TrainingTask, settings: LoopSettings) -> list[list[Example]]:
    """Return the batches of all steps."""
    steps = range(num_steps(len(task.examples), settings.batch_size, settings.epochs))
    orders = (step_examples(len(task.examples), settings.batch_size, settings.seed, step) for step in steps)
    return [[task.examples[number] for number in order] for order in orders]


def _tokens(row: Sequence[Example]) -> int:
    return sum(example.num_tokens for example in row)


def _supervised(row: Sequence[Example]) -> int:
    return sum(example.num_supervised for example in row)


def largest_rows(rows: Sequence[list[Example]]) -> list[list[Example]]:
    """Return the rows that may take the most memory: the longest and the most supervised, of one and of more examples.

    Masks between examples take memory that one alone does without.
    """
    several = [row for row in rows if len(row) > 1]
    return [max(some, key=size) for some in (rows, several) if some for size in (_tokens, _supervised)]


def prove(
    model: Any, task: TrainingTask, settings: LoopSettings, capacity: Capacity, why: str, recipe: Recipe
) -> tuple[Capacity, Plan]:
    """Take real steps, the longest first, undo them, and return the capacity that fits and the plan.

    Before them, the largest rows of all steps show the most memory that any may take. Weights, gradients and random
    state are afterwards what they were.
    """
    import torch

    random, batches = checkpoint.random_state(), _batches(task, settings)
    kept = {name: value.detach().cpu().clone() for name, value in checkpoint.trainable(model).items()}
    model.train()
    while True:
        capacity.apply(model)
        _forget_peak(settings.device)
        token_s = 0.0
        try:
            token_s = _trial(model, task, batches, settings, capacity)
        except Exception as error:
            # A part of a spread base cannot be left waiting for: there the error ends all processes.
            if not is_out_of_memory(error) or settings.sharded:
                raise
        model.zero_grad(set_to_none=True)
        if settings.processes.all(token_s > 0, settings.device):
            break
        longest = max(batches, key=lambda batch: max(example.num_tokens for example in batch))
        capacity = capacity.smaller([*max(batches, key=_tokens), *longest])
    planned_bytes = float(gpu_peak_bytes())
    with torch.no_grad():
        for name, parameter in checkpoint.trainable(model).items():
            parameter.copy_(kept[name])
    checkpoint.set_random_state(random)
    planned_s = token_s * sum(_tokens(batch) for batch in batches)
    plan = _plan(recipe, model, settings, capacity, planned_s, planned_bytes)
    memory = f", {planned_bytes / 2**30:.1f} GiB" if planned_bytes else ""
    console.line(
        f"plan: {plan.told} ({why}); {plan.path}; real steps took{memory}; "
        f"training will take about {console.rough_duration(plan.planned_s)}"
    )
    return capacity, plan


def _trial(
    model: Any, task: TrainingTask, batches: Sequence[list[Example]], settings: LoopSettings, capacity: Capacity
) -> float:
    """Return the seconds per token of real steps; all processes together count as one."""
    alone = replace(settings, processes=Processes())
    optimizer = OPTIMIZERS[settings.optimizer](checkpoint.trainable(model).values())
    for row in largest_rows([row for batch in batches for row, _ in rows_of(batch, capacity, alone)]):
        model.zero_grad(set_to_none=True)
        accumulate(model, task.objective, row, alone, capacity)
    optimizer.step()
    # Until a GPU has loaded the kernels for many lengths of rows, its steps are slower than they will be.
    pace: list[float] = []
    began = _now(settings.device)
    for batch in [max(batches, key=_tokens), *batches][:_MOST_STEPS]:
        before = _now(settings.device)
        model.zero_grad(set_to_none=True)
        accumulate(model, task.objective, batch, settings, capacity)
        optimizer.step()
        now = _now(settings.device)
        pace.append((now - before) / _tokens(batch))
        enough = len(pace) > 1 and (now - began > _WARM_S or not settings.device.startswith("cuda"))
        if settings.processes.all(enough, settings.device):
            break
    return min(pace[len(pace) // 2 :])


def _forget_peak(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _now(device: str) -> float:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.monotonic()


def _plan(
    recipe: Recipe, model: Any, settings: LoopSettings, capacity: Capacity, planned_s: float, planned_bytes: float
) -> Plan:
    import torch

    shape = known_shape(recipe)
    full, fast = recipe.training.method == "full", hasattr(model, FAST)
    name = torch.cuda.get_device_name() if settings.device.startswith("cuda") else ""
    layers = shape.layers if shape else 1
    predicted = 0.0
    if shape and planned_bytes:
        choice = Choice(capacity.micro_batch_tokens, capacity.kept, capacity.cached)
        predicted = predict_memory(recipe, shape, choice, fast).total
    return Plan(
        micro_batch_tokens=capacity.micro_batch_tokens,
        kept=capacity.kept,
        cached=capacity.cached,
        path="the fast path" if fast else "the plain path",
        told=_told(capacity, layers),
        predicted_bytes=predicted,
        planned_bytes=planned_bytes,
        planned_s=planned_s,
        flops_per_token=shape.flops_per_token(full, capacity.checkpointing) if shape else 0.0,
        peak_flops=peak_flops(name),
        layers=layers,
    )
