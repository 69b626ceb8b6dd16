"""The element-wise parts of a decoder layer as Triton kernels; each has its plain counterpart in elementwise.py.

Each kernel reads its inputs once, computes in 32 bit, and rounds once. In memory, rows may be wider than they are
long; strides give the width.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rms_norm(
    x, added, weight, total, out, s_x, s_added, s_total, s_out, eps, n, ADD: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < n
    values = tl.load(x + row * s_x + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        values += tl.load(added + row * s_added + at, mask=inside, other=0.0).to(tl.float32)
        values = values.to(total.dtype.element_ty)
        tl.store(total + row * s_total + at, values, mask=inside)
        values = values.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(values * values, 0) / n + eps)
    normed = values * scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * s_out + at, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _add_rms_norm(x, weight, added, out, s_x, s_added, s_out, eps, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < n
    values = tl.load(x + row * s_x + at, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(values * values, 0) / n + eps)
    normed = values * scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    normed += tl.load(added + row * s_added + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * s_out + at, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm_backward(
    grad, x, weight, residual, out, s_grad, s_x, s_residual, s_out, eps, n,
    AGAIN: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < n
    values = tl.load(x + row * s_x + at, mask=inside, other=0.0).to(tl.float32)
    upper = tl.load(grad + row * s_grad + at, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(values * values, 0) / n + eps)
    values *= scale
    if AGAIN:
        tl.store(grad + row * s_grad + at, (values * factor).to(grad.dtype.element_ty), mask=inside)
    upper *= factor
    lower = scale * (upper - values * (tl.sum(values * upper, 0) / n))
    if ADD:
        lower += tl.load(residual + row * s_residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * s_out + at, lower.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rotate(
    x, cos, sin, weights, out, s_x, s_angle, s_out, eps, heads, query_heads,
    NORM: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr, REST: tl.constexpr,
    HEADS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    at = tl.arange(0, BLOCK)[None, :]
    turned = at < HALF
    inside = (head < heads) & turned
    column = head * SIZE + at
    first = tl.load(x + row * s_x + column, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + row * s_x + column + HALF, mask=inside, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    if NORM:
        squares = tl.sum(first * first, 1) + tl.sum(second * second, 1)
        own = weights + tl.where(head < query_heads, 0, SIZE)
    if REST > 0:
        behind = 2 * HALF + tl.arange(0, REST)[None, :]
        inside_rest = (head < heads) & (behind < SIZE)
        rest = tl.load(x + row * s_x + head * SIZE + behind, mask=inside_rest, other=0.0).to(tl.float32)
        if NORM:
            squares += tl.sum(rest * rest, 1)
    if NORM:
        scale = 1.0 / tl.sqrt(squares / SIZE + eps)[:, None]
        first *= scale * tl.load(own + at, mask=turned, other=0.0).to(tl.float32)
        second *= scale * tl.load(own + at + HALF, mask=turned, other=0.0).to(tl.float32)
        if REST > 0:
            rest *= scale * tl.load(own + behind, mask=behind < SIZE, other=0.0).to(tl.float32)
    c = tl.load(cos + row * s_angle + at, mask=turned, other=0.0).to(tl.float32)
    s = tl.load(sin + row * s_angle + at, mask=turned, other=0.0).to(tl.float32)
    tl.store(out + row * s_out + column, (first * c - second * s).to(kind), mask=inside)
    tl.store(out + row * s_out + column + HALF, (second * c + first * s).to(kind), mask=inside)
    if REST > 0:
        tl.store(out + row * s_out + head * SIZE + behind, rest.to(kind), mask=inside_rest)


@triton.jit
def _rotate_backward(
    grad, x, cos, sin, weight, out, s_grad, s_head, s_x, s_angle, s_out, eps, heads,
    NORM: tl.constexpr, ROTATED: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
    REST: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    at = tl.arange(0, BLOCK)[None, :]
    turned = at < HALF
    inside = (head < heads) & turned
    upper = grad + row * s_grad + head * s_head
    first_grad = tl.load(upper + at, mask=inside, other=0.0).to(tl.float32)
    second_grad = tl.load(upper + at + HALF, mask=inside, other=0.0).to(tl.float32)
    if ROTATED:
        c = tl.load(cos + row * s_angle + at, mask=turned, other=0.0).to(tl.float32)
        s = tl.load(sin + row * s_angle + at, mask=turned, other=0.0).to(tl.float32)
        first = first_grad * c + second_grad * s
        second = second_grad * c - first_grad * s
    else:
        first = first_grad
        second = second_grad
    column = head * SIZE + at
    kind = out.dtype.element_ty
    if NORM:
        low = tl.load(x + row * s_x + column, mask=inside, other=0.0).to(tl.float32)
        high = tl.load(x + row * s_x + column + HALF, mask=inside, other=0.0).to(tl.float32)
        squares = tl.sum(low * low, 1) + tl.sum(high * high, 1)
        first *= tl.load(weight + at, mask=turned, other=0.0).to(tl.float32)
        second *= tl.load(weight + HALF + at, mask=turned, other=0.0).to(tl.float32)
        shared = tl.sum(low * first, 1) + tl.sum(high * second, 1)
    if REST > 0:
        behind = 2 * HALF + tl.arange(0, REST)[None, :]
        inside_rest = (head < heads) & (behind < SIZE)
        rest = tl.load(upper + behind, mask=inside_rest, other=0.0).to(tl.float32)
        if NORM:
            last = tl.load(x + row * s_x + head * SIZE + behind, mask=inside_rest, other=0.0).to(tl.float32)
            squares += tl.sum(last * last, 1)
            rest *= tl.load(weight + behind, mask=behind < SIZE, other=0.0).to(tl.float32)
            shared += tl.sum(last * rest, 1)
    if NORM:
        scale = 1.0 / tl.sqrt(squares / SIZE + eps)[:, None]
        shared = shared[:, None] * scale / SIZE
        first = scale * (first - low * scale * shared)
        second = scale * (second - high * scale * shared)
        if REST > 0:
            rest = scale * (rest - last * scale * shared)
    tl.store(out + row * s_out + column, first.to(kind), mask=inside)
    tl.store(out + row * s_out + column + HALF, second.to(kind), mask=inside)
    if REST > 0:
        tl.store(out + row * s_out + head * SIZE + behind, rest.to(kind), mask=inside_rest)


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _activated(gate, GELU: tl.constexpr):
    if GELU:
        tanh = _tanh(0.7978845608028654 * (gate + 0.044715 * gate * gate * gate))
        value = 0.5 * gate * (1.0 + tanh)
        bend = 0.7978845608028654 * (1.0 + 0.134145 * gate * gate)
        slope = 0.5 * (1.0 + tanh) + 0.5 * gate * (1.0 - tanh * tanh) * bend
    else:
        sigmoid = tl.sigmoid(gate)
        value = gate * sigmoid
        slope = sigmoid * (1.0 + gate * (1.0 - sigmoid))
    return value, slope


@triton.jit
def _gated(gate_up, out, s_in, s_out, n, GELU: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    gate = tl.load(gate_up + row * s_in + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * s_in + n + at, mask=inside, other=0.0).to(tl.float32)
    value, _ = _activated(gate, GELU)
    tl.store(out + row * s_out + at, (value * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gated_backward(grad, gate_up, s_grad, s_in, n, AGAIN: tl.constexpr, GELU: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    here = gate_up + row * s_in + at
    gate = tl.load(here, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(here + n, mask=inside, other=0.0).to(tl.float32)
    upper = tl.load(grad + row * s_grad + at, mask=inside, other=0.0).to(tl.float32)
    value, slope = _activated(gate, GELU)
    kind = gate_up.dtype.element_ty
    tl.store(here, (upper * up * slope).to(kind), mask=inside)
    tl.store(here + n, (upper * value).to(kind), mask=inside)
    if AGAIN:
        tl.store(grad + row * s_grad + at, (value * up).to(grad.dtype.element_ty), mask=inside)


@triton.jit
def _token_logps(
    logits, targets, logps, s_logits, n, factor, scale, cap,
    GRADIENT: tl.constexpr, CAP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    here = logits + row * s_logits
    target = tl.load(targets + row)
    chosen = tl.load(here + target).to(tl.float32) * scale
    if CAP:
        chosen = cap * _tanh(chosen / cap)
    most = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        values = tl.load(here + at, mask=at < n, other=0.0).to(tl.float32) * scale
        if CAP:
            values = cap * _tanh(values / cap)
        values = tl.where(at < n, values, float("-inf"))
        higher = tl.maximum(most, tl.max(values, 0))
        total = total * tl.exp(most - higher) + tl.sum(tl.exp(values - higher), 0)
        most = higher
    normalizer = most + tl.log(total)
    tl.store(logps + row, chosen - normalizer)
    if GRADIENT:
        for start in range(0, n, BLOCK):
            at = start + tl.arange(0, BLOCK)
            values = tl.load(here + at, mask=at < n, other=0.0).to(tl.float32) * scale
            bend = factor * scale
            if CAP:
                tanh = _tanh(values / cap)
                values = cap * tanh
                slope = (1.0 - tanh * tanh) * (tl.where(at == target, 1.0, 0.0) - tl.exp(values - normalizer))
            else:
                slope = tl.where(at == target, 1.0, 0.0) - tl.exp(values - normalizer)
            tl.store(here + at, (slope * bend).to(logits.dtype.element_ty), mask=at < n)


@triton.jit
def _unpack_nf4(
    packed, scales, scale_table, outer_scales, offset, table, out, s_out, columns, num_bytes, rows, skipped,
    NESTED: tl.constexpr, SCALED: tl.constexpr, OUTER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < num_bytes
    codes = tl.load(packed + at, mask=inside, other=0).to(tl.int32)
    element = at * 2
    block = element // SCALED
    scale = tl.load(scales + block, mask=inside, other=0)
    if NESTED:
        inner = tl.load(scale_table + scale.to(tl.int32), mask=inside, other=0.0)
        scale = inner * tl.load(outer_scales + block // OUTER, mask=inside, other=0.0) + tl.load(offset)
    first = tl.load(table + (codes >> 4), mask=inside, other=0.0) * scale
    second = tl.load(table + (codes & 15), mask=inside, other=0.0) * scale
    row = element // columns
    cell = out + (row + row // rows * skipped) * s_out + element % columns
    tl.store(cell, first.to(out.dtype.element_ty), mask=inside)
    tl.store(cell + 1, second.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gather_rows(x, index, out, s_x, s_out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(index + row)
    tl.store(out + row * s_out + at, tl.load(x + source * s_x + at, mask=at < n), mask=at < n)


@triton.jit
def _combine_rows(
    x, positions, weights, out, s_x, s_out, n, CHOICES: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for choice in range(CHOICES):
        source = tl.load(positions + row * CHOICES + choice)
        values = tl.load(x + source * s_x + at, mask=at < n, other=0.0).to(tl.float32)
        if WEIGHTED:
            values *= tl.load(weights + row * CHOICES + choice).to(tl.float32)
        total += values
    tl.store(out + row * s_out + at, total.to(out.dtype.element_ty), mask=at < n)


@triton.jit
def _quantize_rows(x, out, scales, s_x, s_out, n, TOP: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    most = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        most = tl.maximum(most, tl.abs(tl.load(x + row * s_x + at, mask=at < n, other=0.0).to(tl.float32)))
    scale = tl.maximum(tl.max(most, 0), 1e-12) / TOP
    tl.store(scales + row, scale)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        values = tl.load(x + row * s_x + at, mask=at < n, other=0.0).to(tl.float32) / scale
        tl.store(out + row * s_out + at, values.to(out.dtype.element_ty), mask=at < n)


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, out: Tensor, added: Tensor | None = None, total: Tensor | None = None
) -> None:
    rows, n = x.shape
    add = added is not None
    if added is None or total is None:
        added = total = x
    block = triton.next_power_of_2(n)
    _rms_norm[(rows,)](
        x, added, weight, total, out, x.stride(0), added.stride(0), total.stride(0), out.stride(0), eps, n,
        ADD=add, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip


def add_rms_norm(x: Tensor, weight: Tensor, eps: float, added: Tensor, out: Tensor) -> None:
    rows, n = x.shape
    block = triton.next_power_of_2(n)
    _add_rms_norm[(rows,)](
        x, weight, added, out, x.stride(0), added.stride(0), out.stride(0), eps, n, BLOCK=block, num_warps=_warps(block)
    )


def rms_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None, out: Tensor, again: bool
) -> None:
    rows, n = x.shape
    block = triton.next_power_of_2(n)
    add = residual is not None
    residual = x if residual is None else residual
    _rms_norm_backward[(rows,)](
        grad, x, weight, residual, out, grad.stride(0), x.stride(0), residual.stride(0), out.stride(0), eps, n,
        AGAIN=again, ADD=add, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip


def rotate(
    x: Tensor, angles: tuple[Tensor, Tensor], heads: tuple[int, int, int], norms: Tensor | None, eps: float, out: Tensor
) -> None:
    query, key, size = heads
    cos, sin = angles
    per_program = min(16, triton.next_power_of_2(query + key))
    _rotate[(x.shape[0], triton.cdiv(query + key, per_program))](
        x, cos, sin, cos if norms is None else norms, out, x.stride(0), cos.stride(0), out.stride(0), eps,
        query + key, query, NORM=norms is not None, HEADS=per_program, **_widths(size, cos.shape[1]),
    )  # fmt: skip


def _widths(size: int, half: int) -> dict[str, int]:
    """Return the constants of a head: its size, half of its rotated part, and blocks for that half and the rest."""
    rest = size - 2 * half
    return {
        "SIZE": size,
        "HALF": half,
        "BLOCK": triton.next_power_of_2(half),
        "REST": triton.next_power_of_2(rest) if rest else 0,
    }


def rotate_backward(
    grads: tuple[Tensor, Tensor, Tensor],
    x: Tensor,
    angles: tuple[Tensor, Tensor],
    heads: tuple[int, int, int],
    norms: Tensor | None,
    eps: float,
    out: Tensor,
) -> None:
    query, key, size = heads
    cos, sin = angles
    for part, (grad, count, begin) in enumerate(zip(grads, (query, key, key), (0, query, query + key), strict=True)):
        per_program = min(16, triton.next_power_of_2(count))
        columns = slice(begin * size, (begin + count) * size)
        rotated = part < 2
        normed = rotated and norms is not None
        _rotate_backward[(x.shape[0], triton.cdiv(count, per_program))](
            grad, x[:, columns], cos, sin, norms[part] if norms is not None and rotated else cos, out[:, columns],
            grad.stride(0), grad.stride(1), x.stride(0), cos.stride(0), out.stride(0), eps, count,
            NORM=normed, ROTATED=rotated, HEADS=per_program, **_widths(size, cos.shape[1]),
        )  # fmt: skip


def gated(gate_up: Tensor, out: Tensor, activation: str) -> None:
    rows, n = out.shape
    _gated[(rows, triton.cdiv(n, 2048))](
        gate_up, out, gate_up.stride(0), out.stride(0), n, GELU=activation != "silu", BLOCK=2048, num_warps=8
    )


def gated_backward(grad: Tensor, gate_up: Tensor, again: bool, activation: str) -> None:
    rows, n = grad.shape
    _gated_backward[(rows, triton.cdiv(n, 2048))](
        grad, gate_up, grad.stride(0), gate_up.stride(0), n,
        AGAIN=again, GELU=activation != "silu", BLOCK=2048, num_warps=8,
    )  # fmt: skip


def token_logps(logits: Tensor, targets: Tensor, logps: Tensor, gradient: float, scale: float, softcap: float) -> None:
    rows, n = logits.shape
    _token_logps[(rows,)](
        logits, targets, logps, logits.stride(0), n, float(gradient), float(scale), float(softcap),
        GRADIENT=bool(gradient), CAP=bool(softcap), BLOCK=8192, num_warps=16,
    )  # fmt: skip


def unpack_nf4(weight: Tensor, state: Any, out: Tensor) -> None:
    """Unpack to one matrix [n, k], or to matrices [E, n, k] that lie evenly apart."""
    rows, skipped = out.shape[-2], out.stride(0) // out.stride(1) - out.shape[1] if out.dim() == 3 else 0
    nested = state.nested
    outer: Any = state.state2 if nested else None
    num_bytes = weight.numel()
    _unpack_nf4[(triton.cdiv(num_bytes, 2048),)](
        weight, state.absmax, outer.code if nested else state.absmax, outer.absmax if nested else state.absmax,
        state.offset if nested else state.absmax, state.code, out, out.stride(-2), out.shape[-1], num_bytes,
        rows, skipped,
        NESTED=nested, SCALED=state.blocksize, OUTER=outer.blocksize if nested else 1, BLOCK=2048, num_warps=8,
        enable_fp_fusion=False,  # the scales are rounded as in bitsandbytes: to the same bits
    )  # fmt: skip


def gather_rows(x: Tensor, index: Tensor, out: Tensor) -> None:
    n = x.shape[1]
    _gather_rows[(len(index), triton.cdiv(n, 2048))](x, index, out, x.stride(0), out.stride(0), n, BLOCK=2048)


def combine_rows(x: Tensor, positions: Tensor, weights: Tensor | None, out: Tensor) -> None:
    tokens, choices = positions.shape
    n = x.shape[1]
    _combine_rows[(tokens, triton.cdiv(n, 2048))](
        x, positions, positions if weights is None else weights.contiguous(), out, x.stride(0), out.stride(0), n,
        CHOICES=choices, WEIGHTED=weights is not None, BLOCK=2048,
    )  # fmt: skip


def quantize_rows(x: Tensor, out: Tensor, scales: Tensor, top: float) -> None:
    rows, n = x.shape
    block = min(8192, triton.next_power_of_2(n))
    _quantize_rows[(rows,)](x, out, scales, x.stride(0), out.stride(0), n, TOP=top, BLOCK=block, num_warps=8)


def _warps(block: int) -> int:
    return max(1, min(16, block // 512))
