"""Norms of the plain path in one kernel each, where a trial shows that the kernel computes what the layer computes.

Written in separate operations, as in transformers, a norm reads and writes its values six times in 32 bit. Gemma 3 has
six norms a layer: they took longer than its attention.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from tunewright.training.kernels import elementwise

_TRIED, _TOLERANCE = 3, 1e-4  # rows, and the relative difference that the order of sums may make
_OFFSETS = (0.0, 1.0)  # the stored weight is the factor itself, or its difference from 1


def fuse_norms(model: Module) -> int:
    """Let the model's frozen root-mean-square norms compute themselves in one kernel; return their number.

    A norm is known by what it computes, not by its class: norms with gates, groups or trained weights stay as they are.
    """
    fused = 0
    for module in model.modules():
        if (form := _form(module)) is not None:
            # Only the computation is replaced: the layer with its weight is saved and merged as before.
            module.forward = partial(_normed, *form)
            fused += 1
    return fused


def _form(module: Module) -> tuple[Tensor, float] | None:
    """Return the factors (float32) and the epsilon of a frozen root-mean-square norm; None for any other layer."""
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    named = dict(module.named_parameters())
    weight = named.get("weight")
    if "RMSNorm" not in type(module).__name__ or len(named) != 1 or weight is None or not isinstance(eps, float):
        return None
    if weight.dim() != 1 or weight.requires_grad or type(weight) is not torch.nn.Parameter:  # as the parts of a base
        return None  # that is spread over several GPUs
    x = torch.arange(_TRIED * len(weight), device=weight.device, dtype=torch.float32).sin().view(_TRIED, -1)
    with torch.no_grad():
        try:
            expected = module(x)
        except (RuntimeError, TypeError):  # it takes more than the values
            return None
        for offset in _OFFSETS:
            factors = weight.detach().float() + offset
            ours = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * factors
            if bool((ours - expected).norm() <= _TOLERANCE * expected.norm()):
                return factors, eps
    return None


def _normed(factors: Tensor, eps: float, x: Tensor) -> Tensor:
    normed: Tensor = _Norm.apply(x, factors, eps)
    return normed


class _Norm(torch.autograd.Function):
    """The norm of the last dimension of x; what it keeps is x itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor, eps: float) -> Tensor:
        """Return the norm of ``x`` [..., h] times ``factors`` [h], in the type and the order in memory of ``x``."""
        x = x if _turned(x).is_contiguous() else x.contiguous()
        out = torch.empty_like(x)
        elementwise.rms_norm(_rows(x), factors, eps, _rows(out))
        ctx.save_for_backward(x, factors)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of x."""
        x, factors = ctx.saved_tensors
        grad = grads[0] if grads[0].stride() == x.stride() else torch.empty_like(x).copy_(grads[0])
        out = torch.empty_like(x)
        elementwise.rms_norm_backward(_rows(grad), _rows(x), factors, ctx.eps, None, _rows(out), again=False)
        return out, None, None


def _turned(x: Tensor) -> Tensor:
    """Return x in its order in memory: heads come as [1, heads, T, size], a view of [1, T, heads, size]."""
    return x.transpose(1, 2) if x.dim() == 4 and not x.is_contiguous() else x


def _rows(x: Tensor) -> Tensor:
    return _turned(x).view(-1, x.shape[-1])
