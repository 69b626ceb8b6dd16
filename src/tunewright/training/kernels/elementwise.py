"""The element-wise parts of a decoder layer, forward and backward: in Triton on a GPU, in plain torch elsewhere.

Shapes: T tokens of a packed row, h hidden values, f values inside the MLP. All tensors are two-dimensional with
contiguous columns; in memory, a row may be wider than it is long. Outputs go to tensors of the caller.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tunewright import console
from tunewright.errors import is_lack_of_memory

Heads = tuple[int, int, int]  # query heads, key heads, values per head


@functools.cache
def compiled(device: str) -> Any:
    """Return the module of the Triton kernels if they compile and run on the device, else None.

    They need Triton, a C compiler, and a GPU that Triton supports.
    """
    if not device.startswith("cuda") or importlib.util.find_spec("triton") is None:
        return None
    from tunewright.training.kernels import triton_kernels

    try:
        probe = torch.ones(1, 16, device=device)
        triton_kernels.rms_norm(probe, probe[0], 0.0, torch.empty_like(probe))
    except Exception as error:  # whatever a compiler may raise: only speed is lost
        if is_lack_of_memory(error):
            raise
        console.warning(f"Triton's kernels do not run here; plain kernels replace them: {str(error)[:200]}")
        return None
    return triton_kernels


def _triton(tensor: Tensor) -> Any:
    """Return the module of the Triton kernels if they run on this tensor's device, else None."""
    return compiled(str(tensor.device)) if tensor.is_cuda else None


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, out: Tensor, added: Tensor | None = None, total: Tensor | None = None
) -> None:
    """Write the root-mean-square norm (Zhang & Sennrich 2019, eq. 4) of ``x`` [T, h] times ``weight`` [h] to ``out``.

    With ``added`` [T, h], the norm is that of x + added, which is also written to ``total``.
    """
    if kernels := _triton(x):
        kernels.rms_norm(x, weight, eps, out, added, total)
        return
    for piece in _pieces(x):
        part = x[piece]
        if added is not None and total is not None:
            part = total[piece].copy_(part + added[piece])
        values = part.float()
        out[piece] = (values * (values.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.float()).to(out.dtype)


def add_rms_norm(x: Tensor, weight: Tensor, eps: float, added: Tensor, out: Tensor) -> None:
    """Write ``added`` [T, h] plus the norm of ``x`` [T, h] to ``out``: a norm behind attention or MLP."""
    if kernels := _triton(x):
        kernels.add_rms_norm(x, weight, eps, added, out)
        return
    for piece in _pieces(x):
        values = x[piece].float()
        normed = values * (values.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.float()
        out[piece] = (added[piece].float() + normed).to(out.dtype)


def rms_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None, out: Tensor, again: bool = True
) -> None:
    """Write the gradient of the norm's input plus ``residual``, if any, to ``out``; it may be ``grad`` itself.

    Args:
        grad: of the norm's output, [T, h].
        x: the norm's input, [T, h].
        weight: [h].
        eps: as in ``rms_norm``.
        residual: [T, h], or None.
        out: [T, h].
        again: write the norm's output over ``grad``: the gradients of LoRA factors need it, and x is read anyway.
    """
    if kernels := _triton(x):
        kernels.rms_norm_backward(grad, x, weight, eps, residual, out, again)
        return
    for piece in _pieces(x):
        values = x[piece].float()
        scale = (values.square().mean(-1, keepdim=True) + eps).rsqrt()
        values, upper = values * scale, grad[piece].float() * weight.float()
        lower = scale * (upper - values * (values * upper).mean(-1, keepdim=True))
        out[piece] = (lower if residual is None else lower + residual[piece].float()).to(out.dtype)
        if again:
            grad[piece] = (values * weight.float()).to(grad.dtype)


def rotate(
    x: Tensor, angles: tuple[Tensor, Tensor], heads: Heads, norms: Tensor | None, eps: float, out: Tensor
) -> None:
    """Rotate the query and key heads of ``x`` by their positions (Su et al. 2021, eq. 34), after their norms if any.

    Args:
        x: [T, (query + 2 key heads) × size]; its value heads are not rotated.
        angles: cosines and sines, [T, r / 2] each; the first r ≤ size values of a head are rotated.
        heads: numbers of heads and their size.
        norms: weights of the query's and the key's norm, [2, size]; None without norms.
        eps: of those norms.
        out: [T, at least (query + key heads) × size]; without norms, it may be x itself.
    """
    if kernels := _triton(x):
        kernels.rotate(x, angles, heads, norms, eps, out)
        return
    query, key, size = heads
    parts = x[:, : (query + key) * size].reshape(len(x), query + key, size).float()
    if norms is not None:
        parts = parts * (parts.square().mean(-1, keepdim=True) + eps).rsqrt() * _per_head(norms, heads)
    cos, sin = (angle.float()[:, None] for angle in angles)
    first, second, rest = _rotated_parts(parts, cos)
    rotated = [first * cos - second * sin, second * cos + first * sin, rest]
    out[:, : (query + key) * size] = torch.cat(rotated, -1).reshape(len(x), -1).to(out.dtype)


def rotate_backward(
    grads: tuple[Tensor, Tensor, Tensor],
    x: Tensor,
    angles: tuple[Tensor, Tensor],
    heads: Heads,
    norms: Tensor | None,
    eps: float,
    out: Tensor,
) -> None:
    """Write the gradient of ``rotate``'s input to ``out`` [T, (query + 2 key heads) × size].

    Args:
        grads: gradients of queries, keys and values, [T, heads, size] each.
        x: the input of ``rotate``; read only with norms.
        angles: as in ``rotate``.
        heads: as in ``rotate``.
        norms: as in ``rotate``.
        eps: as in ``rotate``.
        out: must not overlap the gradients.
    """
    if kernels := _triton(x):
        kernels.rotate_backward(grads, x, angles, heads, norms, eps, out)
        return
    query, key, size = heads
    cos, sin = (angle.float()[:, None] for angle in angles)
    first, second, rest = _rotated_parts(torch.cat(grads[:2], 1).float(), cos)
    lower = torch.cat([first * cos + second * sin, second * cos - first * sin, rest], -1)
    if norms is not None:
        parts = x[:, : (query + key) * size].reshape(len(x), query + key, size).float()
        scale = (parts.square().mean(-1, keepdim=True) + eps).rsqrt()
        parts, lower = parts * scale, lower * _per_head(norms, heads)
        lower = scale * (lower - parts * (parts * lower).mean(-1, keepdim=True))
    out[:, : (query + key) * size] = lower.reshape(len(x), -1).to(out.dtype)
    out[:, (query + key) * size : (query + 2 * key) * size] = grads[2].reshape(len(x), -1)


def gated(gate_up: Tensor, out: Tensor, activation: str = "silu") -> None:
    """Write activation(gate) · up (Shazeer 2020, eq. 6) to ``out`` [T, f]; ``gate_up`` holds both, [T, at least 2f]."""
    if kernels := _triton(out):
        kernels.gated(gate_up, out, activation)
        return
    for piece in _pieces(out):
        gate, up = _halves(gate_up[piece], out.shape[1])
        out[piece] = (ACTIVATIONS[activation](gate)[0] * up).to(out.dtype)


def gated_backward(grad: Tensor, gate_up: Tensor, again: bool = True, activation: str = "silu") -> None:
    """Write the gradients of gate and up over ``gate_up``, and with ``again`` the output over ``grad`` [T, f]."""
    if kernels := _triton(grad):
        kernels.gated_backward(grad, gate_up, again, activation)
        return
    size = grad.shape[1]
    for piece in _pieces(grad):
        gate, up = _halves(gate_up[piece], size)
        (value, slope), upper = ACTIVATIONS[activation](gate), grad[piece].float()
        slopes = upper * up * slope, upper * value
        if again:
            grad[piece] = (value * up).to(grad.dtype)
        gate_up[piece, :size], gate_up[piece, size : 2 * size] = slopes


def _silu(x: Tensor) -> tuple[Tensor, Tensor]:
    sigmoid = x.sigmoid()
    return x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))


