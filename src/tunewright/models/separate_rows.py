"""Decoding for models that keep more of the past than keys and values; and which way of decoding suits a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tunewright.errors import is_lack_of_memory
from tunewright.models.decoder import Decoder, Decoding, cache_name, packed_head
from tunewright.models.families import FAMILIES, PLAIN_KINDS

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

    from tunewright.models.recorded_steps import RecordedSteps

_KEYS_AND_VALUES = frozenset({"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"})  # the last holds nothing
_TRIED, _TOLERANCE = (12, 9), 0.05  # tokens of two prompts, and the relative difference that 16 bit may make


class SeparateRows:
    """A batch of prompts, each computed alone.

    A state of linear attention, of a convolution or of a state-space layer holds all tokens before it: it cannot be
    cut back, and padding may leave traces in it.

    Attributes:
        logits: [row, vocabulary] of the next token.
        recorded: None; no step of these models is recorded.
        rows: the tokens of each row so far.
        caches: of each row; None for a model whose cache is of no use: then all tokens are computed for each new one.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], cached: bool = True) -> None:
        import torch
        from transformers import DynamicCache

        self.model, self._cache_name = model, cache_name(model)
        self.recorded: RecordedSteps | None = None
        self.rows = [list(prompt) for prompt in prompts]
        self.caches: list[Any] = [DynamicCache(config=model.config) if cached else None for _ in prompts]
        both = zip(self.rows, self.caches, strict=True)
        self.logits = torch.cat([self._last(row, cache, 1) for row, cache in both])

    def _last(self, ids: Sequence[int], cache: Any, keep: int) -> Tensor:
        """Return the logits of the last ``keep`` of these tokens, [keep, vocabulary]; a cache holds those before."""
        import torch

        more = {"use_cache": False} if cache is None else {"use_cache": True, self._cache_name: cache}
        row = torch.tensor([list(ids)], device=self.model.device)
        with packed_head(self.model):
            logits: Tensor = self.model(input_ids=row, logits_to_keep=keep, **more).logits[0, -keep:]
        return logits

    def record(self, num_steps: int) -> None:
        """Do nothing: no step of these models is recorded."""

    def step(self, tokens: Tensor) -> None:
        """Append a token to each row; tokens: [row]."""
        import torch

        logits = []
        for row, token, cache in zip(self.rows, tokens.tolist(), self.caches, strict=True):
            row.append(token)
            logits.append(self._last(row if cache is None else row[-1:], cache, 1))
        self.logits = torch.cat(logits)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only the rows with these indices, [row]."""
        kept = rows.tolist()
        self.rows, self.caches = [self.rows[row] for row in kept], [self.caches[row] for row in kept]
        self.logits = self.logits[rows]

    def join(self, other: Decoding) -> None:
        """Append another batch's rows."""
        import torch

        assert isinstance(other, SeparateRows)
        self.rows, self.caches = self.rows + other.rows, self.caches + other.caches
        self.logits = torch.cat([self.logits, other.logits])

    def trim(self) -> None:
        """Do nothing: no row is padded."""

    def score(self, golds: Sequence[Sequence[int]]) -> list[float]:
        """Return each gold answer's mean negative log-likelihood in nats per token, from all tokens before it."""
        import torch

        losses = []
        for row, gold in zip(self.rows, golds, strict=True):
            logits = self._last([*row, *gold], None, len(gold) + 1)[:-1].float()
            targets = torch.tensor(list(gold), device=logits.device)
            losses.append(float(torch.nn.functional.cross_entropy(logits, targets)) if gold else 0.0)
        return losses


_WAYS: WeakKeyDictionary[Module, str] = WeakKeyDictionary()


def open_decoder(model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int) -> Decoding:
    """Compute prompts, and return the decoder that continues them: of a padded batch, where the model allows it."""
    if model not in _WAYS:
        _WAYS[model] = _way_of(model)
    return _opened(_WAYS[model], model, prompts, pad_id)


def _opened(way: str, model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int) -> Decoding:
    if way == "batch":
        return Decoder(model, prompts, pad_id)
    return SeparateRows(model, prompts, way == "rows")


def _way_of(model: PreTrainedModel) -> str:
    """Return how a model decodes: "batch", "rows", or "whole" without a cache.

    Kinds of models that no test knows are tried: some have caches of their own, or take no padding.
    """
    import torch
    from transformers import DynamicCache

    layers = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers}
    ways = ["batch", "rows"] if layers <= _KEYS_AND_VALUES else ["rows"]
    if model.config.model_type in FAMILIES or model.config.model_type in PLAIN_KINDS:
        return ways[0]
    with torch.inference_mode():
        return next((way for way in ways if _decodes(way, model)), "whole")


def _decodes(way: str, model: PreTrainedModel) -> bool:
    """Return whether two prompts, a next token and a gold answer get the numbers that a model without a cache gives."""
    import torch

    prompts = [list(range(2, 2 + size)) for size in _TRIED]
    gold, more = [[3, 4], [5, 6]], torch.tensor([7, 8], device=model.device)
    expected = SeparateRows(model, prompts, cached=False)
    try:
        ours = _numbers(_opened(way, model, prompts, 0), gold, more)
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        if is_lack_of_memory(error):
            raise
        return False
    known = _numbers(expected, gold, more)
    return all(bool((a - b).norm() <= _TOLERANCE * b.norm()) for a, b in zip(ours, known, strict=True))


def _numbers(decoder: Decoding, gold: Sequence[Sequence[int]], more: Tensor) -> list[Tensor]:
    """Return a decoder's next logits, the scores of gold answers, and its logits after one more token."""
    import torch

    first, scores = decoder.logits.float(), torch.tensor(decoder.score(gold))
    decoder.step(more)
    return [first, scores, decoder.logits.float()]
