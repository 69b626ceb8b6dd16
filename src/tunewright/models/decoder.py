"""A batch of prompts in the cache of a model, token by token."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from tunewright.models.recorded_steps import RecordedSteps, can_record

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_MIN_PREFIX = 8  # a shorter common prefix is not worth a call of its own
_MIN_RECORDED = 16  # recording takes as long as some four steps


def _shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all prompts share; at least one token of each prompt is left over."""
    limit = min(len(prompt) for prompt in prompts) - 1
    for position in range(limit):
        if len({prompt[position] for prompt in prompts}) > 1:
            return position if position >= _MIN_PREFIX else 0
    return limit if len(prompts) > 1 and limit >= _MIN_PREFIX else 0


@contextmanager
def packed_head(model: PreTrainedModel) -> Iterator[None]:
    """Give the head its kept positions packed: for a strided slice, torch would copy the whole head once per row.

    On a CPU, that took nearly half the time of a short batch.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    try:
        yield
    finally:
        hook.remove()


def cache_name(model: PreTrainedModel) -> str:
    """Return the argument of a model's forward that takes its cache: transformers 5.24 calls it "cache"."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # of an adapted model
    return "cache" if "cache" in inspect.signature(base.forward).parameters else "past_key_values"


class Decoding(Protocol):
    """Prompts that are continued token by token, whichever way they are computed.

    Attributes:
        logits: [row, vocabulary] of the next token.
        recorded: the steps to come, where one is recorded and replayed; then rows can neither leave nor join.
    """

    logits: Tensor
    recorded: RecordedSteps | None

    def record(self, num_steps: int) -> None:
        """Prepare for this many steps, where that makes them faster."""
        ...

    def step(self, tokens: Tensor) -> None:
        """Append a token to each row; tokens: [row]."""
        ...

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only the rows with these indices, [row]."""
        ...

    def join(self, other: Decoding) -> None:
        """Append another batch's rows, computed in the same way."""
        ...

    def trim(self) -> None:
        """Drop what no row needs any more."""
        ...

    def score(self, golds: Sequence[Sequence[int]]) -> list[float]:
        """Return each gold answer's mean negative log-likelihood in nats per token; the rows stay as they were."""
        ...


class Decoder:
    """A batch of prompts in the model's cache; rows are left-padded behind the shared prefix.

    Attributes:
        mask: [row, column]; 1 for a token, 0 for padding.
        logits: [row, vocabulary] of the next token.
        recorded: the steps to come, where one is recorded and replayed; then rows can neither leave nor join.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int) -> None:
        import torch
        from transformers import DynamicCache

        self.model, self.pad_id = model, pad_id
        self.cache, self._cache_name = DynamicCache(), cache_name(model)
        self.recorded: RecordedSteps | None = None
        # A sliding window counts columns of the cache, and padding behind a prefix would push the prefix out of it.
        windowed = getattr(model.config.get_text_config(), "sliding_window", None)
        prefix = 0 if windowed else _shared_prefix(prompts)
        num_rows = len(prompts)
        if prefix:
            shared = torch.tensor([list(prompts[0][:prefix])], device=model.device)
            with packed_head(model):
                model(input_ids=shared, use_cache=True, logits_to_keep=1, **{self._cache_name: self.cache})
            self.cache.batch_repeat_interleave(num_rows)
        width = max(len(prompt) for prompt in prompts) - prefix
        rows = [[pad_id] * (width - len(p) + prefix) + list(p[prefix:]) for p in prompts]
        mask = [[1] * prefix + [0] * (width - len(p) + prefix) + [1] * (len(p) - prefix) for p in prompts]
        self.mask = torch.tensor(mask, device=model.device)
        self.logits = self._forward(torch.tensor(rows, device=model.device), keep=1)[:, -1]

    def _forward(self, ids: Tensor, keep: int) -> Tensor:
        """Run ids [row, token] whose mask is already in ``self.mask``; return logits [row, keep, vocabulary]."""
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with packed_head(self.model):
            return self.model(
                input_ids=ids,
                attention_mask=self.mask,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=keep,
                **{self._cache_name: self.cache},
            ).logits

    def record(self, num_steps: int) -> None:
        """Replay one recorded step for each of the tokens to come, where the model and its device allow it."""
        layers, width = self.cache.layers, self.mask.shape[1] + num_steps
        if self.model.device.type == "cuda" and num_steps >= _MIN_RECORDED and can_record(self.model, layers, width):
            self.recorded = RecordedSteps(self.model, self._cache_name, layers, self.mask, num_steps)

    def step(self, tokens: Tensor) -> None:
        """Append a token to each row; tokens: [row]."""
        if self.recorded is not None:
            self.logits = self.recorded.take(tokens)
            return
        self._grow(tokens.new_ones((len(tokens), 1)))
        self.logits = self._forward(tokens[:, None], keep=1)[:, -1]

    def _grow(self, columns: Tensor) -> None:
        import torch

        self.mask = torch.cat([self.mask, columns.to(self.mask.dtype)], dim=1)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only the rows with these indices, [row]."""
        self.cache.batch_select_indices(rows)
        self.mask, self.logits = self.mask[rows], self.logits[rows]

    def join(self, other: Decoding) -> None:
        """Append another batch's rows; the narrower of the two batches is padded on the left."""
        import torch

        assert isinstance(other, Decoder)
        width = max(self.mask.shape[1], other.mask.shape[1])
        self._set_width(width)
        other._set_width(width)
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.keys = torch.cat([mine.keys, theirs.keys])
            mine.values = torch.cat([mine.values, theirs.values])
        self.mask, self.logits = torch.cat([self.mask, other.mask]), torch.cat([self.logits, other.logits])

    def trim(self) -> None:
        """Drop the first columns that are padding in every row."""
        self._set_width(self.mask.shape[1] - int(self.mask.any(0).int().argmax()))

    def _set_width(self, width: int) -> None:
        """Add columns of padding on the left, or drop columns there."""
        import torch

        more = width - self.mask.shape[1]
        if more:
            self.mask = torch.nn.functional.pad(self.mask, (more, 0))
            for layer in self.cache.layers:
                layer.keys = torch.nn.functional.pad(layer.keys, (0, 0, more, 0))
                layer.values = torch.nn.functional.pad(layer.values, (0, 0, more, 0))

    def score(self, golds: Sequence[Sequence[int]]) -> list[float]:
        """Return each gold answer's mean negative log-likelihood in nats per token; the cache stays as it was."""
        import torch

        width = max(len(gold) for gold in golds)
        if width == 0:
            return [0.0] * len(golds)
        mask = self.mask
        ids = torch.tensor([list(g) + [self.pad_id] * (width - len(g)) for g in golds], device=mask.device)
        valid = torch.tensor([[1] * len(g) + [0] * (width - len(g)) for g in golds], device=mask.device)
        self._grow(valid)
        later = self._forward(ids, keep=width)[:, :-1]
        self.mask = mask
        self.cache.crop(-width)
        logits = torch.cat([self.logits[:, None], later], dim=1).float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none") * valid
        return [float(x) for x in losses.sum(1) / valid.sum(1).clamp(min=1)]
