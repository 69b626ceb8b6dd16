"""What fits on a device: the micro-batch, the kept activations and the loss scale, and how they shrink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from tunewright import console
from tunewright.errors import TrainingError
from tunewright.models.memory_plan import EVERYTHING
from tunewright.training.packing import Example, pack

if TYPE_CHECKING:
    from tunewright.training.compute_path import ComputePath

_FIRST_LOSS_SCALE = 2.0**16
_GROW_AFTER = 2000  # steps without overflow, as in mixed-precision training since Micikevicius et al. 2018


@dataclass(frozen=True)
class Capacity:
    """How a step is computed; it changes the step's result by no more than rounding.

    Attributes:
        micro_batch_tokens: the most tokens of a packed row.
        kept: levels of activations that are kept, as in memory_plan.Choice; 0 recomputes them in the backward pass
            (Chen et al. 2016).
        cached: whether a full copy of the base is kept beside the quantized one; only on the fast path.
        loss_scale: the factor that keeps fp16 gradients in range; 1 for other types.
        good_steps: steps since the loss scale last changed.
        halvings: how often memory ran out.
    """

    micro_batch_tokens: int
    kept: int = EVERYTHING
    cached: bool = False
    loss_scale: float = 1.0
    good_steps: int = 0
    halvings: int = 0

    @property
    def checkpointing(self) -> bool:
        """Whether all activations are recomputed."""
        return self.kept == 0

    def as_dict(self) -> dict[str, float]:
        """Return it as plain numbers, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Capacity:
        """Return the capacity that a checkpoint holds."""
        return cls(
            int(values["micro_batch_tokens"]),
            int(values["kept"]),
            bool(values["cached"]),
            float(values["loss_scale"]),
            int(values["good_steps"]),
            int(values["halvings"]),
        )

    def within(self, limit: Capacity) -> Capacity:
        """Return the smaller of both in each respect, so that a resumed training can be made to fit."""
        return replace(
            self,
            micro_batch_tokens=min(self.micro_batch_tokens, limit.micro_batch_tokens),
            kept=min(self.kept, limit.kept),
            cached=self.cached and limit.cached,
        )

    def with_loss_scaling(self) -> Capacity:
        """Return it with the first loss scale, for products in fp16."""
        return replace(self, loss_scale=_FIRST_LOSS_SCALE)

    def after_good_step(self) -> Capacity:
        """Return it after a step whose gradients were finite."""
        if self.loss_scale == 1:
            return self
        if self.good_steps + 1 < _GROW_AFTER:
            return replace(self, good_steps=self.good_steps + 1)
        return replace(self, loss_scale=min(2 * self.loss_scale, _FIRST_LOSS_SCALE), good_steps=0)

    def apply(self, path: ComputePath) -> None:
        """Set what the path keeps in memory."""
        path.configure(self.kept, self.cached)

    def smaller(self, examples: Sequence[Example]) -> Capacity:
        """Return the capacity to try after these examples ran out of memory.

        It first gives up the copy of the base, then halves the micro-batch down to single examples, then recomputes
        the activations.

        Raises:
            TrainingError: a single example, with its activations recomputed, does not fit.
        """
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.cached:
            console.warning("out of memory: continuing without a full copy of the base (slower, same result)")
            return replace(self, cached=False, halvings=self.halvings + 1)
        longest = max(example.num_tokens for example in examples)
        largest = max(sum(e.num_tokens for e in row) for row in pack(examples, self.micro_batch_tokens))
        if largest > longest:
            budget = max(longest, min(self.micro_batch_tokens, largest) // 2)
            console.warning(f"out of memory: continuing with micro-batches of {budget:,} tokens (same result)")
            return replace(self, micro_batch_tokens=budget, halvings=self.halvings + 1)
        if not self.checkpointing:
            console.warning("out of memory: continuing with activation checkpointing (slower, same result)")
            return replace(self, kept=0, halvings=self.halvings + 1)
        raise TrainingError(
            f"a single example of {longest:,} tokens does not fit into memory",
            "the micro-batch holds one example already, and its activations are recomputed",
            "lower training.max_tokens or training.rank, or use a smaller base",
        )
