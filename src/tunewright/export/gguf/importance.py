"""The importance matrix: how large the inputs of each matrix are on text of the run, by which llama.cpp rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewright.errors import ModelError
from tunewright.export.gguf.architectures import Config, mapping_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Array = Any  # numpy.ndarray
MAX_TOKENS = 16384  # more hardly change a mean of squares
_PARTS_OF_PEFT = ("base_model.model.", ".base_layer")


@dataclass(frozen=True)
class Importance:
    """Mean squares of the inputs of matrices ([width], fp32) by llama.cpp's name, and over how many tokens."""

    by_tensor: Mapping[str, Array]
    num_tokens: int


def importance_of(model: PreTrainedModel, config: Config, sequences: Iterable[Sequence[int]]) -> Importance:
    """Return the importance matrix of a model on these token sequences, up to MAX_TOKENS.

    Args:
        model: the tuned model; its adapter may be beside the base's layers.
        config: the content of the base's config.json.
        sequences: token ids.
    """
    import torch

    sums: dict[str, torch.Tensor] = {}

    def adding(name: str) -> Any:
        def add(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
            del module
            squares = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double().pow(2).sum(0)
            sums[name] = sums[name] + squares if name in sums else squares

        return add

    handles = [module.register_forward_pre_hook(adding(name)) for name, module in _matrices(model, config).items()]
    num_tokens = 0
    try:
        with torch.inference_mode():
            for sequence in sequences:
                ids = list(sequence)[: MAX_TOKENS - num_tokens]
                if not ids:
                    break
                model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
                num_tokens += len(ids)
    finally:
        for handle in handles:
            handle.remove()
    return Importance({name: (total / num_tokens).float().cpu().numpy() for name, total in sums.items()}, num_tokens)


def _matrices(model: PreTrainedModel, config: Config) -> dict[str, torch.nn.Module]:
    """Return the linear layers that a GGUF holds, by llama.cpp's name of their weight."""
    import torch

    layers: dict[str, torch.nn.Module] = {}
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or ".lora_" in name:
            continue
        plain = name.removeprefix(_PARTS_OF_PEFT[0]).removesuffix(_PARTS_OF_PEFT[1])
        try:
            mapping = mapping_of(f"{plain}.weight", config)
        except ModelError:  # a layer without a tensor of its own
            continue
        if mapping is not None:
            layers[mapping.name] = module
    return layers
