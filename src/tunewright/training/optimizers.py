"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer


def _adamw(parameters: Iterable[Parameter]) -> Optimizer:
    import torch

    parameters = list(parameters)
    # On a GPU, one kernel updates all parameters; on a CPU, unfused steps keep resumed runs bit-identical.
    fused = all(parameter.is_cuda for parameter in parameters) or None
    return _counted(torch.optim.AdamW(parameters, weight_decay=0.0, fused=fused))


def _adamw_8bit(parameters: Iterable[Parameter]) -> Optimizer:
    import bitsandbytes

    return _counted(bitsandbytes.optim.AdamW8bit(parameters, weight_decay=0.0))


def _paged_adamw_8bit(parameters: Iterable[Parameter]) -> Optimizer:
    import bitsandbytes

    return _counted(bitsandbytes.optim.PagedAdamW8bit(parameters, weight_decay=0.0))


def _counted(optimizer: Optimizer) -> Optimizer:
    """Increment the parameters' versions after each step: fused kernels and bitsandbytes write past torch.

    The fast path keeps 16-bit copies of the adapter, and renews them when the versions have changed.
    """
    import torch

    def count(stepped: Optimizer, *_: Any) -> None:
        for group in stepped.param_groups:
            for parameter in group["params"]:
                torch.autograd.graph.increment_version(parameter)

    optimizer.register_step_post_hook(count)
    return optimizer


def _cosine(done: float) -> float:
    """Return half a cosine, from 1 to 0 (Loshchilov & Hutter 2017, eq. 5)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def learning_rate(step: int, total: int, peak: float, warmup_share: float, schedule: str) -> float:
    """Return the learning rate of a step (counted from 0): a linear rise to ``peak``, then the schedule."""
    warmup = math.ceil(total * warmup_share)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * SCHEDULES[schedule]((step - warmup) / max(1, total - warmup))


# Weight decay is 0 throughout: an adapter starts at no change, and decay would pull it back there.
OPTIMIZERS: Mapping[str, Callable[[Iterable[Parameter]], Optimizer]] = {
    "adamw": _adamw,
    "adamw-8bit": _adamw_8bit,  # Dettmers et al. 2022: states in 8 bit by block
    "paged-adamw-8bit": _paged_adamw_8bit,  # and moved to the host's memory when the GPU's is full
}
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}
