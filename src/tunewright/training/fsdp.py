"""FSDP2 for a base that one GPU cannot hold: its frozen weights are sharded, the adapter is whole in each process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel


def shard_base(model: PeftModel, device: str) -> None:
    """Shard the frozen weights of an adapted model over all processes, layer by layer (Zhao et al. 2023).

    The model may be in the host's memory; afterwards it is on ``device``. Each process keeps the adapter's weights
    whole and sums their gradients as without sharding, so checkpoints and the result are the same.
    """
    from torch.distributed.fsdp import fully_shard

    base = model.get_base_model()
    adapter = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for parameter in adapter:
        parameter.data = parameter.data.to(device)
    layers = set(base._no_split_modules or ())
    for module in base.modules():
        if type(module).__name__ in layers:
            fully_shard(module, ignored_params=adapter)
    # Weights outside of the layers are resharded after each pass too. Otherwise saving, which the first process does
    # alone, would reshard them there, and the processes would then wait for different weights.
    fully_shard(base, ignored_params=adapter, reshard_after_forward=True)
