"""Frozen products in 8-bit floating point (e4m3), the adapter's in 16 bit. For Hopper and later GPUs.

Each row of each operand has a scale of its own (Micikevicius et al. 2022 for the format): the weights once for either
direction, the activations and gradients at each use. It computes something slightly different from NF4, by choice.
"""

from __future__ import annotations

from typing import Any

import torch

from tunewright.training.kernels.elementwise import quantize_rows


class EightBits:
    """The products of a linear.Group in 8 bit; tensors have no spare columns."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._size = group.num_out, group.num_in
        matrix = group.block_matrix()[: group.num_out, : group.num_in]
        self._weight, scales = quantize_rows(matrix.contiguous())
        self._weight_scales = scales.t()
        self._turned, scales = quantize_rows(matrix.t().contiguous())
        self._turned_scales = scales.t()
        self._bias = _biases(group) if group.biased else None
        self._down = self._up = None
        self._seen: list[int] = []

    def _factors(self) -> tuple[Any, Any]:
        """Return A [r, k], and sB [n, r] with the factors of each layer in columns of their own, in 16 bit."""
        group = self._group
        versions = [factor._version for factor in group.parameters]
        if self._up is None or versions != self._seen:
            kind = group.dtype
            parts = [part for part in group.parts if part.rank]
            self._down = torch.cat([part.down.detach() for part in parts]).to(kind)
            self._up = torch.zeros(group.num_out, group.rank, dtype=kind, device=self._down.device)
            row = column = 0
            for part in group.parts:
                if part.rank:
                    self._up[row : row + part.num_out, column : column + part.rank] = part.up.detach() * part.scale
                row, column = row + part.num_out, column + part.rank
            self._seen = versions
        return self._down, self._up

    def product(self, x: Any, out: Any, enabled: bool) -> Any:
        """As linear.Group.product, for ``x`` [T, k]."""
        small, scales = quantize_rows(x)
        torch._scaled_mm(
            small, self._weight.t(), scales, self._weight_scales, self._bias, None, out.dtype, True, out=out
        )
        if not (self._group.rank and enabled):
            return x[:, :0].new_zeros(len(x), self._group.rank)
        down, up = self._factors()
        inner = x @ down.t()
        out.addmm_(inner, up.t())
        return inner

    def input_gradient(self, grad: Any, wanted: bool) -> tuple[Any, Any]:
        """As linear.Group.input_gradient, for ``grad`` [T, n]."""
        rank = self._group.rank
        down, up = self._factors() if rank else (None, None)
        inner = grad @ up if rank else grad[:, :0]
        if not wanted:
            return None, inner
        small, scales = quantize_rows(grad)
        lower = torch._scaled_mm(
            small, self._turned.t(), scales, self._turned_scales, None, None, grad.dtype, use_fast_accum=True
        )
        return lower.addmm_(inner, down) if rank else lower, inner


def _biases(group: Any) -> Any:
    """Return the layers' biases one behind the other; zeros where one has none."""
    device = group.parts[0].base.weight.device
    some = [
        part.base.bias if part.base.bias is not None else torch.zeros(part.num_out, device=device)
        for part in group.parts
    ]
    return torch.cat([bias.detach().to(group.dtype) for bias in some])


def supports_eight_bits(device: str) -> bool:
    """Return whether a device has units for products in 8-bit floating point, with scales by row."""
    return device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (9, 0)
