"""A decoder layer, forward and backward, with a choice of what is kept in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tunewright.models.memory_plan import LEVELS
from tunewright.training.kernels import elementwise
from tunewright.training.kernels.attention import Scores, Segments, attend
from tunewright.training.kernels.experts import ExpertGroup, ExpertMLP
from tunewright.training.kernels.linear import LinearGroup

# What a layer keeps for its backward pass: each level adds to those before it; the rest is recomputed.
KEEP_INPUT, KEEP_ATTENTION, KEEP_MLP, KEEP_PRODUCTS = range(LEVELS + 1)


@dataclass(frozen=True)
class Norm:
    """A root-mean-square norm: its weight [h], or [2, size] for the heads of query and key, and its epsilon."""

    weight: Tensor
    eps: float


@dataclass
class DenseMLP:
    """The linear layers of a gated MLP."""

    gate_up: LinearGroup
    down: LinearGroup

    @property
    def groups(self) -> tuple[LinearGroup, ...]:
        """The groups of linear layers in order."""
        return self.gate_up, self.down


@dataclass
class DecoderLayer:
    """A decoder layer's parts.

    Attributes:
        attention_norm: before attention; None where there is none, as for the next three.
        attention_after: behind attention, before its output is added to the stream.
        mlp_norm: before the MLP.
        mlp_after: behind the MLP.
        head_norms: of each query and key head, [2, size].
        wide_norms: of all query heads together, and of all key heads.
        residual: factor of what is added to the stream.
        rotation: the key of the layer's angles in ``RowContext.angles``.
        keep: the level of activations that the layer keeps.
    """

    qkv: LinearGroup
    out: LinearGroup
    mlp: DenseMLP | ExpertMLP
    attention_norm: Norm | None
    mlp_norm: Norm | None
    heads: elementwise.Heads
    attention_after: Norm | None = None
    mlp_after: Norm | None = None
    head_norms: Norm | None = None
    wide_norms: tuple[Norm, Norm] | None = None
    scores: Scores = Scores()
    activation: str = "silu"
    residual: float = 1.0
    rotation: str = ""
    keep: int = KEEP_PRODUCTS

    @property
    def groups(self) -> tuple[LinearGroup | ExpertGroup, ...]:
        """The groups of linear layers in order."""
        return self.qkv, self.out, *self.mlp.groups

    @property
    def input_spare(self) -> int:
        """Number of columns that the gradient of the layer's output needs beside its values."""
        return self.mlp.down.grad_spare if isinstance(self.mlp, DenseMLP) else 0

    @property
    def parameters(self) -> list[Tensor]:
        """All trainable factors, in order."""
        return [factor for group in self.groups for factor in group.parameters]


@dataclass
class RowContext:
    """What all layers share in a packed row: its sequences, and the positions' angles.

    Attributes:
        angles: cosines and sines, [T, r / 2] each, by the rotation's name.
    """

    segments: Segments
    angles: Mapping[str, tuple[Tensor, Tensor]]


@dataclass
class Activations:
    """The tensors that the forward pass leaves for the backward pass; None means that it is recomputed.

    Attributes:
        qkv: queries, keys and values before the norms of heads, [T, (query + 2 key heads) × size].
        heads: rotated queries, keys, and values, [T, heads, size] each.
        attended: attention's output, [T, query heads × size].
        attention_out: its product, [T, h], which the norm behind attention reads.
        middle: the stream between attention and MLP, [T, h].
        routing: where the tokens go in an MLP of experts.
        gate_up: the MLP's gate and up, [T, 2f + spare]; of experts, of their sorted rows.
        mlp_out: the MLP's product, [T, h], which the norm behind the MLP reads.
        inner: A x of each group of linear layers, [T, r].
        inputs: the x themselves where they are kept, [T, k].
    """

    qkv: Any = None
    heads: tuple[Tensor, Tensor, Tensor] | None = None
    attended: Any = None
    attention_out: Any = None
    middle: Any = None
    routing: Any = None
    gate_up: Any = None
    mlp_out: Any = None
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
    out = _mlp_product(layer, kept, keep >= KEEP_PRODUCTS)
    if layer.mlp_after is not None:
        kept.mlp_out, out = out if keep >= KEEP_MLP else None, _added(layer, layer.mlp_after, out, kept.middle)
    else:
        out = _added(layer, None, out, kept.middle)
    if keep < KEEP_MLP:
        kept.gate_up = kept.routing = None
    return out, kept if keep >= KEEP_ATTENTION else Activations()


