"""An MLP of experts: each token's rows go to the experts that its router chose, sorted by expert, in grouped products.

With S = T · (experts per token) rows sorted by expert, expert e's block matrix is, as in linear.py,

    M_e = | W_e  sB_e |     n rows
          | A_e   0   |     r rows, and rows of zeros up to the number of columns beside W

so that [x | Ax] · M_e[:n]ᵀ is the forward pass, and [g | gsB] · M_e[:, :k] the gradient of x.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunewright import console
from tunewright.errors import is_lack_of_memory
from tunewright.training.kernels import elementwise
from tunewright.training.kernels.linear import Scratch


@dataclass
class Routing:
    """Where the tokens of a packed row go.

    Attributes:
        tokens: [S], the token of each sorted row.
        positions: [T, c], the sorted row of each token's c-th choice.
        weights: [T, c], the weight of each choice.
        ends: [E], int32: where each expert's rows end.
    """

    tokens: Tensor
    positions: Tensor
    weights: Tensor
    ends: Tensor

    @property
    def sorted_weights(self) -> Tensor:
        """The weights of the sorted rows, [S], float32."""
        out = torch.empty(self.positions.numel(), dtype=torch.float32, device=self.weights.device)
        return out.index_copy_(0, self.positions.flatten(), self.weights.float().flatten())


class ExpertFactors:
    """The weights of all experts for one product, and their LoRA factors in peft's layout.

    Args:
        weight: [E, n, k] in 16 or 32 bit, or its packed bytes.
        state: the quantization state of the bytes; None for a plain weight.
        wrapper: peft's wrapper of the parameter; None without an adapter.
        shape: (E, n, k).
    """

    def __init__(self, weight: Tensor, state: Any, wrapper: Any, shape: tuple[int, int, int]) -> None:
        self.weight, self.state, self.module, self.shape = weight, state, wrapper, shape
        self.down: Any = None  # A [E r, k], expert by expert
        self.up: Any = None  # B [n, r E], rank by rank
        self.rank, self.scale = 0, 0.0
        if wrapper is not None:
            self.down, self.up = wrapper.lora_A["default"].weight, wrapper.lora_B["default"].weight
            self.rank, self.scale = len(self.down) // shape[0], float(wrapper.scaling["default"])


class ExpertGroup:
    """One product of all experts with its LoRA factors; the counterpart of ``LinearGroup`` for sorted rows.

    Args:
        factors: weights and LoRA factors.
        dtype: type of the products.
        scratch: memory for the experts' M, which is never kept: unpacking costs little beside the products.
    """

    def __init__(self, factors: ExpertFactors, dtype: torch.dtype, scratch: Scratch) -> None:
        self._factors, self.dtype, self._scratch = factors, dtype, scratch
        self.num_experts, self.num_out, self.num_in = factors.shape
        self.rank = factors.rank
        self.spare = self.grad_spare = -(-self.rank // 8) * 8
        self._right: Tensor | None = None
        self._lower: Tensor | None = None
        self._seen: list[int] | None = None
        scratch.reserve(self.num_values)

    @property
    def parameters(self) -> list[Tensor]:
        """The trainable factors A and B; none without an adapter."""
        return [self._factors.down, self._factors.up] if self.rank else []

    @property
    def num_values(self) -> int:
        """Number of values of all experts' M."""
        return self.num_experts * (self.num_out + self.spare) * (self.num_in + self.spare)

    def keep_unpacked(self, cached: bool) -> None:
        """Do nothing: the experts are unpacked at each use."""

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return sB, [E, n + spare, spare], and A, [E, spare, k], from the current factors."""
        versions = [factor._version for factor in self.parameters]
        if versions != self._seen or self._right is None or self._lower is None:
            own, like = self._factors, {"dtype": self.dtype, "device": self._factors.weight.device}
            right = torch.zeros(self.num_experts, self.num_out + self.spare, self.spare, **like)
            lower = torch.zeros(self.num_experts, self.spare, self.num_in, **like)
            if self.rank:
                up = own.up.detach().view(self.num_out, self.rank, self.num_experts).permute(2, 0, 1)
                torch.mul(up, own.scale, out=right[:, : self.num_out, : self.rank])
                lower[:, : self.rank] = own.down.detach().view(self.num_experts, self.rank, self.num_in)
            self._right, self._lower, self._seen = right, lower, versions
        return self._right, self._lower

    def block_matrices(self) -> Tensor:
        """Return the M of all experts, [E, n + spare, k + spare]."""
        right, lower = self.factors()
        matrix = self._scratch.take(self.num_values)
        matrix = matrix.view(self.num_experts, self.num_out + self.spare, self.num_in + self.spare)
        own = self._factors
        if own.state is None:
            matrix[:, : self.num_out, : self.num_in] = own.weight
        else:
            elementwise.unpack_experts(own.weight, own.state, matrix[:, : self.num_out, : self.num_in])
        matrix[:, :, self.num_in :] = right
        matrix[:, self.num_out :, : self.num_in] = lower
        return matrix

    def product(self, x: Tensor, ends: Tensor, spare: int = 0) -> Tensor:
        """Return the outputs [S, n + spare] of sorted rows ``x`` [S, k + spare]; its spare columns are filled."""
        matrix = self.block_matrices()
        if self.spare:
            x[:, self.num_in :] = self.inner(x[:, : self.num_in], ends, padded=True) if self.enabled else 0
        product = grouped(x, matrix[:, : self.num_out].transpose(1, 2), ends)
        if not spare:
            return product
        out = torch.empty(len(x), self.num_out + spare, dtype=x.dtype, device=x.device)
        out[:, : self.num_out] = product
        return out

    def inner(self, x: Tensor, ends: Tensor, padded: bool = False) -> Tensor:
        """Return A x alone, [S, r], for ``x`` [S, k]; with ``padded``, [S, spare]."""
        return grouped(x, self.factors()[1].transpose(1, 2), ends)[:, : self.spare if padded else self.rank]

    @property
    def enabled(self) -> bool:
        """Whether the adapter is on: peft turns it off for the reference of DPO."""
        return self.rank > 0 and not self._factors.module.disable_adapters

    def input_gradient(self, grad: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of x [S, k] and of A x [S, r]; spare columns of ``grad`` [S, n + spare] are filled."""
        matrix = self.block_matrices()
        if self.spare:
            right = self.factors()[0][:, : self.num_out]
            grad[:, self.num_out :] = grouped(grad[:, : self.num_out], right, ends)
        lower = grouped(grad, matrix[:, :, : self.num_in], ends)
        return lower, grad[:, self.num_out : self.num_out + self.rank]

    def factor_gradients(
        self, grad: Tensor, x: Tensor, inner: Tensor, inner_grad: Tensor, ends: Tensor
    ) -> list[Tensor]:
        """Return the gradients of ``parameters``, in 32 bit; arguments as in ``LinearGroup.factor_gradients``."""
        if not self.rank:
            return []
        down = grouped_sums(inner_grad, x[:, : self.num_in], ends)
        up = grouped_sums(grad[:, : self.num_out], inner, ends)
        up = up.permute(1, 2, 0).reshape(self.num_out, self.rank * self.num_experts)
        return [down.reshape(self.num_experts * self.rank, self.num_in).float(), up.float().mul_(self._factors.scale)]


