"""Gradients through the frozen weights in 8-bit floating point (e4m3; Micikevicius et al. 2022), for Hopper and later.

Only the gradient of a layer's input is computed so: the loss, the adapter's own products and the gradients of its
factors stay in 16 bit. Each row of each operand has a scale of its own. Forward products in 8 bit are faster still, but
were measured to cost more than 0.5 % of the loss (docs/performance.md), and are not offered.
"""

from __future__ import annotations

from typing import Any

import torch

from tunewright.training.kernels.elementwise import quantize_rows


class EightBitGradients:
    """The frozen part of a linear.Group's backward pass in 8 bit; the gradient needs no spare columns."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._turned, scales = quantize_rows(group.block_matrix()[: group.num_out, : group.num_in].t().contiguous())
        self._scales = scales.t()

    def input_gradient(self, grad: Any, wanted: bool) -> tuple[Any, Any]:
        """As linear.Group.input_gradient, for ``grad`` [T, n]."""
        group = self._group
        right, lower = group.factors()
        inner = grad @ right[: group.num_out, : group.rank]
        if not wanted:
            return None, inner
        small, scales = quantize_rows(grad)
        full = torch._scaled_mm(
            small, self._turned.t(), scales, self._scales, out_dtype=grad.dtype, use_fast_accum=True
        )
        return full.addmm_(inner, lower[: group.rank]), inner


def supports_eight_bits(device: str) -> bool:
    """Return whether a device has units for products in 8-bit floating point, with scales by row."""
    return device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (9, 0)
