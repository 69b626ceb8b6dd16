"""Token steps on a GPU: one step is recorded, as a CUDA graph, and replayed for each further token.

Launching a step's kernels one by one takes the CPU several times longer than the GPU takes to run them: with the 8B
shape on an H200, some 90 ms a step. A recorded step is launched as a whole. For that, nothing may change its size
or place from step to step: keys and values lie in buffers with room for all tokens, behind a mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewright.errors import is_lack_of_memory
from tunewright.models.experts import num_experts
from tunewright.models.families import shape_of
from tunewright.models.text_config import BY_LENGTH, rotations_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel


class _FixedCache:
    """Keys and values of all layers in buffers of a fixed width, as transformers' models ask a cache for them.

    Attributes:
        keys, values: of each layer: [row, head, column, dim].
        column: [1]; where the next token's are written.
    """

    is_compileable = False

    def __init__(self, layers: list[Any], num_steps: int) -> None:
        import torch

        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.column = torch.tensor([layers[0].keys.shape[2]], device=layers[0].keys.device)
        for layer in layers:  # one after the other, and each is freed: two whole caches may not fit
            self.keys.append(torch.nn.functional.pad(layer.keys, (0, 0, 0, num_steps)))
            self.values.append(torch.nn.functional.pad(layer.values, (0, 0, 0, num_steps)))
            layer.keys = layer.values = None

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.keys[layer].index_copy_(2, self.column, keys)
        self.values[layer].index_copy_(2, self.column, values)
        return self.keys[layer], self.values[layer]

    def get_seq_length(self, _: int = 0) -> int:  # of no effect: positions and mask are given
        return int(self.keys[0].shape[2]) - 1


def can_record(model: PreTrainedModel, layers: list[Any], width: int) -> bool:
    """Return whether a step of this model computes the same with a cache of this many columns in fixed buffers.

    Args:
        model: a causal language model.
        layers: of its cache, after the prompts.
        width: columns of the prompts and all tokens to come.
    """
    from transformers.cache_utils import DynamicLayer

    config = model.config.get_text_config()
    sparse = num_experts(shape_of(model.config.to_dict()))  # their grouped products copy from the host
    is_slope = getattr(config, "alibi", config.model_type == "bloom")  # Falcon and BLOOM: of a mask [row, column] alone
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return (  # a rotation by length looks at the positions in each step, which waits for the GPU
        not (sparse or is_slope)
        and all(type(layer) is DynamicLayer for layer in layers)
        and all(window is None or width <= window for window in windows)
        and not any(rotation.get("rope_type") in BY_LENGTH for rotation in rotations_of(config))
        and config._attn_implementation in ("sdpa", "eager")
    )


class RecordedSteps:
    """The steps after a batch's prompts; as many as there is room for.

    Args:
        model: a causal language model in evaluation mode.
        cache_name: its argument for the cache.
        layers: of the cache that holds the prompts' keys and values, which move out of it.
        mask: [row, column]; 1 for a token of the prompts, 0 for padding.
        num_steps: how many tokens there is room for.
    """

    def __init__(
        self, model: PreTrainedModel, cache_name: str, layers: list[Any], mask: Tensor, num_steps: int
    ) -> None:
        import torch

        self._model, self._cache_name = model, cache_name
        self._cache = _FixedCache(layers, num_steps)
        hidden = torch.nn.functional.pad(mask == 0, (0, num_steps), value=True)[:, None, None]
        lowest = torch.finfo(model.dtype).min
        self._bias = torch.zeros(hidden.shape, dtype=model.dtype, device=mask.device).masked_fill_(hidden, lowest)
        self._positions = mask.sum(-1, keepdim=True)
        self._ids = torch.zeros_like(self._positions)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._may_record, self._num_taken = mask.device.type == "cuda", 0
        self._logits: Tensor

    def take(self, tokens: Tensor) -> Tensor:
        """Append a token to each row, [row]; return the logits of the next, [row, vocabulary], until the next call."""
        self._ids.copy_(tokens[:, None])
        self._bias.index_fill_(3, self._cache.column, 0)
        if self._graph is not None:
            self._graph.replay()
        elif self._may_record and self._num_taken:
            self._record()
        else:
            self._logits = self._launch()
        self._cache.column += 1
        self._positions += 1
        self._num_taken += 1
        return self._logits

    def _launch(self) -> Tensor:
        logits: Tensor = self._model(
            input_ids=self._ids,
            attention_mask=self._bias,
            position_ids=self._positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: self._cache},
        ).logits
        return logits[:, -1]

    def _record(self) -> None:
        """Record a step, and take it. What it writes is written in the same place again: no harm.

        A step that cannot be recorded, since it waits for the GPU or copies from the host, is taken all the same; the
        steps after it are launched one by one.
        """
        import torch

        graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up at their first call in a stream
            self._logits = self._launch()
        torch.cuda.current_stream().wait_stream(aside)
        try:
            with torch.cuda.graph(graph):
                logits = self._launch()
        except RuntimeError as error:
            if is_lack_of_memory(error):
                raise
            self._may_record = False
            return
        graph.replay()
        self._graph, self._logits = graph, logits
