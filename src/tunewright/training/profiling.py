"""The plan of a training: memory and time predicted from shapes, corrected by real steps, compared with the result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.distributed import Processes, processes
from tunewright.errors import is_lack_of_memory
from tunewright.models.hardware import Shape, free_bytes, peak_flops
from tunewright.models.memory_plan import Choice, choose, describe_choice, predict_memory
from tunewright.models.source import locate, read_config
from tunewright.recipe import Recipe
from tunewright.training import checkpoint
from tunewright.training.loop import LoopSettings, TrainingTask, accumulate, rows_of
from tunewright.training.metrics import gpu_peak_bytes
from tunewright.training.optimizers import OPTIMIZERS
from tunewright.training.packing import Example, num_steps, step_examples
from tunewright.training.step_plan import Capacity

if TYPE_CHECKING:
    import torch

    from tunewright.training.compute_path import ComputePath

_MAX_TRIAL_STEPS = 24
_WARM_UP_S = 15.0
_DESCRIPTION_KEY = "told"  # the key of ``Plan.description`` in plan.json


@dataclass(frozen=True)
class Plan:
    """A training's memory (bytes of the GPU; 0 on a CPU) and time (seconds of its steps), planned and measured.

    Attributes:
        path: "the fast path" or "the plain path".
        description: what is kept in memory, for people.
        predicted_bytes: from the model's shapes alone.
        planned_bytes: from real steps on the largest rows.
        planned_s: from the pace of real steps.
        peak_flops: the hardware's operations per second; 0 where unknown.
    """

    micro_batch_tokens: int
    kept: int
    cached: bool
    path: str
    description: str
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
        """Return the plan as plan.json holds it."""
        return {_DESCRIPTION_KEY if key == "description" else key: value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        """Return the plan that plan.json holds.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return cls(**{"description" if key == _DESCRIPTION_KEY else key: value for key, value in content.items()})

    def measured(self, rows: Sequence[Mapping[str, Any]], phase: str, capacity: Capacity) -> Plan:
        """Return the plan with the measured memory and time of a phase, from its lines of metrics."""
        seconds = [row["num_tokens"] / row["tokens_per_s"] for row in rows if row["phase"] == phase and row["step"]]
        return replace(
            self,
            micro_batch_tokens=capacity.micro_batch_tokens,
            kept=capacity.kept,
            cached=capacity.cached,
            description=_describe(capacity, self.layers),
            halvings=capacity.halvings,
            measured_bytes=float(gpu_peak_bytes()),
            measured_s=sum(seconds),
        )


def first_capacity(recipe: Recipe, path: ComputePath, device: str, compute: torch.dtype | None) -> tuple[Capacity, str]:
    """Return how the first step is computed, and the reason."""
    import torch

    # All processes have to cut a step alike, or samples would be trained twice or never: the fullest device decides.
    free = processes().smallest(free_bytes(device), device)
    choice = choose(recipe, base_shape(recipe), free, path.is_fast, device.startswith("cuda"))
    capacity = Capacity(choice.tokens, choice.kept, choice.cached)
    return (capacity.with_loss_scaling() if compute == torch.float16 else capacity), choice.why


def _describe(capacity: Capacity, layers: int) -> str:
    return describe_choice(Choice(capacity.micro_batch_tokens, capacity.kept, capacity.cached), layers)


def base_shape(recipe: Recipe) -> Shape | None:
    """Return the base's shape, or None if its config lacks the usual keys."""
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


def _teacher_tokens(row: Sequence[Example]) -> int:
    return sum(example.num_teacher_tokens for example in row)


def _work(row: Sequence[Example]) -> float:
    """Return what a row costs, in trained tokens: the teacher's tokens have a forward pass alone, half of the work."""
    return _tokens(row) + _teacher_tokens(row) / 2


def _supervised(row: Sequence[Example]) -> int:
    return sum(example.num_supervised for example in row)


def largest_rows(rows: Sequence[list[Example]]) -> list[list[Example]]:
    """Return the rows that may take the most memory: the longest and the most supervised, of all and of mixed rows.

    Where a teacher reads, that with the most for it to read is among them.

    A row of several examples takes more memory than a single example: it needs a mask between them.
    """
    mixed = [row for row in rows if len(row) > 1]
    sizes = (_tokens, _supervised, _teacher_tokens) if any(map(_teacher_tokens, rows)) else (_tokens, _supervised)
    return [max(group, key=size) for group in (rows, mixed) if group for size in sizes]


