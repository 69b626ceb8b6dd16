"""One decoder layer of the Llama kind, forward and backward, with a choice of what is kept in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from tunewright.training.kernels import elementwise
from tunewright.training.kernels.attention import Segments, attend
from tunewright.training.kernels.linear import Group

# What a layer keeps for its backward pass; the rest is computed again.
KEEP_INPUT, KEEP_ATTENTION, KEEP_ALL = 0, 1, 2


@dataclass(frozen=True)
class Norm:
    """A root-mean-square norm's weight and its epsilon."""

    weight: Any
    eps: float


@dataclass
class Layer:
    """A decoder layer's parts. ``heads`` are (query heads, key heads, values per head)."""

    qkv: Group
    out: Group
    gate_up: Group
    down: Group
    attention_norm: Norm
    mlp_norm: Norm
    heads: elementwise.Heads
    head_norms: Norm | None = None
    keep: int = KEEP_ALL

    @property
    def groups(self) -> tuple[Group, ...]:
        """The linear layers in order."""
        return self.qkv, self.out, self.gate_up, self.down

    @property
    def parameters(self) -> list[Any]:
        """All trainable factors, in order."""
        return [factor for group in self.groups for factor in group.parameters]


@dataclass
class Row:
    """What all layers share in a packed row: where its sequences lie, and the cosines and sines of its positions."""

    segments: Segments
    angles: tuple[Any, Any]


@dataclass
class Kept:
    """What the forward pass leaves for the backward pass; None where it is to be computed again."""

    qkv: Any = None
    heads: tuple[Any, Any, Any] | None = None
    attended: Any = None
    middle: Any = None
    gate_up: Any = None
    inner: dict[str, Any] = field(default_factory=dict)  # A x of each group


def forward(layer: Layer, x: Any, row: Row, gradient: bool) -> tuple[Any, Kept]:
    """Return the layer's output [T, h] and what ``keep`` says; nothing is kept without ``gradient``."""

    kept = Kept()
    _attention(layer, x, row, kept, gradient and layer.keep >= KEEP_ATTENTION)
    _gate_up(layer, kept)
    size, tokens = layer.down.num_in, len(x)
    wide = torch.empty(tokens, size + layer.down.spare, dtype=x.dtype, device=x.device)
    elementwise.swiglu(kept.gate_up, wide[:, :size])
    if layer.keep < KEEP_ALL or not gradient:
        kept.gate_up = None
    out = torch.empty_like(x)
    kept.inner["down"] = layer.down.product(wide, out)
    out += kept.middle
    if layer.keep < KEEP_ATTENTION or not gradient:
        kept = Kept()
    return out, kept


def _attention(layer: Layer, x: Any, row: Row, kept: Kept, gradient: bool) -> None:
    """Compute ``kept.qkv`` (before norms of heads), ``heads`` and ``attended`` (with their graph) and ``middle``."""

    tokens, hidden = x.shape
    normed = torch.empty(tokens, hidden + layer.qkv.spare, dtype=x.dtype, device=x.device)
    norm = layer.attention_norm
    elementwise.rms_norm(x, norm.weight, norm.eps, normed[:, :hidden])
    qkv = torch.empty(tokens, layer.qkv.num_out, dtype=x.dtype, device=x.device)
    kept.inner["qkv"] = layer.qkv.product(normed, qkv)
    del normed
    query, key, size = layer.heads
    norms = layer.head_norms
    if norms is None:
        turned = qkv
        elementwise.rotate(qkv, row.angles, layer.heads, None, 0.0, qkv)
    else:
        kept.qkv = qkv
        turned = torch.empty(tokens, (query + key) * size, dtype=x.dtype, device=x.device)
        elementwise.rotate(qkv, row.angles, layer.heads, norms.weight, norms.eps, turned)
    ends = query * size, (query + key) * size
    parts = turned[:, : ends[0]], turned[:, ends[0] : ends[1]], qkv[:, ends[1] :]
    heads = tuple(part.unflatten(1, (-1, size)).detach().requires_grad_(gradient) for part in parts)
    with torch.set_grad_enabled(gradient):
        kept.attended = attend(*heads, row.segments).flatten(1)
    kept.heads = heads
    wide = torch.empty(tokens, query * size + layer.out.spare, dtype=x.dtype, device=x.device)
    wide[:, : query * size] = kept.attended.detach()
    kept.middle = torch.empty_like(x)
    kept.inner["out"] = layer.out.product(wide, kept.middle)
    kept.middle += x


