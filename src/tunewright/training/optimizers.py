"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def _adamw(parameters: Iterable[Any]) -> Any:
    import torch

    parameters = list(parameters)
    # On a GPU one kernel updates all parameters; on a CPU the plain steps keep resumed runs bit-identical.
    fused = all(one.is_cuda for one in parameters) or None
    return _counted(torch.optim.AdamW(parameters, weight_decay=0.0, fused=fused))


def _adamw_8bit(parameters: Iterable[Any]) -> Any:
    import bitsandbytes

    return _counted(bitsandbytes.optim.AdamW8bit(parameters, weight_decay=0.0))


def _paged_adamw_8bit(parameters: Iterable[Any]) -> Any:
    import bitsandbytes

    return _counted(bitsandbytes.optim.PagedAdamW8bit(parameters, weight_decay=0.0))


def _counted(optimizer: Any) -> Any:
    """Have torch see that a step changes parameters: fused kernels and bitsandbytes write behind its back.

    The fast path keeps copies of the adapter in 16 bit and renews them when the parameters' versions have changed.
    """
    import torch

    def count(stepped: Any, *_: Any) -> None:
        for group in stepped.param_groups:
            for parameter in group["params"]:
                torch.autograd.graph.increment_version(parameter)

    optimizer.register_step_post_hook(count)
    return optimizer


def _cosine(done: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017, eq. 5)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def learning_rate(step: int, total: int, peak: float, warmup_share: float, schedule: str) -> float:
    """Return the rate of a step (counted from 0): a linear rise to ``peak``, then the schedule."""
    warmup = math.ceil(total * warmup_share)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * SCHEDULES[schedule]((step - warmup) / max(1, total - warmup))


# Decoupled weight decay is 0 throughout: an adapter starts at no change, and decay would pull it back there.
OPTIMIZERS: Mapping[str, Callable[[Iterable[Any]], Any]] = {
    "adamw": _adamw,
    "adamw-8bit": _adamw_8bit,  # Dettmers et al. 2022: states in 8 bit by block
    "paged-adamw-8bit": _paged_adamw_8bit,  # and moved to the host's memory when the GPU's runs out
}
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}
