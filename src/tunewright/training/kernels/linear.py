"""Linear layers that share an input, as one matrix product together with their LoRA factors.

For layers y_i = W_i x + b_i + s_i B_i A_i x, stacked, let W be [n, k] and A be [r, k]. One block matrix

    M = | W  sB  b |     n rows      (B block-diagonal: each layer has factors of its own)
        | A  0   0 |     r rows, and rows of zeros up to the number of columns beside W

gives the forward pass as [x | Ax | 1] · M[:n]ᵀ and the gradient of x as [g | gsB | 0] · M[:, :k]. So the adapter's
part needs no pass of its own over y or dx. Nothing is approximated: the adapter's terms enter the same 32-bit sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunewright.training.kernels.elementwise import quantize_rows, unpack_nf4


class EightBitGradients:
    """The frozen part of a linear group's backward pass in 8 bit; the gradient needs no spare columns."""

    def __init__(self, group: LinearGroup) -> None:
        self._group = group
        self._transposed, scales = quantize_rows(group.block_matrix()[: group.num_out, : group.num_in].t().contiguous())
        self._scales = scales.t()

    def input_gradient(self, grad: Tensor, with_input: bool) -> tuple[Tensor | None, Tensor]:
        """Return what ``LinearGroup.input_gradient`` returns, for ``grad`` [T, n]."""
        group = self._group
        right, lower = group.factors()
        inner = grad @ right[: group.num_out, : group.rank]
        if not with_input:
            return None, inner
        small, scales = quantize_rows(grad)
        full = torch._scaled_mm(
            small, self._transposed.t(), scales, self._scales, out_dtype=grad.dtype, use_fast_accum=True
        )
        return full.addmm_(inner, lower[: group.rank]), inner


def supports_eight_bits(device: str) -> bool:
    """Return whether a device computes products in 8-bit floating point, with scales by row."""
    return device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (9, 0)


