"""Several processes, one training: who this process is, sums over all, and how the others follow the first.

``torchrun`` and ``accelerate launch`` start one process per GPU and tell each its place in the environment. The first
one runs the pipeline; the others wait for the stages that all take part in.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

_WAIT = timedelta(days=30)  # a follower waits through synthesis, however long that takes


@dataclass(frozen=True)
class Processes:
    """This process's place among all."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def sum(self, values: Sequence[float], device: str) -> list[float]:
        """Return the sums over all processes."""
        if self.world_size == 1:
            return list(values)
        import torch

        totals = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(totals)
        return [float(total) for total in totals.tolist()]

    def all(self, answer: bool, device: str) -> bool:
        """Return whether the answer is yes in all processes."""
        return answer if self.world_size == 1 else self.sum([float(answer)], device)[0] == self.world_size

    def smallest(self, value: float, device: str) -> float:
        """Return the smallest value of all processes."""
        if self.world_size == 1:
            return value
        import torch

        least = torch.tensor([value], dtype=torch.float64, device=device)
        torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
        return float(least)

    def sum_gradients(self, parameters: Iterable[Any]) -> None:
        """Replace each gradient by its sum over all processes; one that has none counts as zero."""
        if self.world_size == 1:
            return
        import torch

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)

    def wait(self) -> None:
        """Return once all processes are here."""
        if self.world_size > 1:
            self.sum([0.0], "cuda" if _has_gpu() else "cpu")

    def call(self, task: str) -> None:
        """Tell the followers what to take part in next; an empty text sends them home."""
        if self.world_size > 1:
            store = _store()
            store.set(f"task {store.add('tasks', 1)}", task)

    def next_task(self, number: int) -> str:
        """Wait for the task of that number (from 1) and return it."""
        store = _store()
        store.wait([f"task {number}"], _WAIT)
        return str(store.get(f"task {number}").decode())


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _store() -> Any:
    import torch

    return torch.distributed.distributed_c10d._get_default_store()


def processes() -> Processes:
    """Return this process's place; joins the others at the first call of a launched process."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Processes()
    import torch

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if not torch.distributed.is_initialized():
        if _has_gpu():
            torch.cuda.set_device(local_rank)
        torch.distributed.init_process_group("nccl" if _has_gpu() else "gloo", timeout=timedelta(hours=2))
        atexit.register(torch.distributed.destroy_process_group)  # its threads abort a process that ends under them
    return Processes(int(os.environ["RANK"]), world_size, local_rank)
