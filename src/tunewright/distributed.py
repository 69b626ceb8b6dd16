"""Several processes in one training: this process's rank, sums over all processes, and calls of the first process.

``torchrun`` and ``accelerate launch`` start one process per GPU and give each its rank in the environment. The first
process runs the pipeline; the others, its followers, wait for the stages in which all take part.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Parameter

_WAIT = timedelta(days=30)  # a follower waits through synthesis, however long it takes


@dataclass(frozen=True)
class Processes:
    """This process's rank among all processes, and its rank on its machine (``local_rank``)."""

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
        """Return whether the answer is true in all processes."""
        return answer if self.world_size == 1 else self.sum([float(answer)], device)[0] == self.world_size

    def smallest(self, value: float, device: str) -> float:
        """Return the smallest value over all processes."""
        if self.world_size == 1:
            return value
        import torch

        smallest = torch.tensor([value], dtype=torch.float64, device=device)
        torch.distributed.all_reduce(smallest, op=torch.distributed.ReduceOp.MIN)
        return float(smallest)

    def sum_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Replace each gradient by its sum over all processes; a missing gradient counts as zero."""
        if self.world_size == 1:
            return
        import torch

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.world_size > 1:
            self.sum([0.0], "cuda" if _has_gpu() else "cpu")

    def call(self, task: str) -> None:
        """Announce the stage in which the followers take part next; an empty text ends them."""
        if self.world_size > 1:
            store = _store()
            store.set(f"task {store.add('tasks', 1)}", task)

    def next_task(self, number: int) -> str:
        """Wait for the announcement of this number (from 1) and return it."""
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
    """Return this process's ranks; the first call in a launched process joins the others."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Processes()
    import torch

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if not torch.distributed.is_initialized():
        if _has_gpu():
            torch.cuda.set_device(local_rank)
        torch.distributed.init_process_group("nccl" if _has_gpu() else "gloo", timeout=timedelta(hours=2))
        atexit.register(torch.distributed.destroy_process_group)  # its threads abort a process that ends before them
    return Processes(int(os.environ["RANK"]), world_size, local_rank)