def grouped(x: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """Return [S, n]: the rows of each group of ``x`` [S, k] times the group's matrix of ``matrices`` [E, k, n]."""
    if _is_fast(x):
        return torch._grouped_mm(x, matrices, offs=ends)
    out = x.new_empty(len(x), matrices.shape[2])
    start = 0
    for matrix, end in zip(matrices, ends.tolist(), strict=True):
        torch.mm(x[start:end], matrix, out=out[start:end])
        start = end
    return out


def grouped_sums(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    """Return [E, a, b]: each group's product of its rows of ``left`` [S, a], transposed, and of ``right`` [S, b]."""
    if _is_fast(left):
        sums = torch._grouped_mm(_aligned(left).t(), _aligned(right), offs=ends)[:, : left.shape[1], : right.shape[1]]
        empty = torch.diff(ends, prepend=ends.new_zeros(1)) == 0
        return sums.masked_fill(empty[:, None, None], 0)  # a group without rows leaves its sums unwritten
    sums = left.new_zeros(len(ends), left.shape[1], right.shape[1])
    start = 0
    for number, end in enumerate(ends.tolist()):
        torch.mm(left[start:end].t(), right[start:end], out=sums[number])
        start = end
    return sums


def _is_fast(x: Tensor) -> bool:
    """Return whether torch has one kernel for all groups: in bf16, on GPUs from Hopper."""
    return bool(x.is_cuda and x.dtype == torch.bfloat16 and _has_kernel(x.device))


@functools.cache
def _has_kernel(device: torch.device) -> bool:
    """Return whether the grouped kernel gives on this device what products one by one give."""
    if torch.cuda.get_device_capability(device) < (9, 0):
        return False
    x, matrices = torch.randn(48, 64, device=device), torch.randn(3, 64, 64, device=device)
    x, matrices = x.bfloat16(), matrices.bfloat16()
    ends = torch.tensor([20, 20, 48], dtype=torch.int32, device=device)
    try:
        ours = torch._grouped_mm(x, matrices.transpose(1, 2), offs=ends), torch._grouped_mm(x.t(), x, offs=ends)[[0, 2]]
    except (RuntimeError, AttributeError) as error:
        if is_lack_of_memory(error):
            raise
        console.warning(f"grouped products do not run here; experts are computed in turns: {str(error)[:200]}")
        return False
    turns = (x[:20] @ matrices[0].t(), x[20:] @ matrices[2].t()), (x[:20].t() @ x[:20], x[20:].t() @ x[20:])
    expected = torch.cat(turns[0]), torch.stack(turns[1])
    right = all((own - other).norm() < 0.02 * other.norm() for own, other in zip(ours, expected, strict=True))
    if not right:
        console.warning("grouped products are wrong here; experts are computed in turns")
    return right


def _aligned(x: Tensor) -> Tensor:
    """Return ``x`` so that its rows begin at multiples of 16 bytes, as the grouped kernel needs."""
    fits = x.stride(1) == 1 and x.stride(0) % 8 == 0 and x.data_ptr() % 16 == 0 and x.shape[1] % 8 == 0
    return x if fits else torch.nn.functional.pad(x.contiguous(), (0, -x.shape[1] % 8))


class ExpertMLP:
    """A router and its experts.

    Args:
        router: transformers' module, which returns (logits, weights [T, c], chosen experts [T, c]) or the reverse.
        gate_up: the experts' gates and factors.
        down: the experts' last product.
    """

    def __init__(self, router: torch.nn.Module, gate_up: ExpertGroup, down: ExpertGroup) -> None:
        self._router, self.gate_up, self.down = router, gate_up, down

    @property
    def groups(self) -> tuple[ExpertGroup, ...]:
        """The groups of products in order."""
        return self.gate_up, self.down

    def route(self, x: Tensor) -> Routing:
        """Return where the tokens ``x`` [T, h] go."""
        with torch.no_grad():
            first, weights, last = self._router(x)
        chosen = first if last.is_floating_point() else last  # in transformers 5.17, Granite's router gives them first
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        positions = torch.empty_like(order)
        positions[order] = torch.arange(len(order), device=order.device)
        counts = flat.new_zeros(self.gate_up.num_experts).index_add_(0, flat, torch.ones_like(flat))
        choices = chosen.shape[1]
        ends = counts.cumsum(0).to(torch.int32)
        return Routing(order // choices, positions.view(-1, choices), weights, ends)

    def route_gradient(self, x: Tensor, routing: Routing, weight_grads: Tensor) -> Tensor:
        """Return the gradient of ``x`` [T, h] through the weights of the choices, from their gradients [T, c]."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            weights = self._router(x)[1]
        return torch.autograd.grad(weights, x, weight_grads.to(weights.dtype))[0]

    def hidden(self, x: Tensor, routing: Routing) -> Tensor:
        """Return gates and factors of the sorted rows, [S, 2f + spare], for tokens ``x`` [T, h]."""
        wide = self.gathered(x, routing, self.gate_up.spare)
        return self.gate_up.product(wide, routing.ends, self.gate_up.grad_spare)

    @staticmethod
    def gathered(x: Tensor, routing: Routing, spare: int) -> Tensor:
        """Return the sorted rows of tokens ``x`` [T, h], with empty columns behind them: [S, h + spare]."""
        out = torch.empty(len(routing.tokens), x.shape[1] + spare, dtype=x.dtype, device=x.device)
        elementwise.gather_rows(x, routing.tokens, out[:, : x.shape[1]])
        return out

    def output(self, gate_up: Tensor, routing: Routing, activation: str) -> Tensor:
        """Return the weighted sums of the experts' outputs, [T, h]."""
        wide = torch.empty(len(gate_up), self.down.num_in + self.down.spare, dtype=gate_up.dtype, device=gate_up.device)
        elementwise.gated(gate_up, wide[:, : self.down.num_in], activation)
        rows = self.down.product(wide, routing.ends)
        out = torch.empty(len(routing.positions), rows.shape[1], dtype=rows.dtype, device=rows.device)
        elementwise.combine_rows(rows, routing.positions, routing.weights, out)
        return out

    def backward(
        self, x: Tensor, routing: Routing, gate_up: Tensor, grad: Tensor, activation: str
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the gradients of ``x``, [T, h], and of the parameters of ``gate_up`` and of ``down``.

        Args:
            x: the tokens that were routed, [T, h].
            routing: where they went.
            gate_up: gates and factors, [S, 2f + spare]; overwritten.
            grad: of the weighted sums, [T, h].
            activation: of the gates.
        """
        ends, weights = routing.ends, routing.sorted_weights[:, None]
        wide = self.gathered(grad, routing, self.down.grad_spare)
        active, inner_grad = self.down.input_gradient(wide, ends)  # not weighted yet
        product = torch.empty_like(active)
        elementwise.gated(gate_up, product, activation)
        # With y = M a, the gradient of a row's weight is y·g = a·(Mᵀ g): the output y need not be kept.
        slopes = torch.linalg.vecdot(product.float(), active.float())
        active *= weights.to(active.dtype)
        inner = self.down.inner(product, ends) * weights.to(active.dtype) if self.down.rank else product[:, :0]
        weighted = inner_grad * weights.to(active.dtype)
        last = self.down.factor_gradients(wide, product, inner, weighted, ends)
        del wide, product
        elementwise.gated_backward(active, gate_up, False, activation)  # gate_up now holds the gradients
        del active
        lower, inner_grad = self.gate_up.input_gradient(gate_up, ends)
        rows = self.gathered(x, routing, 0)
        inner = self.gate_up.inner(rows, ends) if self.gate_up.rank else rows[:, :0]
        first = self.gate_up.factor_gradients(gate_up, rows, inner, inner_grad, ends)
        del rows
        out = self.route_gradient(x, routing, slopes[routing.positions])
        total = torch.empty_like(out)
        elementwise.combine_rows(lower, routing.positions, None, total)
        return total.add_(out), first, last