def _mlp_product(layer: DecoderLayer, kept: Activations, keep_input: bool) -> Tensor:
    """Return the MLP's last product, [T, h]."""
    if isinstance(layer.mlp, ExpertMLP):
        return layer.mlp.output(kept.gate_up, kept.routing, layer.activation)
    down = layer.mlp.down
    wide = _wide(kept.gate_up, down.num_in, down.spare)
    elementwise.gated(kept.gate_up, wide[:, : down.num_in], layer.activation)
    return kept.product("down", down, wide, keep_input)


def _added(layer: DecoderLayer, norm: Norm | None, out: Tensor, stream: Tensor) -> Tensor:
    """Return the stream plus a part's output, which passes its norm or is scaled first; without a norm in place."""
    if norm is None:
        return torch.add(stream, out, alpha=layer.residual, out=out)
    total = torch.empty_like(out)
    elementwise.add_rms_norm(out, norm.weight, norm.eps, stream, total)
    return total


def _wide(x: Tensor, columns: int, spare: int) -> Tensor:
    """Return an empty tensor [T, columns + spare] like ``x``."""
    return torch.empty(len(x), columns + spare, dtype=x.dtype, device=x.device)


def _attention(layer: DecoderLayer, x: Tensor, row: RowContext, kept: Activations, keep: int) -> None:
    """Compute ``kept.qkv`` (before norms of heads), ``heads`` and ``attended`` (with their graph) and ``middle``."""
    gradient = keep >= KEEP_ATTENTION
    normed = _wide(x, x.shape[1], layer.qkv.spare)
    _norm(layer.attention_norm, x, normed[:, : x.shape[1]])
    qkv = kept.product("qkv", layer.qkv, normed, keep >= KEEP_PRODUCTS)
    del normed
    query, key, size = layer.heads
    norms, angles = layer.head_norms, row.angles[layer.rotation]
    if norms is None and layer.wide_norms is None:
        rotated = qkv
        elementwise.rotate(qkv, angles, layer.heads, None, 0.0, qkv)
    else:
        kept.qkv = qkv
        rotated = _wide(x, (query + key) * size, 0)
        if norms is not None:
            elementwise.rotate(qkv, angles, layer.heads, norms.weight, norms.eps, rotated)
        for norm, columns in _wide_parts(layer):
            _norm(norm, qkv[:, columns], rotated[:, columns])
        if layer.wide_norms is not None:
            elementwise.rotate(rotated, angles, layer.heads, None, 0.0, rotated)
    ends = query * size, (query + key) * size
    parts = rotated[:, : ends[0]], rotated[:, ends[0] : ends[1]], qkv[:, ends[1] :]
    heads = [part.unflatten(1, (-1, size)).detach().requires_grad_(gradient) for part in parts]
    with torch.set_grad_enabled(gradient):
        kept.attended = attend(heads[0], heads[1], heads[2], row.segments, layer.scores).flatten(1)
    kept.heads = heads[0], heads[1], heads[2]
    wide = _wide(x, query * size, layer.out.spare)
    wide[:, : query * size] = kept.attended.detach()
    kept.middle = kept.product("out", layer.out, wide, keep_input=False)


def _wide_parts(layer: DecoderLayer) -> list[tuple[Norm, slice]]:
    """Return the norms over all query heads and over all key heads, each with its columns."""
    if layer.wide_norms is None:
        return []
    query, key, size = layer.heads
    columns = slice(0, query * size), slice(query * size, (query + key) * size)
    return list(zip(layer.wide_norms, columns, strict=True))


