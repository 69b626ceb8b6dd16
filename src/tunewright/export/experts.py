"""Experts in a base's files: which part of the model's three-dimensional parameters each tensor is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewright.models.experts import PARAMETERS

if TYPE_CHECKING:
    import torch

# By the names of published files: the parameter, and which half of it where a file holds gate and factor apart.
_PARTS: Mapping[str, tuple[str, int | None]] = {
    "gate_proj": (PARAMETERS[0], 0),
    "w1": (PARAMETERS[0], 0),
    "up_proj": (PARAMETERS[0], 1),
    "w3": (PARAMETERS[0], 1),
    "down_proj": (PARAMETERS[1], None),
    "w2": (PARAMETERS[1], None),
    "input_linear": (PARAMETERS[0], None),
    "output_linear": (PARAMETERS[1], None),
    "gate_up_proj": (PARAMETERS[0], None),
}
_SINGLE = re.compile(r"(.*)\.(mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)(?:\.weight)?")
_WHOLE = re.compile(r"(.*)\.(mlp|block_sparse_moe)\.(?:experts\.)?(input_linear|output_linear|gate_up_proj|down_proj)")


@dataclass(frozen=True)
class ExpertPart:
    """A tensor's part in a parameter: of one expert, or of all (``number`` None); a half, or the whole (None)."""

    module: str
    parameter: str
    number: int | None
    half: int | None

    def of(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return this part of the parameter [E, n, k]."""
        value = parameter if self.number is None else parameter[self.number]
        return value if self.half is None else value.chunk(2)[self.half]


def expert_part(name: str) -> ExpertPart | None:
    """Return which part a tensor of a mixture's files is, by its bare name; None for any other tensor."""
    if match := _SINGLE.fullmatch(name):
        prefix, block, number, part = match.groups()
        if part not in _PARTS:
            return None
        block = "mlp" if part in ("w1", "w2", "w3") else block  # Mixtral's files keep an older name of the block
        return ExpertPart(f"{prefix}.{block}.experts", _PARTS[part][0], int(number), _PARTS[part][1])
    if match := _WHOLE.fullmatch(name.removesuffix(".weight")):
        prefix, block, part = match.groups()
        return ExpertPart(f"{prefix}.{block}.experts", _PARTS[part][0], None, None)
    return None


def adapter_layer(part: ExpertPart) -> str:
    """Return the bare name under which peft writes the factors of a part's parameter.

    peft wraps the module once for each parameter: first that of gate and factor, then that of the last product.
    """
    return f"{part.module}.base_layer" if part.parameter == PARAMETERS[0] else part.module


class ExpertParameters:
    """Parameters put together from their parts in files, changed, and kept for the next parts.

    Args:
        parts: the tensors of the files that are parts, by name.
        read: returns a tensor of the files by its name.
        change: returns a parameter [E, n, k] as it is exported, in fp32, from what the files hold.
    """

    def __init__(
        self,
        parts: Mapping[str, ExpertPart],
        read: Callable[[str], torch.Tensor],
        change: Callable[[ExpertPart, torch.Tensor], torch.Tensor],
    ) -> None:
        self._parts, self._read, self._change = parts, read, change
        self._ready: dict[tuple[str, str], torch.Tensor] = {}

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor of the files, changed."""
        part = self._parts[name]
        key = part.module, part.parameter
        if key not in self._ready:
            # Files take turns between both parameters of a layer, and never come back to an earlier layer.
            self._ready = {other: value for other, value in self._ready.items() if other[0] == part.module}
            self._ready[key] = self._change(part, self._whole(key))
        return part.of(self._ready[key]).contiguous()

    def _whole(self, key: tuple[str, str]) -> torch.Tensor:
        import torch

        own = {name: part for name, part in self._parts.items() if (part.module, part.parameter) == key}
        if all(part.number is None for part in own.values()):
            return self._read(next(iter(own)))
        ordered = sorted(own, key=lambda name: (own[name].number or 0, own[name].half or 0))
        count = 1 + max(part.number or 0 for part in own.values())
        return torch.stack([torch.cat(group) for group in _grouped(map(self._read, ordered), count)])


def _grouped(tensors: Iterable[torch.Tensor], count: int) -> list[list[torch.Tensor]]:
    """Return the tensors in ``count`` groups of equal size."""
    every = list(tensors)
    size = len(every) // count
    return [every[start : start + size] for start in range(0, len(every), size)]