def prove(
    path: ComputePath, task: TrainingTask, settings: LoopSettings, capacity: Capacity, why: str, recipe: Recipe
) -> tuple[Capacity, Plan]:
    """Take real steps and undo them; return the capacity that fits, and the plan.

    The largest rows come first: they show the most memory that any step takes. Afterwards, weights, gradients and
    random state are what they were before.
    """
    import torch

    random, batches = checkpoint.random_state(), _batches(task, settings)
    weights = {name: value.detach().cpu().clone() for name, value in checkpoint.trainable(path.model).items()}
    path.model.train()
    while True:
        capacity.apply(path)
        _forget_peak(settings.device)
        token_s = 0.0
        try:
            token_s = _trial(path, task, batches, settings, capacity)
        except Exception as error:
            # With a sharded base, the other processes wait for this part: the error has to end them all.
            if not is_lack_of_memory(error) or settings.sharded:
                raise
        path.model.zero_grad(set_to_none=True)
        if settings.processes.all(token_s > 0, settings.device):
            break
        longest = max(batches, key=lambda batch: max(example.num_tokens for example in batch))
        capacity = capacity.smaller([*max(batches, key=_work), *longest])
    planned_bytes = float(gpu_peak_bytes())
    with torch.no_grad():
        for name, parameter in checkpoint.trainable(path.model).items():
            parameter.copy_(weights[name])
    checkpoint.set_random_state(random)
    planned_s = token_s * sum(_work(batch) for batch in batches)
    teacher = sum(map(_teacher_tokens, batches)) / max(1, sum(map(_tokens, batches)))
    plan = _plan(recipe, path, settings, capacity, planned_s, planned_bytes, teacher)
    memory = f", {planned_bytes / 2**30:.1f} GiB" if planned_bytes else ""
    console.line(
        f"plan: {plan.description} ({why}); {plan.path}; real steps took{memory}; "
        f"training will take about {console.rough_duration(plan.planned_s)}"
    )
    return capacity, plan


def _trial(
    path: ComputePath, task: TrainingTask, batches: Sequence[list[Example]], settings: LoopSettings, capacity: Capacity
) -> float:
    """Return the seconds per trained token (see ``_work``) of real steps, over all processes together."""
    alone = replace(settings, processes=Processes())
    optimizer = OPTIMIZERS[settings.optimizer](checkpoint.trainable(path.model).values())
    for row in largest_rows([row for batch in batches for row, _ in rows_of(batch, capacity, alone)]):
        path.model.zero_grad(set_to_none=True)
        accumulate(path, task.objective, row, alone, capacity)
    optimizer.step()
    # A GPU's first steps are slower: it loads kernels for each new length of a row.
    pace: list[float] = []
    began = _now(settings.device)
    for batch in [max(batches, key=_work), *batches][:_MAX_TRIAL_STEPS]:
        before = _now(settings.device)
        path.model.zero_grad(set_to_none=True)
        accumulate(path, task.objective, batch, settings, capacity)
        optimizer.step()
        now = _now(settings.device)
        pace.append((now - before) / _work(batch))
        enough = len(pace) > 1 and (now - began > _WARM_UP_S or not settings.device.startswith("cuda"))
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
    recipe: Recipe,
    path: ComputePath,
    settings: LoopSettings,
    capacity: Capacity,
    planned_s: float,
    planned_bytes: float,
    teacher: float,
) -> Plan:
    """Return the plan; ``teacher`` is the number of tokens that the teacher reads per trained token."""
    import torch

    shape = base_shape(recipe)
    full = recipe.training.method == "full"
    name = torch.cuda.get_device_name() if settings.device.startswith("cuda") else ""
    layers = shape.layers if shape else 1
    predicted = 0.0
    if shape and planned_bytes:
        choice = Choice(capacity.micro_batch_tokens, capacity.kept, capacity.cached)
        predicted = predict_memory(recipe, shape, choice, path.is_fast).total
    return Plan(
        micro_batch_tokens=capacity.micro_batch_tokens,
        kept=capacity.kept,
        cached=capacity.cached,
        path=path.name,
        description=_describe(capacity, layers),
        predicted_bytes=predicted,
        planned_bytes=planned_bytes,
        planned_s=planned_s,
        flops_per_token=shape.flops_per_token(full, capacity.checkpointing, teacher) if shape else 0.0,
        peak_flops=peak_flops(name),
        layers=layers,
    )