def _norm(norm: Norm | None, x: Tensor, out: Tensor) -> None:
    """Write ``x`` normed to ``out``; without a norm, as it is."""
    if norm is None:
        out.copy_(x)
    else:
        elementwise.rms_norm(x, norm.weight, norm.eps, out)


def _gate_up(layer: DecoderLayer, kept: Activations, keep: int, x: Tensor = None) -> None:
    """Compute ``kept.gate_up`` from ``kept.middle``, which with ``x`` is still attention's product alone."""
    norm, mlp, middle = layer.mlp_norm, layer.mlp, kept.middle
    hidden = middle.shape[1]
    normed = _wide(middle, hidden, mlp.gate_up.spare if isinstance(mlp, DenseMLP) else 0)
    if x is not None and norm is not None and layer.attention_after is None and layer.residual == 1:
        elementwise.rms_norm(middle, norm.weight, norm.eps, normed[:, :hidden], x, middle)
    else:
        if x is not None:
            kept.attention_out = middle if layer.attention_after is not None else None
            kept.middle = _added(layer, layer.attention_after, middle, x)
        _norm(norm, kept.middle, normed[:, :hidden])
    if isinstance(mlp, ExpertMLP):
        kept.routing = mlp.route(normed)
        kept.gate_up = mlp.hidden(normed, kept.routing)
    else:
        kept.gate_up = kept.product("gate_up", mlp.gate_up, normed, keep >= KEEP_PRODUCTS, mlp.gate_up.grad_spare)


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
    if layer.mlp_after is not None and kept.mlp_out is None:
        kept.mlp_out = _mlp_product(layer, kept, keep_input=True)
    wide = _before_added(layer, layer.mlp_after, kept.mlp_out, grad, layer.input_spare)
    kept.mlp_out = None
    if isinstance(layer.mlp, ExpertMLP):
        return _experts_backward(layer, layer.mlp, kept, grad, wide, factors)
    down, first = layer.mlp.down, layer.mlp.gate_up
    active, inner_grad = down.input_gradient(wide)
    gate_up, kept.gate_up = kept.gate_up, None
    product = kept.inputs.pop("down", None)
    again = product is None
    elementwise.gated_backward(active, gate_up, again, layer.activation)  # gate_up now holds the gradients
    if product is None:
        product = active
    if "down" not in kept.inner:  # recomputed up to here: the down product itself is not needed
        kept.inner["down"] = down.inner(product)
    factors["down"] = down.factor_gradients(wide, product, kept.inner.pop("down"), inner_grad)
    del active, product, wide
    lower, inner_grad = first.input_gradient(gate_up)
    hidden = grad.shape[1]
    out = _wide(grad, hidden, layer.out.grad_spare)
    normed = _norm_backward(layer.mlp_norm, lower, kept.middle, kept.inputs.pop("gate_up", None), grad, out[:, :hidden])
    factors["gate_up"] = first.factor_gradients(gate_up, normed, kept.inner.pop("gate_up"), inner_grad)
    kept.middle = None
    return out


def _experts_backward(
    layer: DecoderLayer,
    mlp: ExpertMLP,
    kept: Activations,
    grad: Tensor,
    upper: Tensor,
    factors: dict[str, list[Tensor]],
) -> Tensor:
    """Return what ``_mlp_backward`` returns, for experts and the gradient ``upper`` [T, h] of their output."""
    hidden = grad.shape[1]
    normed, out = _wide(grad, hidden, 0), _wide(grad, hidden, layer.out.grad_spare)
    _norm(layer.mlp_norm, kept.middle, normed)
    lower, *gradients = mlp.backward(normed, kept.routing, kept.gate_up, upper, layer.activation)
    factors["gate_up"], factors["down"] = gradients
    _norm_backward(layer.mlp_norm, lower, kept.middle, normed, grad, out[:, :hidden])
    kept.middle = kept.gate_up = kept.routing = None
    return out