class Factors:
    """The LoRA factors of a linear layer and their scale; rank 0 without an adapter."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.base = module.base_layer if hasattr(module, "base_layer") else module
        self.num_out = int(self.base.out_features)
        self.module: Any = module if hasattr(module, "lora_A") and "default" in module.lora_A else None
        self.down: Any = None  # A [r, k]
        self.up: Any = None  # B [n_i, r]
        self.rank, self.scale = 0, 0.0
        if self.module is not None:
            self.down, self.up = module.lora_A["default"].weight, module.lora_B["default"].weight
            self.rank, self.scale = len(self.down), float(module.scaling["default"])


class Scratch:
    """Memory for one unpacked weight at a time: a group is done with it before the next group takes it.

    Args:
        like: a tensor of the type and on the device that the memory is to have.
    """

    def __init__(self, like: Tensor) -> None:
        self._like, self._num_values = like, 0
        self._memory: Tensor | None = None

    def reserve(self, num_values: int) -> None:
        """Make the memory large enough for ``num_values``."""
        self._num_values = max(self._num_values, num_values)

    def take(self, num_values: int) -> Tensor:
        """Return memory for ``num_values``; its former content is lost."""
        if self._memory is None:
            self._memory = self._like.new_empty(self._num_values)
        return self._memory[:num_values]

    def clear(self) -> None:
        """Free the memory until the next ``take``."""
        self._memory = None


class LinearGroup:
    """Linear layers on the same input. x and g are the first columns of tensors [T, k + spare] and [T, n + grad_spare].

    Args:
        modules: the layers, with or without LoRA.
        dtype: type of the products.
        scratch: memory for an M that is not kept; the groups share it.
    """

    def __init__(self, modules: Sequence[torch.nn.Module], dtype: torch.dtype, scratch: Scratch) -> None:
        self.parts = [Factors(module) for module in modules]
        self.num_in = int(self.parts[0].base.in_features)
        self.num_out = sum(part.num_out for part in self.parts)
        self.rank = sum(part.rank for part in self.parts)
        self.biased = any(part.base.bias is not None for part in self.parts)
        # Fast products need rows that begin at multiples of 16 bytes.
        self.spare = -(-(self.rank + self.biased) // 8) * 8
        self.dtype, self._scratch = dtype, scratch
        self._eight: EightBitGradients | None = None
        self._cached = False
        self._own: Tensor | None = None
        self._right: Tensor | None = None
        self._lower: Tensor | None = None
        self._seen: list[int] | None = None
        scratch.reserve(self.num_values)

    def keep_unpacked(self, cached: bool) -> None:
        """Set whether the group keeps an M of its own, rather than unpack the weights at each use."""
        self._cached = cached
        if not cached and self._own is not None:
            self._own = self._right = self._lower = self._seen = None

    def use_eight_bits(self) -> None:
        """Compute gradients through the frozen weights in 8-bit floating point from now on."""
        self._eight = EightBitGradients(self)

    @property
    def grad_spare(self) -> int:
        """Number of columns that the gradient of the outputs needs beside its values."""
        return 0 if self._eight else self.spare

    @property
    def parameters(self) -> list[Tensor]:
        """The trainable factors: A and B of each layer that has them."""
        return [factor for part in self.parts if part.rank for factor in (part.down, part.up)]

    @property
    def num_values(self) -> int:
        """Number of values of M."""
        return (self.num_out + self.spare) * (self.num_in + self.spare)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return M's parts beside W, [n + spare, spare], and below it, [spare, k], from the current factors.

        They are kept until a factor changes: a weight is unpacked several times between two steps.
        """
        versions = [factor._version for factor in self.parameters]
        if versions == self._seen:
            return self._right, self._lower
        if self._right is None or self._lower is None:
            like = {"dtype": self.dtype, "device": self.parts[0].base.weight.device}
            self._right = torch.zeros(self.num_out + self.spare, self.spare, **like)
            self._lower = torch.zeros(self.spare, self.num_in, **like)
        row, column = 0, 0
        for part in self.parts:
            rows, columns = slice(row, row + part.num_out), slice(column, column + part.rank)
            if part.rank:
                torch.mul(part.up.detach(), part.scale, out=self._right[rows, columns])
                self._lower[columns] = part.down.detach()
            if part.base.bias is not None:
                self._right[rows, self.rank] = part.base.bias
            row, column = rows.stop, columns.stop
        self._seen = versions  # only after all are written: memory may run out in between
        return self._right, self._lower

    def block_matrix(self) -> Tensor:
        """Return M [n + spare, k + spare] from the current factors."""
        right, lower = self.factors()
        if self._own is not None:
            return self._own
        matrix = self._memory().view(self.num_out + self.spare, self.num_in + self.spare)
        row = 0
        for part in self.parts:
            unpack(part.base.weight, matrix[row : row + part.num_out, : self.num_in])
            row += part.num_out
        matrix[:, self.num_in :] = right
        matrix[self.num_out :, : self.num_in] = lower
        if self._cached:  # from now on, ``factors`` writes in place
            self._own = matrix
            self._right, self._lower = matrix[:, self.num_in :], matrix[self.num_out :, : self.num_in]
        return matrix

    def _memory(self) -> Tensor:
        if not self._cached:
            return self._scratch.take(self.num_values)
        return torch.empty(self.num_values, dtype=self.dtype, device=self.parts[0].base.weight.device)

    def product(self, x: Tensor, spare: int = 0) -> tuple[Tensor, Tensor]:
        """Return the layers' outputs [T, n + spare], and A x [T, r].

        Args:
            x: [T, k + spare]; the spare columns are filled here, and A x lies in them.
            spare: number of empty columns behind the outputs.
        """
        matrix = self.block_matrix()
        inner = x[:, self.num_in : self.num_in + self.rank]
        if self.spare > self.rank:
            x[:, self.num_in + self.rank :] = 0
            if self.biased:
                x[:, self.num_in + self.rank] = 1
        if self.rank and self.enabled:
            down = matrix[self.num_out : self.num_out + self.rank, : self.num_in]
            torch.mm(x[:, : self.num_in], down.t(), out=inner)
        elif self.rank:
            inner.zero_()
        out = torch.empty(len(x), self.num_out + spare, dtype=x.dtype, device=x.device)
        torch.mm(x, matrix[: self.num_out].t(), out=out[:, : self.num_out])
        return out, inner

    def inner(self, x: Tensor) -> Tensor:
        """Return A x [T, r] alone, for ``x`` [T, k]."""
        return x @ self.factors()[1][: self.rank].t()

    @property
    def enabled(self) -> bool:
        """Whether the adapter is on: peft turns it off for the reference of DPO."""
        return not any(part.module.disable_adapters for part in self.parts if part.rank)

    def input_gradient(self, grad: Tensor, with_input: bool = True) -> tuple[Tensor | None, Tensor]:
        """Return the gradients of x [T, k] (None without ``with_input``) and of A x [T, r].

        Args:
            grad: of the outputs, [T, n + grad_spare]; its spare columns are filled here.
            with_input: whether anything before this layer is trained.
        """
        if self._eight:
            return self._eight.input_gradient(grad, with_input)
        matrix = self.block_matrix()
        if self.spare > self.rank:
            grad[:, self.num_out + self.rank :] = 0
        inner = grad[:, self.num_out : self.num_out + self.rank]
        if self.rank:
            up = matrix[: self.num_out, self.num_in : self.num_in + self.rank]
            torch.mm(grad[:, : self.num_out], up, out=inner)
        return grad @ matrix[:, : self.num_in] if with_input else None, inner

    def factor_gradients(self, grad: Tensor, x: Tensor, inner: Tensor, inner_grad: Tensor) -> list[Tensor]:
        """Return the gradients of ``parameters``, in 32 bit.

        Args:
            grad: of the outputs, at least [T, n].
            x: the input, [T, k].
            inner: A x [T, r], from ``product``.
            inner_grad: its gradient, from ``input_gradient``.
        """
        if not self.rank:
            return []
        all_down = _product_32(inner_grad.t(), x)
        gradients, row, column = [], 0, 0
        for part in self.parts:
            if part.rank:
                up = _product_32(grad[:, row : row + part.num_out].t(), inner[:, column : column + part.rank])
                gradients += [all_down[column : column + part.rank], up if part.scale == 1 else up.mul_(part.scale)]
            row, column = row + part.num_out, column + part.rank
        return gradients


def unpack(weight: Tensor, out: Tensor) -> None:
    """Write a frozen weight, quantized or not, in full to ``out`` [n, k]."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        out.copy_(weight)
    else:
        unpack_nf4(weight, state, out)


def _product_32(left: Tensor, right: Tensor) -> Tensor:
    """Return the product in 32 bit, the type in which gradients are summed."""
    if left.is_cuda and left.element_size() == 2:
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()