def _gelu_tanh(x: Tensor) -> tuple[Tensor, Tensor]:
    tanh = (_GELU * (x + _GELU_CUBE * x**3)).tanh()
    slope = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh.square()) * _GELU * (1 + 3 * _GELU_CUBE * x.square())
    return 0.5 * x * (1 + tanh), slope


def token_logps(
    logits: Tensor, targets: Tensor, logps: Tensor, gradient: float, scale: float = 1.0, softcap: float = 0.0
) -> None:
    """Write each target's log-probability in nats to ``logps``, and its slope times ``gradient`` over ``logits``.

    Args:
        logits: [n, vocabulary].
        targets: [n], token ids.
        logps: [n], float32.
        gradient: factor of d logps / d logits, which is written over the logits; 0 leaves them.
        scale: factor of the logits.
        softcap: c of c · tanh(scaled logit / c), after the scale; 0 without.
    """
    if kernels := _triton(logits):
        kernels.token_logps(logits, targets, logps, gradient, scale, softcap)
        return
    values = logits.float() * scale
    bend = (values / softcap).tanh() if softcap else None
    all_logps = torch.log_softmax(values if bend is None else softcap * bend, -1)
    logps.copy_(all_logps.gather(1, targets[:, None])[:, 0])
    if gradient:
        slopes = all_logps.exp_().neg_()
        slopes[torch.arange(len(targets), device=logits.device), targets] += 1
        logits.copy_((slopes if bend is None else slopes * (1 - bend.square())).mul_(gradient * scale))