def _before_added(layer: DecoderLayer, norm: Norm | None, out: Tensor, grad: Tensor, spare: int) -> Tensor:
    """Return the gradient of ``_added``'s ``out`` from ``grad`` [T, h] of its result: [T, h + spare]."""
    if norm is None and layer.residual == 1:
        return _widened(grad, spare)
    hidden = grad.shape[1]
    wide = _wide(grad, hidden, spare)
    if norm is None:
        torch.mul(grad, layer.residual, out=wide[:, :hidden])
    else:
        elementwise.rms_norm_backward(grad, out, norm.weight, norm.eps, None, wide[:, :hidden], again=False)
    return wide


def _norm_backward(
    norm: Norm | None, lower: Tensor, x: Tensor, normed: Tensor | None, residual: Tensor, out: Tensor
) -> Tensor:
    """Write the gradient of ``x``, from ``lower`` of its norm and ``residual``, to ``out``; return ``x`` normed.

    Without ``normed``, ``x`` normed takes the memory of ``lower``.
    """
    if norm is None:
        torch.add(lower, residual, out=out)
        return x
    elementwise.rms_norm_backward(lower, x, norm.weight, norm.eps, residual, out, normed is None)
    return lower if normed is None else normed


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
    stream = grad[:, :hidden]
    plain = layer.attention_after is None and layer.residual == 1
    own = grad if plain else _before_added(
        layer, layer.attention_after, kept.attention_out, stream, layer.out.grad_spare
    )  # fmt: skip
    upper, inner_grad = layer.out.input_gradient(own)
    factors["out"] = layer.out.factor_gradients(own, attended.detach(), kept.inner.pop("out"), inner_grad)
    grads = torch.autograd.grad(attended, heads, upper)
    kept.attended = kept.heads = kept.attention_out = attended = heads = upper = own = None
    wide = _heads_backward(layer, row, kept, grads)
    del grads
    lower, inner_grad = group.input_gradient(wide, with_input)
    normed = kept.inputs.pop("qkv", None)
    out = None
    if with_input:
        # As wide as the layer before needs it, which saves that layer a copy.
        out = _wide(x, hidden, layer.input_spare)[:, :hidden]
        normed = _norm_backward(layer.attention_norm, lower, x, normed, stream, out)
    elif normed is None:
        normed = torch.empty_like(x)
        _norm(layer.attention_norm, x, normed)
    factors["qkv"] = group.factor_gradients(wide, normed, kept.inner.pop("qkv"), inner_grad)
    return out


def _heads_backward(
    layer: DecoderLayer, row: RowContext, kept: Activations, grads: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Return the gradient of queries, keys and values before norms and rotation, [T, n + spare]."""
    wide = _wide(grads[0], layer.qkv.num_out, layer.qkv.grad_spare)
    norms, angles = layer.head_norms, row.angles[layer.rotation]
    weight, eps = (None, 0.0) if norms is None else (norms.weight, norms.eps)
    raw = wide if norms is None else kept.qkv
    elementwise.rotate_backward(grads, raw, angles, layer.heads, weight, eps, wide)
    for norm, columns in _wide_parts(layer):
        part = wide[:, columns]
        elementwise.rms_norm_backward(part, kept.qkv[:, columns], norm.weight, norm.eps, None, part, again=False)
    return wide


def _widened(grad: Tensor, spare: int) -> Tensor:
    """Return ``grad`` [T, n] as the first columns of [T, n + spare]; no copy if it already lies in such a tensor."""
    tokens, size = grad.shape
    end = (grad.storage_offset() + tokens * (size + spare)) * grad.element_size()
    if grad.stride() == (size + spare, 1) and end <= grad.untyped_storage().nbytes():
        return grad.as_strided((tokens, size + spare), (size + spare, 1))
    wide = _wide(grad, size, spare)
    wide[:, :size] = grad
    return wide
