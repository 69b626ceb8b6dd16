"""A decoder layer of the Llama kind, forward and backward, with a choice of what is kept in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tunewright.models.memory_plan import LEVELS
from tunewright.training.kernels import elementwise
from tunewright.training.kernels.attention import Segments, attend
from tunewright.training.kernels.linear import LinearGroup

# What a layer keeps for its backward pass: each level adds to those before it; the rest is recomputed.
KEEP_INPUT, KEEP_ATTENTION, KEEP_MLP, KEEP_PRODUCTS = range(LEVELS + 1)


@dataclass(frozen=True)
class Norm:
    """A root-mean-square norm: its weight [h], or [2, size] for the heads of query and key, and its epsilon."""

    weight: Tensor
    eps: float


@dataclass
class DecoderLayer:
    """A decoder layer's parts; ``keep`` is the level of activations that it keeps."""

    qkv: LinearGroup
    out: LinearGroup
    gate_up: LinearGroup
    down: LinearGroup
    attention_norm: Norm
    mlp_norm: Norm
    heads: elementwise.Heads
    head_norms: Norm | None = None
    keep: int = KEEP_PRODUCTS

    @property
    def groups(self) -> tuple[LinearGroup, ...]:
        """The groups of linear layers in order."""
        return self.qkv, self.out, self.gate_up, self.down

    @property
    def parameters(self) -> list[Tensor]:
        """All trainable factors, in order."""
        return [factor for group in self.groups for factor in group.parameters]


@dataclass
class RowContext:
    """What all layers share in a packed row: its sequences, and cosines and sines of its positions, [T, size / 2]."""

    segments: Segments
    angles: tuple[Tensor, Tensor]


@dataclass
class Activations:
    """The tensors that the forward pass leaves for the backward pass; None means that it is recomputed.

    Attributes:
        qkv: queries, keys and values before the norms of heads, [T, (query + 2 key heads) × size].
        heads: rotated queries, keys, and values, [T, heads, size] each.
        attended: attention's output, [T, query heads × size].
        middle: the stream between attention and MLP, [T, h].
        gate_up: the MLP's gate and up, [T, 2f + spare].
        inner: A x of each group of linear layers, [T, r].
        inputs: the x themselves where they are kept, [T, k].
    """

    qkv: Any = None
    heads: tuple[Tensor, Tensor, Tensor] | None = None
    attended: Any = None
    middle: Any = None
    gate_up: Any = None
    inner: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)

    def product(self, name: str, group: LinearGroup, x: Tensor, keep_input: bool, spare: int = 0) -> Tensor:
        """Return a group's outputs [T, n + spare] for ``x`` [T, k + the group's spare]."""
        out, inner = group.product(x, spare)
        self.inner[name] = inner if keep_input else inner.clone()
        if keep_input:
            self.inputs[name] = x[:, : group.num_in]
        return out


def forward(layer: DecoderLayer, x: Tensor, row: RowContext, gradient: bool) -> tuple[Tensor, Activations]:
    """Return the layer's output [T, h] and the activations of level ``keep``; without ``gradient``, none are kept."""
    keep = layer.keep if gradient else KEEP_INPUT
    kept = Activations()
    _attention(layer, x, row, kept, keep)
    _gate_up(layer, kept, keep, x)
    wide = _wide(x, layer.down.num_in, layer.down.spare)
    elementwise.swiglu(kept.gate_up, wide[:, : layer.down.num_in])
    if keep < KEEP_MLP:
        kept.gate_up = None
    out = kept.product("down", layer.down, wide, keep >= KEEP_PRODUCTS)
    out += kept.middle
    return out, kept if keep >= KEEP_ATTENTION else Activations()


def _wide(x: Tensor, columns: int, spare: int) -> Tensor:
    """Return an empty tensor [T, columns + spare] like ``x``."""
    return torch.empty(len(x), columns + spare, dtype=x.dtype, device=x.device)


def _attention(layer: DecoderLayer, x: Tensor, row: RowContext, kept: Activations, keep: int) -> None:
    """Compute ``kept.qkv`` (before norms of heads), ``heads`` and ``attended`` (with their graph) and ``middle``."""
    hidden, gradient = x.shape[1], keep >= KEEP_ATTENTION
    normed = _wide(x, hidden, layer.qkv.spare)
    norm = layer.attention_norm
    elementwise.rms_norm(x, norm.weight, norm.eps, normed[:, :hidden])
    qkv = kept.product("qkv", layer.qkv, normed, keep >= KEEP_PRODUCTS)
    del normed
    query, key, size = layer.heads
    norms = layer.head_norms
    if norms is None:
        rotated = qkv
        elementwise.rotate(qkv, row.angles, layer.heads, None, 0.0, qkv)
    else:
        kept.qkv = qkv
        rotated = _wide(x, (query + key) * size, 0)
        elementwise.rotate(qkv, row.angles, layer.heads, norms.weight, norms.eps, rotated)
    ends = query * size, (query + key) * size
    parts = rotated[:, : ends[0]], rotated[:, ends[0] : ends[1]], qkv[:, ends[1] :]
    heads = [part.unflatten(1, (-1, size)).detach().requires_grad_(gradient) for part in parts]
    with torch.set_grad_enabled(gradient):
        kept.attended = attend(heads[0], heads[1], heads[2], row.segments).flatten(1)
    kept.heads = heads[0], heads[1], heads[2]
    wide = _wide(x, query * size, layer.out.spare)
    wide[:, : query * size] = kept.attended.detach()
    kept.middle = kept.product("out", layer.out, wide, keep_input=False)