def unpack_nf4(weight: Tensor, state: Any, out: Tensor) -> None:
    """Write a 4-bit weight of bitsandbytes (packed bytes and quantization state) in full to ``out`` [n, k]."""
    if state.quant_type == "nf4" and (kernels := _triton(out)):
        kernels.unpack_nf4(weight, state, out)
        return
    from bitsandbytes.functional import dequantize_4bit

    out.copy_(dequantize_4bit(weight, state))


def unpack_experts(weight: Tensor, state: Any, out: Tensor) -> None:
    """Write the 4-bit weights of all experts in full to ``out`` [E, n, k], whose matrices lie evenly apart."""
    if state.quant_type == "nf4" and (kernels := _triton(out)):
        kernels.unpack_nf4(weight, state, out)
        return
    from bitsandbytes.functional import dequantize_4bit

    out.copy_(dequantize_4bit(weight, state).view(out.shape))


def gather_rows(x: Tensor, index: Tensor, out: Tensor) -> None:
    """Write the rows ``index`` [S] of ``x`` [T, h] to ``out`` [S, h]."""
    if kernels := _triton(x):
        kernels.gather_rows(x, index, out)
        return
    out.copy_(x[index])


def combine_rows(x: Tensor, positions: Tensor, weights: Tensor | None, out: Tensor) -> None:
    """Write to ``out`` [T, h] the sums of rows ``positions`` [T, c] of ``x``, times ``weights`` [T, c] if given."""
    if kernels := _triton(x):
        kernels.combine_rows(x, positions, weights, out)
        return
    rows = x[positions].float()
    out.copy_((rows if weights is None else rows * weights.float()[..., None]).sum(1).to(out.dtype))


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``x`` [n, k] in 8-bit floating point (e4m3), each row's largest value as 448, and the rows' scales.

    Returns:
        The values [n, k], float8_e4m3fn, and the scales [n, 1], float32.
    """
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(len(x), 1, dtype=torch.float32, device=x.device)
    if kernels := _triton(x):
        kernels.quantize_rows(x, out, scales, E4M3_MAX)
        return out, scales
    scales.copy_(x.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / E4M3_MAX)
    return out.copy_(x.float() / scales), scales


def _pieces(x: Tensor) -> list[slice]:
    """Return the rows of ``x`` in pieces, which keeps the 32-bit copies of plain torch small."""
    size = max(1, _PLAIN_VALUES // x.shape[1])
    return [slice(start, start + size) for start in range(0, len(x), size)]


def _halves(gate_up: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return gate_up[:, :size].float(), gate_up[:, size : 2 * size].float()


def _rotated_parts(heads: Tensor, cos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two halves of the rotated part of each head, and the rest."""
    half = cos.shape[-1]
    return heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]


def _per_head(norms: Tensor, heads: Heads) -> Tensor:
    """Return each head's norm weight, [query + key heads, size]."""
    query, key, _ = heads
    return torch.cat([norms[:1].expand(query, -1), norms[1:].expand(key, -1)]).float()


E4M3_MAX = 448.0
_GELU, _GELU_CUBE = (2 / math.pi) ** 0.5, 0.044715  # Hendrycks & Gimpel 2016, sec. 2
_PLAIN_VALUES = 2**20  # of one operand at once

# By transformers' names; each returns the activation of x and its slope.
ACTIVATIONS: Mapping[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "silu": _silu,
    "gelu_pytorch_tanh": _gelu_tanh,
}
