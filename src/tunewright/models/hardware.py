"""The sizes of a model, the memory and speed of devices, and work in halves when memory runs out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tunewright.errors import is_lack_of_memory
from tunewright.models.experts import expert_width, num_experts
from tunewright.models.families import FAMILIES, complete_shape_of

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# Dense 16-bit matrix products per second, from the makers' data sheets.
_PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10": 125e12,
    "T4": 65e12,
    "V100": 112e12,
    "4090": 165e12,
    "3090": 71e12,
}


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder with gated MLPs.

    Attributes:
        block_weights: number of weights of all layers.
        vocabulary_weights: number of weights of embedding and head; a tied head counts once.
        query: width of all query heads together.
        key_value: width of all key heads together, which is that of the value heads.
        after_norms: whether attention and MLP have a norm behind them, whose inputs are kept too.
        experts: of a sparse MLP, each as wide as ``intermediate``; 0 for a dense one.
        chosen: the experts of each token.
    """

    block_weights: int
    vocabulary_weights: int
    hidden: int
    intermediate: int
    layers: int
    query: int
    key_value: int
    vocabulary: int
    after_norms: bool = False
    experts: int = 0
    chosen: int = 1

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Return the shape that a model's config.json describes.

        Raises:
            KeyError: it lacks a size.
        """
        shape = complete_shape_of(config)
        hidden, layers = int(shape["hidden_size"]), int(shape["num_hidden_layers"])
        heads = int(shape["num_attention_heads"])
        head_size = int(shape.get("head_dim") or hidden // heads)
        query = heads * head_size
        key_value = int(shape.get("num_key_value_heads") or heads) * head_size
        experts, vocabulary = num_experts(shape), int(shape["vocab_size"])
        intermediate = expert_width(shape) if experts else _mean(shape["intermediate_size"])
        block = 2 * hidden * (query + key_value) + max(1, experts) * 3 * hidden * intermediate
        tied = bool(shape.get("tie_word_embeddings") or config.get("tie_word_embeddings"))
        family = FAMILIES.get(str(config.get("model_type", "")))
        return cls(
            layers * block,
            vocabulary * hidden * (1 if tied else 2),
            hidden,
            intermediate,
            layers,
            query,
            key_value,
            vocabulary,
            bool(family and family.layers and family.layers.norms[1]),
            experts,
            int(shape.get("num_experts_per_tok") or 1) if experts else 1,
        )

    @property
    def linear_weights(self) -> tuple[int, int, int, int]:
        """Numbers of weights of a layer that a token meets: into attention, out of it, into the MLP, out of it."""
        hidden, inner = self.hidden, self.intermediate * self.chosen
        return hidden * (self.query + 2 * self.key_value), self.query * hidden, 2 * hidden * inner, inner * hidden

    @property
    def expert_weights(self) -> int:
        """Number of weights of all experts of all layers."""
        return self.layers * self.experts * 3 * self.hidden * self.intermediate

    @property
    def largest_product(self) -> int:
        """Number of weights of the largest of a layer's products, all experts together."""
        into, out, up, down = self.linear_weights
        return max(into, out, up // self.chosen * max(1, self.experts), down // self.chosen * max(1, self.experts))

    def adapter_weights(self, rank: int, attention_only: bool = False) -> int:
        """Return the number of weights of a LoRA adapter of this rank on all linear parts of the layers.

        An expert's gate and factor share a matrix, and so one pair of factors.
        """
        attention = 2 * (self.hidden + self.query) + 2 * (self.hidden + self.key_value)
        mlp = 3 * (self.hidden + self.intermediate)
        if self.experts:
            mlp = self.experts * (2 * self.hidden + 3 * self.intermediate)
        return rank * self.layers * (attention + (0 if attention_only else mlp))

    def flops_per_token(self, full: bool, checkpointing: bool, teacher: float = 0.0) -> float:
        """Return the operations per trained token, without attention's scores (Kaplan et al. 2020, sec. 2.1).

        Per weight: 2 forward, 2 for the gradient of the inputs, 2 more if the weights themselves are trained, and 2
        more if the forward pass is recomputed. For each of the ``teacher`` tokens beside it: 2 forward.
        """
        weights = self.layers * sum(self.linear_weights) + self.vocabulary * self.hidden
        return float(weights * (4 + 2 * full + 2 * checkpointing + 2 * teacher))


def _mean(size: int | Sequence[int]) -> int:
    """Return a size, or the mean of sizes that differ from layer to layer (Gemma 3n)."""
    return round(sum(size) / len(size)) if isinstance(size, Sequence) else int(size)


def free_bytes(device: str) -> float:
    """Return the bytes that this process may use on a device, what it already holds included; 0 if unknown.

    A smaller share set for the process (torch's per_process_memory_fraction) is the limit.
    """
    import torch

    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device)
        share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)(device)
        return float(min(free + held, share * total))
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        return min(free, _allowed_bytes()) / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    except (OSError, StopIteration, ValueError):
        return 0.0


def _allowed_bytes() -> float:
    """Return the bytes that a container's limit leaves; infinite without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        most, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return float("inf") if most == "max" else float(most) - float(used)
    except (OSError, ValueError):
        return float("inf")


def peak_flops(device_name: str) -> float:
    """Return a GPU's dense 16-bit operations per second by its name; 0 if unknown."""
    return next((flops for name, flops in _PEAK_FLOPS.items() if name in device_name), 0.0)


def measured_cpu_flops(dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Return the operations per second of matrix products on one processor, measured for ``seconds`` of its time."""
    import torch

    rows, weights = torch.ones(1024, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
    torch.nn.functional.linear(rows, weights)
    start, count = time.process_time(), 0
    while (elapsed := time.process_time() - start) < seconds:
        torch.nn.functional.linear(rows, weights)
        count += 1
    pace: float = 2.0 * rows.numel() * len(weights) * count / elapsed
    return pace


def cpu_share() -> float:
    """Return how many processors this process gets beside what else runs, by the load average."""
    import torch

    threads = int(torch.get_num_threads())
    others = max(0.0, os.getloadavg()[0] - 1)  # without this process
    return threads * min(1.0, (os.cpu_count() or threads) / (others + threads))


def or_halve(work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
    """Return the work's results, one per item; if memory runs out, the work is done in halves one after the other."""
    import torch

    try:
        return work(items)
    except Exception as error:
        if len(items) == 1 or not is_lack_of_memory(error):
            raise
    # Outside of the handler: its traceback would keep the failed batch's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(items) // 2
    return [result for part in (items[:half], items[half:]) for result in or_halve(work, part)]