def _gate_up(layer: DecoderLayer, kept: Activations, keep: int, x: Tensor = None) -> None:
    """Compute ``kept.gate_up`` from ``kept.middle``, to which ``x`` is added first if it is given."""
    middle, norm, group = kept.middle, layer.mlp_norm, layer.gate_up
    hidden = middle.shape[1]
    normed = _wide(middle, hidden, group.spare)
    elementwise.rms_norm(middle, norm.weight, norm.eps, normed[:, :hidden], x, middle if x is not None else None)
    kept.gate_up = kept.product("gate_up", group, normed, keep >= KEEP_PRODUCTS, group.grad_spare)


def backward(
    layer: DecoderLayer, x: Tensor, row: RowContext, kept: Activations, grad: Tensor, with_input: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """Return the gradients of the input [T, h] (None without ``with_input``) and of ``layer.parameters``.

    Args:
        layer: the layer.
        x: its input, [T, h].
        row: the packed row.
        kept: what ``forward`` left; it is consumed.
        grad: of the layer's output, [T, h].
        with_input: whether anything before this layer is trained.
    """
    added = None
    if kept.middle is None:
        _attention(layer, x, row, kept, KEEP_ATTENTION)
        added = x
    if kept.gate_up is None:
        _gate_up(layer, kept, KEEP_ATTENTION, added)
    factors: dict[str, list[Tensor]] = {}
    middle_grad = _mlp_backward(layer, kept, grad, factors)
    lower = _attention_backward(layer, x, row, kept, middle_grad, factors, with_input)
    return lower, [gradient for name in ("qkv", "out", "gate_up", "down") for gradient in factors[name]]


def _mlp_backward(layer: DecoderLayer, kept: Activations, grad: Tensor, factors: dict[str, list[Tensor]]) -> Tensor:
    """Return the gradient of ``kept.middle`` as the first columns of a wider tensor; fill in the factors'."""
    wide = _widened(grad, layer.down.grad_spare)
    active, inner_grad = layer.down.input_gradient(wide)
    gate_up, kept.gate_up = kept.gate_up, None
    product = kept.inputs.pop("down", None)
    elementwise.swiglu_backward(active, gate_up, again=product is None)  # gate_up now holds the gradients
    if product is None:
        product = active
    if "down" not in kept.inner:  # recomputed up to here: the down product itself is not needed
        kept.inner["down"] = layer.down.inner(product)
    factors["down"] = layer.down.factor_gradients(wide, product, kept.inner.pop("down"), inner_grad)
    del active, product
    lower, inner_grad = layer.gate_up.input_gradient(gate_up)
    normed = kept.inputs.pop("gate_up", None)
    hidden = grad.shape[1]
    out = _wide(grad, hidden, layer.out.grad_spare)
    norm, again = layer.mlp_norm, normed is None
    elementwise.rms_norm_backward(lower, kept.middle, norm.weight, norm.eps, grad, out[:, :hidden], again)
    kept.middle = None
    normed = lower if normed is None else normed
    factors["gate_up"] = layer.gate_up.factor_gradients(gate_up, normed, kept.inner.pop("gate_up"), inner_grad)
    return out


def _attention_backward(
    layer: DecoderLayer,
    x: Tensor,
    row: RowContext,
    kept: Activations,
    grad: Tensor,
    factors: dict[str, list[Tensor]],
    with_input: bool,
) -> Tensor:
    """Return the gradient of the layer's input from ``grad`` [T, h + spare] of its middle; fill in the factors'."""
    group, hidden = layer.qkv, x.shape[1]
    attended, heads = kept.attended, kept.heads
    upper, inner_grad = layer.out.input_gradient(grad)
    factors["out"] = layer.out.factor_gradients(grad, attended.detach(), kept.inner.pop("out"), inner_grad)
    grads = torch.autograd.grad(attended, heads, upper)
    kept.attended = kept.heads = attended = heads = upper = None
    wide = _wide(x, group.num_out, group.grad_spare)
    norms = layer.head_norms
    weight, eps = (None, 0.0) if norms is None else (norms.weight, norms.eps)
    raw = wide if kept.qkv is None else kept.qkv
    elementwise.rotate_backward(grads, raw, row.angles, layer.heads, weight, eps, wide)
    del grads
    lower, inner_grad = group.input_gradient(wide, with_input)
    normed = kept.inputs.pop("qkv", None)
    out = None
    norm, again = layer.attention_norm, normed is None
    if with_input:
        # As wide as the layer before needs it, which saves that layer a copy.
        out = _wide(x, hidden, layer.down.grad_spare)[:, :hidden]
        elementwise.rms_norm_backward(lower, x, norm.weight, norm.eps, grad[:, :hidden], out, again)
    elif again:
        lower = torch.empty_like(x)
        elementwise.rms_norm(x, norm.weight, norm.eps, lower)
    normed = lower if normed is None else normed
    factors["qkv"] = group.factor_gradients(wide, normed, kept.inner.pop("qkv"), inner_grad)
    return out


def _widened(grad: Tensor, spare: int) -> Tensor:
    """Return ``grad`` [T, n] as the first columns of [T, n + spare]; no copy if it already lies in such a tensor."""
    tokens, size = grad.shape
    end = (grad.storage_offset() + tokens * (size + spare)) * grad.element_size()
    if grad.stride() == (size + spare, 1) and end <= grad.untyped_storage().nbytes():
        return grad.as_strided((tokens, size + spare), (size + spare, 1))
    wide = _wide(grad, size, spare)
    wide[:, :size] = grad
    return wide
