"""Training objectives: what is minimized on a batch."""

from __future__ import annotations

from typing import Any

from tunewright.models.template import IGNORED
from tunewright.training.batches import Batch


def sft_loss(model: Any, batch: Batch) -> tuple[Any, int]:
    """Return the summed next-token loss in nats over the supervised tokens, and their number.

    The sum, not the mean: a step divides by the supervised tokens of *all* its micro-batches, so that eight
    batches of one give the gradient of one batch of eight. The head runs only on columns that some row is
    supervised in.
    """
    import torch

    targets = batch.labels[:, 1:]
    columns = (targets != IGNORED).any(0).nonzero().flatten()
    targets = targets[:, columns]
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        logits_to_keep=columns,
        use_cache=False,
    ).logits
    loss = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return loss, int((targets != IGNORED).sum())
