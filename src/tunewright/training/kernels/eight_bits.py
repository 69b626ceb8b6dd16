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
        matrix = group.block_matrix()[: group.num_out, : group.num_in]
        self._weight, scales = quantize_rows(matrix)
        self._weight_scales = scales.t()
        self._turned, scales = quantize_rows(matrix.t().contiguous())
        self._turned_scales = scales.t()

    def product(self, x: Any, enabled: bool) -> tuple[Any, Any]:
        """As linear.Group.product, for ``x`` [T, k]."""
        group = self._group
        small, scales = quantize_rows(x)
        out = torch._scaled_mm(
            small, self._weight.t(), scales, self._weight_scales, out_dtype=x.dtype, use_fast_accum=True
        )
        right, lower = group.factors()
        columns = right[: group.num_out]
        if group.biased:
            out += columns[:, group.rank]
        inner = x @ lower[: group.rank].t()
        return (out.addmm_(inner, columns[:, : group.rank].t()) if enabled else out), inner

    def input_gradient(self, grad: Any, wanted: bool) -> tuple[Any, Any]:
        """As linear.Group.input_gradient, for ``grad`` [T, n]."""
        group = self._group
        right, lower = group.factors()
        inner = grad @ right[: group.num_out, : group.rank]
        if not wanted:
            return None, inner
        small, scales = quantize_rows(grad)
        full = torch._scaled_mm(
            small, self._turned.t(), scales, self._turned_scales, out_dtype=grad.dtype, use_fast_accum=True
        )
        return full.addmm_(inner, lower[: group.rank]), inner


def supports_eight_bits(device: str) -> bool:
    """Return whether a device has units for products in 8-bit floating point, with scales by row."""
    return device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (9, 0)
