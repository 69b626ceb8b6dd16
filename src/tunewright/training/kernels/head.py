"""Log-probabilities of the supervised tokens, without ever holding all logits."""

from __future__ import annotations

from typing import Any

import torch

from tunewright.models.budget import HEAD_BYTES
from tunewright.training.kernels import elementwise

# Logits held at once: enough for products at full speed; fewer where plain torch makes several 32-bit copies of them.
_MOST_BYTES, _MOST_BYTES_PLAIN = HEAD_BYTES, 2**26
_FP16_FACTOR = 2.0**12


class TokenLogps(torch.autograd.Function):
    """The log-probability in nats of each target [n], differentiable in the hidden values.

    Logits are computed a chunk of positions at a time, and each chunk's slope is taken at once: a log-probability
    depends on its own position alone, so that the backward pass only scales rows, whatever the loss is. (Hsu et al.
    2024, sec. 3.2, do so for the mean cross-entropy.)
    """

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, targets: Any) -> Any:
        """Return the log-probabilities for ``hidden`` [n, h], a frozen ``weight`` [vocabulary, h], targets [n]."""
        gradient = ctx.needs_input_grad[0]
        # The slopes of tokens that are learned already leave fp16's range before the loss scale reaches them.
        factor = _FP16_FACTOR if hidden.dtype == torch.float16 else 1.0
        logps = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        slopes: Any = torch.empty_like(hidden) if gradient else None
        most = _MOST_BYTES if elementwise.compiled(str(hidden.device)) else _MOST_BYTES_PLAIN
        for some in _chunks(len(hidden), most // (len(weight) * hidden.element_size())):
            logits = hidden[some] @ weight.t()
            elementwise.token_logps(logits, targets[some], logps[some], factor if gradient else 0.0)
            if gradient:
                torch.mm(logits, weight, out=slopes[some])
        if gradient:
            ctx.save_for_backward(slopes)
            ctx.factor = factor
        return logps

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradient of ``hidden``."""
        (slopes,) = ctx.saved_tensors
        return (slopes * (grads[0] / ctx.factor)[:, None]).to(slopes.dtype), None, None


def _chunks(count: int, most: int) -> list[slice]:
    """Return equal slices of at most ``most``."""
    if not count:
        return []
    pieces = -(-count // max(1, most))
    size = -(-count // pieces)
    return [slice(start, min(count, start + size)) for start in range(0, count, size)]