def _gate_up(layer: Layer, kept: Kept) -> None:
    """Compute ``kept.gate_up`` [T, 2f + spare] from ``kept.middle``."""

    middle, norm, group = kept.middle, layer.mlp_norm, layer.gate_up
    tokens, hidden = middle.shape
    normed = torch.empty(tokens, hidden + group.spare, dtype=middle.dtype, device=middle.device)
    elementwise.rms_norm(middle, norm.weight, norm.eps, normed[:, :hidden])
    kept.gate_up = torch.empty(tokens, group.num_out + group.spare, dtype=middle.dtype, device=middle.device)
    kept.inner["gate_up"] = group.product(normed, kept.gate_up[:, : group.num_out])


def backward(layer: Layer, x: Any, row: Row, kept: Kept, grad: Any, wanted: bool) -> tuple[Any, list[Any]]:
    """Return the gradient of the input [T, h] (None where not wanted) and those of ``layer.parameters``.

    Args:
        layer: the layer.
        x: its input.
        row: the packed row.
        kept: what ``forward`` left; it is used up.
        grad: of the layer's output, [T, h].
        wanted: whether anything before this layer is trained.
    """
    if kept.middle is None:
        _attention(layer, x, row, kept, gradient=True)
    if kept.gate_up is None:
        _gate_up(layer, kept)
    factors: dict[str, list[Any]] = {}
    middle_grad = _mlp_backward(layer, kept, grad, factors)
    lower = _attention_backward(layer, x, row, kept, middle_grad, factors, wanted)
    return lower, [gradient for name in ("qkv", "out", "gate_up", "down") for gradient in factors[name]]


def _mlp_backward(layer: Layer, kept: Kept, grad: Any, factors: dict[str, list[Any]]) -> Any:
    """Return the gradient of ``kept.middle`` as the first columns of a wider tensor; fill in the factors'."""

    wide = _widened(grad, layer.down.spare)
    active = layer.down.input_gradient(wide)
    gate_up, kept.gate_up = kept.gate_up, None
    elementwise.swiglu_backward(active, gate_up)  # active now holds the product's input, gate_up the gradients
    if "down" not in kept.inner:  # computed again up to here: the down product itself is not needed
        kept.inner["down"] = layer.down.inner(active)
    factors["down"] = layer.down.factor_gradients(wide, active, kept.inner["down"])
    del active
    normed = layer.gate_up.input_gradient(gate_up)
    tokens, hidden = normed.shape
    out = torch.empty(tokens, hidden + layer.out.spare, dtype=grad.dtype, device=grad.device)
    norm = layer.mlp_norm
    elementwise.rms_norm_backward(normed, kept.middle, norm.weight, norm.eps, grad, out[:, :hidden])
    kept.middle = None
    factors["gate_up"] = layer.gate_up.factor_gradients(gate_up, normed, kept.inner["gate_up"])
    return out


def _attention_backward(
    layer: Layer, x: Any, row: Row, kept: Kept, grad: Any, factors: dict[str, list[Any]], wanted: bool
) -> Any:
    """Return the gradient of the layer's input from ``grad`` [T, h + spare] of its middle; fill in the factors'."""

    group, hidden = layer.qkv, x.shape[1]
    attended, heads = kept.attended, kept.heads
    upper = layer.out.input_gradient(grad)
    factors["out"] = layer.out.factor_gradients(grad, attended.detach(), kept.inner["out"])
    grads = torch.autograd.grad(attended, heads, upper)
    kept.attended = kept.heads = attended = heads = upper = None
    wide = torch.empty(len(x), group.num_out + group.spare, dtype=x.dtype, device=x.device)
    norms = layer.head_norms
    weight, eps = (None, 0.0) if norms is None else (norms.weight, norms.eps)
    raw = wide if kept.qkv is None else kept.qkv
    elementwise.rotate_backward(grads, raw, row.angles, layer.heads, weight, eps, wide)
    del grads
    normed = group.input_gradient(wide, wanted)
    norm = layer.attention_norm
    if normed is None:
        normed = torch.empty_like(x)
        elementwise.rms_norm(x, norm.weight, norm.eps, normed)
        out = None
    else:
        # As wide as the layer before needs it, so that it copies nothing.
        out = torch.empty(len(x), hidden + layer.down.spare, dtype=x.dtype, device=x.device)[:, :hidden]
        elementwise.rms_norm_backward(normed, x, norm.weight, norm.eps, grad[:, :hidden], out)
    factors["qkv"] = group.factor_gradients(wide, normed, kept.inner["qkv"])
    return out


def _widened(grad: Any, spare: int) -> Any:
    """Return ``grad`` [T, n] as the first columns of [T, n + spare], without a copy where it lies in such a tensor."""

    tokens, size = grad.shape
    end = (grad.storage_offset() + tokens * (size + spare)) * grad.element_size()
    if grad.stride() == (size + spare, 1) and end <= grad.untyped_storage().nbytes():
        return grad.as_strided((tokens, size + spare), (size + spare, 1))
    wide = torch.empty(tokens, size + spare, dtype=grad.dtype, device=grad.device)
    wide[:, :size] = grad
    return wide
