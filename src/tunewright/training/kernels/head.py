"""The head and the log-probabilities of supervised tokens, without the logits of a whole row in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunewright.models.memory_plan import HEAD_BYTES
from tunewright.models.text_config import setting_of
from tunewright.training.kernels import elementwise

# Of logits at once: enough for products at full speed; fewer where plain torch makes several 32-bit copies of them.
_MAX_BYTES, _MAX_BYTES_PLAIN = HEAD_BYTES, 2**26
_FP16_FACTOR = 2.0**12


@dataclass(frozen=True)
class LogitForm:
    """What a model does with the product of its head: first ``scale`` it, then cap it softly (0: not)."""

    scale: float = 1.0
    softcap: float = 0.0

    @classmethod
    def of(cls, config: Any) -> LogitForm:
        """Return the form that the config of a text model describes."""
        softcap = setting_of(config, "final_logit_softcapping") or 0.0
        return cls(1 / float(setting_of(config, "logits_scaling", 1.0)), float(softcap))

    def apply(self, logits: Tensor) -> Tensor:
        """Return the logits of products of the head, differentiable."""
        logits = logits if self.scale == 1 else logits * self.scale
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits


class TargetLogps(torch.autograd.Function):
    """The log-probability in nats of each target [n], differentiable in the hidden values.

    Logits are computed a chunk of positions at a time, together with the chunk's slope: a log-probability depends on
    its own position alone, so the backward pass only scales rows, whatever the loss is. (Hsu et al. 2024, sec. 3.2,
    do so for the mean cross-entropy.)
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, form: LogitForm) -> Tensor:
        """Return the log-probabilities [n], float32.

        Args:
            ctx: of autograd.
            hidden: [n, h], in the type of the products.
            weight: the frozen head, [vocabulary, h].
            targets: [n], token ids.
            form: what is done with the products of the head.
        """
        gradient = ctx.needs_input_grad[0]
        factor = slope_factor(hidden)
        logps = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        slopes: Tensor | None = torch.empty_like(hidden) if gradient else None
        for chunk in chunks(len(hidden), _most_rows(hidden, len(weight))):
            logits = hidden[chunk] @ weight.t()
            steepness = factor if gradient else 0.0
            elementwise.token_logps(logits, targets[chunk], logps[chunk], steepness, form.scale, form.softcap)
            if slopes is not None:
                torch.mm(logits, weight, out=slopes[chunk])
        if gradient:
            ctx.save_for_backward(slopes)
            ctx.factor = factor
        return logps

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of ``hidden``, [n, h]."""
        (slopes,) = ctx.saved_tensors
        return (slopes * (grads[0] / ctx.factor)[:, None]).to(slopes.dtype), None, None, None


def slope_factor(values: Tensor) -> float:
    """Return the factor of slopes: those of well-predicted tokens leave fp16's range before the loss scale comes."""
    return _FP16_FACTOR if values.dtype == torch.float16 else 1.0


def _most_rows(values: Tensor, vocabulary: int) -> int:
    """Return how many positions' logits, of the type of ``values``, are computed at once."""
    most = _MAX_BYTES if elementwise.compiled(str(values.device)) else _MAX_BYTES_PLAIN
    return int(most // (vocabulary * values.element_size()))


def chunks(count: int, most: int) -> list[slice]:
    """Return slices of equal size, at most ``most`` positions each."""
    if not count:
        return []
    pieces = -(-count // max(1, most))
    size = -(-count // pieces)
    return [slice(start, min(count, start + size)) for start in range(0, count, size)]


class LogitLogps(torch.autograd.Function):
    """The log-probability in nats of each target [n], differentiable in the logits; no copies in 32 bit are kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the log-probabilities [n], float32, for ``logits`` [n, vocabulary] and ``targets`` [n]."""
        gradient = ctx.needs_input_grad[0]
        factor = slope_factor(logits)
        logps = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        slopes = logits.detach().clone() if gradient else logits.detach()
        for chunk in chunks(len(logits), _most_rows(slopes, slopes.shape[1])):
            elementwise.token_logps(slopes[chunk], targets[chunk], logps[chunk], factor if gradient else 0.0)
        if gradient:
            ctx.save_for_backward(slopes)
            ctx.factor = factor
        return logps

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits, [n, vocabulary]."""
        (slopes,) = ctx.saved_tensors
        out = torch.empty_like(slopes)
        for chunk in chunks(len(slopes), _most_rows(slopes, slopes.shape[1])):
            out[chunk] = slopes[chunk] * (grads[0][chunk] / ctx.factor)[:, None]
        return out, None
