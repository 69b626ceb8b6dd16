"""The loss of distillation: forward KL over the whole vocabulary and cross-entropy, in chunks, with their slopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunewright.training.kernels.head import chunks, slope_factor

if TYPE_CHECKING:
    from tunewright.training.packing import PackedRow

_CHUNK_BYTES = 2**25  # of one model's logits at once; about 16 times as much lives in 32-bit copies of them


@dataclass(frozen=True)
class Mixture:
    """What the loss of a taught token is made of: (1 - s) t² KL(teacher at t ‖ student at t) + s cross-entropy.

    Attributes:
        temperature: t, which divides the logits of both; t² keeps the gradient's size (Hinton et al. 2015, sec. 2).
        cross_entropy: s. A token without a teacher has cross-entropy alone.
    """

    temperature: float = 1.0
    cross_entropy: float = 0.0


def distilled(
    values: Tensor, weight: Tensor | None, teacher: Tensor, row: PackedRow, mixture: Mixture
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each token's loss, divergence (0 without a teacher) and cross-entropy in nats: [n] each, float32.

    Args:
        values: the student's, [n, h] before the head, or its logits [n, vocabulary]; differentiable.
        weight: the frozen head, [vocabulary, h]; None if the values are logits.
        teacher: the teacher's values of the taught tokens, in the same form.
        row: its ``targets`` and ``taught``.
        mixture: what the loss is made of.
    """
    taught = row.taught if row.taught is not None else torch.zeros_like(row.targets, dtype=torch.bool)
    if len(teacher) != len(values):
        spread = torch.zeros_like(values, requires_grad=False)
        spread[taught] = teacher.to(values.dtype)
        teacher = spread
    losses: tuple[Tensor, Tensor, Tensor] = _DistilledLosses.apply(
        values, weight, teacher.detach(), row.targets, taught.float(), mixture
    )
    return losses


class _DistilledLosses(torch.autograd.Function):
    """Losses [n] whose slopes are computed beside them, a chunk of positions at a time, as for ``TargetLogps``."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor | None,
        teacher: Tensor,
        targets: Tensor,
        taught: Tensor,
        mixture: Mixture,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses, divergences and cross-entropies, [n] each, float32; see ``distilled``."""
        gradient = ctx.needs_input_grad[0]
        ctx.factor = slope_factor(values)
        losses, divergences, entropies = torch.empty(3, len(values), dtype=torch.float32, device=values.device)
        slopes = torch.empty_like(values) if gradient else None
        vocabulary = values.shape[1] if weight is None else len(weight)
        for chunk in chunks(len(values), _CHUNK_BYTES // (vocabulary * values.element_size())):
            logits = values[chunk] if weight is None else values[chunk] @ weight.t()
            others = teacher[chunk] if weight is None else teacher[chunk] @ weight.t()
            part = _token_losses(logits, others, targets[chunk], taught[chunk], mixture, gradient)
            losses[chunk], divergences[chunk], entropies[chunk], slope = part
            if slopes is not None and slope is not None:
                slope = slope.mul_(ctx.factor).to(values.dtype)
                slopes[chunk] = slope if weight is None else slope @ weight
        if gradient:
            ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(divergences, entropies)
        return losses, divergences, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """Return the gradient of ``values``."""
        (slopes,) = ctx.saved_tensors
        return (slopes * (grads[0] / ctx.factor)[:, None]).to(slopes.dtype), None, None, None, None, None


def _token_losses(
    logits: Tensor, teacher: Tensor, targets: Tensor, taught: Tensor, mixture: Mixture, gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return losses, divergences and cross-entropies [c], and d losses / d logits [c, vocabulary], all float32.

    Args:
        logits: the student's, [c, vocabulary].
        teacher: the teacher's, [c, vocabulary]; of any value where nothing is taught.
        targets: token ids, [c].
        taught: 1 or 0, [c].
        mixture: what the loss is made of.
        gradient: whether the slopes are needed; None is returned in their place if not.
    """
    heat = mixture.temperature
    logps = torch.log_softmax(logits.float(), -1)
    soft = logps if heat == 1 else torch.log_softmax(logits.float() / heat, -1)
    goals = torch.log_softmax(teacher.float() / heat, -1)
    probabilities = goals.exp()
    divergences = taught * (probabilities * goals.sub_(soft)).sum(-1)
    del goals
    entropies = -logps.gather(1, targets[:, None])[:, 0]
    soft_share = taught * (1 - mixture.cross_entropy)
    losses = soft_share * heat**2 * divergences + (1 - soft_share) * entropies
    if not gradient:
        return losses, divergences, entropies, None
    # The slope of KL is (q - p) / t, that of cross-entropy q - one-hot.
    slope = soft.exp().sub_(probabilities).mul_((soft_share * heat)[:, None])
    hard = logps.exp_().mul_((1 - soft_share)[:, None])
    hard[torch.arange(len(targets), device=targets.device), targets] -= 1 - soft_share
    return losses, divergences, entropies, slope.add_(hard)
