"""What a device holds: the micro-batch, activation checkpointing and loss scale in force, and how they give way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunewright import console
from tunewright.errors import TrainingError
from tunewright.models.memory_plan import EVERYTHING
from tunewright.training.packing import Example, pack

FAST = "fast_decoder"  # where a model carries its kernels.decoder.FastDecoder, if it takes the fast path
_FIRST_LOSS_SCALE = 2.0**16
_GROW_AFTER = 2000  # steps without overflow, as in mixed-precision training since Micikevicius et al. 2018


@dataclass(frozen=True)
class Capacity:
    """How a step is computed; none of it changes the step's result beyond rounding.

    Attributes:
        micro_batch_tokens: most tokens of a packed row.
        kept: levels of activations that are kept, as in budget.Choice; 0 recomputes them in the backward pass
            (Chen et al. 2016).
        cached: whether a full copy of the base is kept beside the quantized one; of the fast path alone.
        loss_scale: factor that keeps fp16 gradients in range; 1 for other types.
        good_steps: steps since the scale last changed.
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
        """Return what a checkpoint kept."""
        return cls(
            int(values["micro_batch_tokens"]),
            int(values["kept"]),
            bool(values["cached"]),
            float(values["loss_scale"]),
            int(values["good_steps"]),
            int(values["halvings"]),
        )

    def within(self, asked: Capacity) -> Capacity:
        """Return it made no larger than what is asked for now, so that a resumed training can be made to fit."""
        return replace(
            self,
            micro_batch_tokens=min(self.micro_batch_tokens, asked.micro_batch_tokens),
            kept=min(self.kept, asked.kept),
            cached=self.cached and asked.cached,
        )

    def with_loss_scaling(self) -> Capacity:
        """Return it for fp16 products."""
        return replace(self, loss_scale=_FIRST_LOSS_SCALE)

    def after_good_step(self) -> Capacity:
        """Return it after a step whose gradients were finite."""
        if self.loss_scale == 1:
            return self
        if self.good_steps + 1 < _GROW_AFTER:
            return replace(self, good_steps=self.good_steps + 1)
        return replace(self, loss_scale=min(2 * self.loss_scale, _FIRST_LOSS_SCALE), good_steps=0)

    def apply(self, model: Any) -> None:
        """Have the model keep this much; without the fast path, activation checkpointing never goes off again."""
        if fast := getattr(model, FAST, None):
            fast.configure(self.kept, self.cached)
        elif self.kept < EVERYTHING:  # there it is all or nothing
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def smaller(self, examples: Sequence[Example]) -> Capacity:
        """Return what to try after these examples did not fit.

        First goes the copy of the base, then half of the micro-batch as often as it can, then the activations.

        Raises:
            TrainingError: one example alone, with its activations recomputed, does not fit.
        """
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.cached:
            console.warning("out of memory: going on without a full copy of the base; slower, the result is the same")
            return replace(self, cached=False, halvings=self.halvings + 1)
        longest = max(example.num_tokens for example in examples)
        largest = max(sum(e.num_tokens for e in row) for row in pack(examples, self.micro_batch_tokens))
        if largest > longest:
            budget = max(longest, min(self.micro_batch_tokens, largest) // 2)
            console.warning(f"out of memory: going on with micro-batches of {budget:,} tokens; the result is the same")
            return replace(self, micro_batch_tokens=budget, halvings=self.halvings + 1)
        if not self.checkpointing:
            console.warning("out of memory: going on with activation checkpointing; slower, the result is the same")
            return replace(self, kept=0, halvings=self.halvings + 1)
        raise TrainingError(
            f"one example of {longest:,} tokens alone does not fit into the memory",
            "the micro-batch is down to one example, and its activations are recomputed already",
            "lower training.max_tokens or training.rank, or take a smaller base",
        )
