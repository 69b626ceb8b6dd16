"""The plain path: any causal language model through transformers and peft, with attention by the lengths of samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tunewright.models.families import FAMILIES, PLAIN_KINDS
from tunewright.models.memory_plan import EVERYTHING
from tunewright.models.text_config import fixed_up_to, forget_lengths

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

    from tunewright.training.kernels.attention import Segments
    from tunewright.training.kernels.distillation import Mixture
    from tunewright.training.packing import PackedRow

BY_LENGTHS = "by_lengths"  # our name among transformers' implementations of attention
_PAD_TO = 256  # tokens: rows of few different lengths, for which a GPU's libraries choose their kernels once
_TRIED, _TOLERANCE = 16, 0.02  # tokens, and the relative difference that 16 bit may make
_ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention"})


@dataclass(frozen=True)
class _Row:
    """The packed row that attention computes: its segments, and the configs that name the implementation."""

    segments: Segments
    configs: tuple[Any, ...]


_ROW: ContextVar[_Row | None] = ContextVar("row", default=None)


class PlainPath:
    """Any causal language model, computed by transformers and peft.

    Attention runs within each sample by its length, through an implementation that is registered with transformers:
    no mask between the samples of a row is made. Where that is not possible (attention with sinks, dropout, chunks or a
    state from token to token), each sample is computed alone: the masks that transformers makes for packed rows see the
    samples' borders in some kinds and versions, and not in others.
    """

    name: ClassVar[str] = "the plain path"
    is_fast: ClassVar[bool] = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        from tunewright.training.kernels import elementwise, norms

        if elementwise.compiled(str(model.get_input_embeddings().weight.device)):
            norms.fuse_norms(model)
        kinds = set(getattr(base.config.get_text_config(), "layer_types", None) or _ATTENTION_LAYERS)
        self._configs = _configs_by_lengths(base) if kinds <= _ATTENTION_LAYERS else ()
        self._rotated_alike = fixed_up_to(base.config.get_text_config())  # tokens
        kind = base.config.model_type
        if self._configs and kind not in FAMILIES and kind not in PLAIN_KINDS and not self._agrees():
            self._configs = ()

    def token_logps(self, row: PackedRow) -> Tensor:
        """Return the log-probability in nats of each supervised token: [n], float32, differentiable.

        The head runs only on the positions that predict a supervised token.
        """
        from tunewright.training.kernels.head import LogitLogps

        logps: Tensor = LogitLogps.apply(self.predictions(row), row.targets)
        return logps

    def predictions(self, row: PackedRow) -> Tensor:
        """Return the logits at the positions that predict a supervised token, [n, vocabulary]."""
        import torch

        together = self._configs and max(row.lengths) <= self._rotated_alike
        if not together and len(row.lengths) > 1:
            return torch.cat([self._logits(single) for single in row.sequences()])
        return self._logits(row)

    def distilled(self, row: PackedRow, teacher: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
        """Return each supervised token's loss, divergence and cross-entropy; see ``ComputePath.distilled``."""
        from tunewright.training.kernels.distillation import distilled

        return distilled(self.predictions(row), None, teacher, row, mixture)

    def _logits(self, row: PackedRow) -> Tensor:
        from tunewright.training.kernels.attention import segments_of

        device = row.input_ids.device
        padded = row.padded_to(_PAD_TO) if device.type == "cuda" else row
        if self._rotated_alike < float("inf"):
            forget_lengths(self.model)
        with _applied(_Row(segments_of(padded.lengths, device), self._configs) if self._configs else None):
            logits: Tensor = self.model(
                input_ids=padded.input_ids,
                position_ids=padded.position_ids,
                logits_to_keep=padded.logit_positions,
                use_cache=False,
            ).logits[0]
        return logits

    def _agrees(self) -> bool:
        """Return whether attention by lengths gives two short samples what each gets alone.

        No test knows how models of this kind attend: they might add biases of their own to the scores.
        """
        import torch

        from tunewright.training.objectives import without_dropout
        from tunewright.training.packing import PackedRow

        device = self.model.get_input_embeddings().weight.device
        at = torch.arange(_TRIED, device=device)
        row = PackedRow((2 + at)[None], (at % (_TRIED // 2))[None], (_TRIED // 2,) * 2, at, at, at // (_TRIED // 2))
        configs = self._configs
        with without_dropout(self.model), torch.no_grad():
            try:
                ours = self.predictions(row).float()
            except NotImplementedError:
                return False
            try:
                self._configs = ()
                expected = self.predictions(row).float()
            finally:
                self._configs = configs
        return bool((ours - expected).norm() <= _TOLERANCE * expected.norm())

    def configure(self, kept: int, cached: bool) -> None:
        """Recompute all activations unless ``kept`` is EVERYTHING; there are no levels between, and no way back."""
        if kept < EVERYTHING:
            settings = {"use_reentrant": False, "context_fn": _contexts}
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


@contextmanager
def _applied(row: _Row | None) -> Iterator[None]:
    """Let the model's attention compute this row; without a row, the model's own implementation stays."""
    if row is None:
        yield
        return
    before = [config._attn_implementation for config in row.configs]
    token = _ROW.set(row)
    try:
        for config in row.configs:
            config._attn_implementation_internal = BY_LENGTHS
        yield
    finally:
        for config, name in zip(row.configs, before, strict=True):
            config._attn_implementation_internal = name
        _ROW.reset(token)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of a checkpointed layer's forward pass and of its recomputation, which comes much later."""
    return nullcontext(), _applied(_ROW.get())


def _configs_by_lengths(base: Module) -> tuple[Any, ...]:
    """Return the configs of the text model if its attention can be computed by lengths, else none."""
    config = base.config.get_text_config()
    if not type(base)._can_set_attn_implementation() or getattr(config, "attention_dropout", None):
        return ()
    if any(hasattr(part, "sinks") for part in base.modules()):  # gpt-oss: scores that no token receives
        return ()
    from transformers import AttentionInterface

    AttentionInterface.register(BY_LENGTHS, _attention)
    configs = {id(part.config): part.config for part in base.modules() if hasattr(part, "config")}
    return tuple(each for each in configs.values() if type(each) is type(config))


def _attention(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Return attention within the samples of the current row, in the form that transformers' models expect.

    Args:
        module: the attention layer.
        query: [1, heads, T, size].
        key: [1, key heads, T, size].
        value: [1, key heads, T, size].
        attention_mask: None, since none is made for this implementation.
        scaling: factor of the scores.
        sliding_window: how many tokens a token sees.
        softcap: soft cap of the scores.
        rest: settings of other implementations.

    Returns:
        [1, T, heads, size], and no weights.
    """
    from tunewright.training.kernels.attention import Scores, attend

    row = _ROW.get()
    added = [name for name, value in rest.items() if getattr(value, "is_floating_point", bool)()]
    if row is None or attention_mask is not None or added:
        raise NotImplementedError(f"attention by lengths has no masks and no {', '.join(added)}")
    scores = Scores(scaling or 0.0, sliding_window or 0, softcap or 0.0)
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    return attend(query, key, value, row.segments, scores)[None], None
