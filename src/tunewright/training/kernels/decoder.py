"""The fast path: a model whose family describes its layers, with LoRA factors, from packed rows to logps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from tunewright.models.text_config import setting_of
from tunewright.training.kernels import elementwise
from tunewright.training.kernels.attention import segments_of
from tunewright.training.kernels.build import angles_of, body_of, causal_of, layers_of, read_layer, read_norm
from tunewright.training.kernels.distillation import Mixture, distilled
from tunewright.training.kernels.head import LogitForm, TargetLogps
from tunewright.training.kernels.layer import KEEP_PRODUCTS, DecoderLayer, Norm, RowContext, backward, forward
from tunewright.training.kernels.linear import LinearGroup, Scratch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tunewright.training.packing import PackedRow


class LayerPass(torch.autograd.Function):
    """A layer as one step of autograd: from its input and LoRA factors to its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: DecoderLayer, row: RowContext, gradient: bool, *factors: Tensor) -> Tensor:
        """Return the layer's output [T, h] for ``x`` [T, h]; the layer's factors are passed for their gradients."""
        out, ctx.kept = forward(layer, x, row, gradient and any(ctx.needs_input_grad))
        ctx.layer, ctx.row = layer, row
        ctx.save_for_backward(x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the input [T, h] and of the factors."""
        (x,) = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, None
        lower, factors = backward(ctx.layer, x, ctx.row, kept, grads[0], ctx.needs_input_grad[0])
        return lower, None, None, None, *factors


class FastPath:
    """A model with LoRA factors, computed by the layers of this package; a ``ComputePath``.

    Args:
        model: a model for which ``unsupported_reason`` is empty.
    """

    name: ClassVar[str] = "the fast path"
    is_fast: ClassVar[bool] = True

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        kind, body, causal = layers_of(model), body_of(model), causal_of(model)
        if kind is None:
            raise ValueError("the family has no fast path")
        config = causal.config.get_text_config()
        self._config, self._embedding, self._rotary = config, body.embed_tokens, body.rotary_emb
        self._scale = float(setting_of(config, "embedding_multiplier", 1.0))
        self._head = causal.get_output_embeddings()
        self._form = LogitForm.of(config)
        self._dtype = body.norm.weight.dtype
        self._norm = read_norm(body.norm, kind.norm_offset)
        self._scratch = Scratch(body.norm.weight)
        self.layers = [
            read_layer(module, number, kind, config, self._dtype, self._scratch)
            for number, module in enumerate(body.layers)
        ]

    def configure(self, kept: int, cached: bool) -> None:
        """Set what stays in memory between the forward and the backward pass.

        Args:
            kept: levels kept beyond the layers' inputs, counted over all layers: first each layer's attention, then
                each layer's MLP, then the inputs of the products.
            cached: whether the base's weights are kept in full beside the quantized ones.
        """
        count = len(self.layers)
        for number, layer in enumerate(self.layers):
            layer.keep = sum(number < kept - level * count for level in range(KEEP_PRODUCTS))
            for group in layer.groups:
                group.keep_unpacked(cached)
        self._scratch.clear()

    def use_eight_bits(self) -> None:
        """Compute the gradients through all frozen weights in 8-bit floating point."""
        for layer in self.layers:
            for group in layer.groups:
                if isinstance(group, LinearGroup):
                    group.use_eight_bits()

    def token_logps(self, row: PackedRow) -> Tensor:
        """Return the log-probability in nats of each supervised token: [n], float32, differentiable."""
        with torch.autocast(row.input_ids.device.type, enabled=False):
            if self._has_plain_head:
                return TargetLogps.apply(self._hidden(row), self._head.weight, row.targets, self._form)
            return -torch.nn.functional.cross_entropy(self.predictions(row).float(), row.targets, reduction="none")

    def predictions(self, row: PackedRow) -> Tensor:
        """Return the values before the head at each supervised token, [n, h]; logits if it is no plain product."""
        with torch.autocast(row.input_ids.device.type, enabled=False):
            x = self._hidden(row)
            return x if self._is_product else self._form.apply(self._head(x))

    def distilled(self, row: PackedRow, teacher: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
        """Return each supervised token's loss, divergence and cross-entropy; see ``ComputePath.distilled``."""
        with torch.autocast(row.input_ids.device.type, enabled=False):
            weight = self._head.weight if self._is_product else None
            return distilled(self.predictions(row), weight, teacher, row, mixture)

    def _hidden(self, row: PackedRow) -> Tensor:
        """Return the normed values before the head at each supervised token, [n, h]."""
        device = row.input_ids.device
        # The layers choose their types themselves; autocast would only add casts.
        with torch.autocast(device.type, enabled=False):
            x = self._embedding(row.input_ids)
            angles = angles_of(self._rotary, self._config, x, row)
            context = RowContext(segments_of(row.lengths, device), angles)
            x = x[0].to(self._dtype)
            x = x if self._scale == 1 else x * self._scale
            for layer in self.layers:
                x = LayerPass.apply(x, layer, context, torch.is_grad_enabled(), *layer.parameters)
            hidden: Tensor = NormPass.apply(x[row.logit_positions], self._norm)
            return hidden

    @property
    def _has_plain_head(self) -> bool:
        return type(self._head) is torch.nn.Linear and self._head.bias is None

    @property
    def _is_product(self) -> bool:
        """Whether the logits are the plain product of the values and the head's weight."""
        return self._has_plain_head and self._form == LogitForm()


class NormPass(torch.autograd.Function):
    """The norm behind the last layer, as one step of autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Norm) -> Tensor:
        """Return ``x`` [n, h] normed, [n, h]."""
        ctx.save_for_backward(x)
        ctx.norm = norm
        out = torch.empty_like(x)
        elementwise.rms_norm(x, norm.weight, norm.eps, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of ``x``, [n, h]."""
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        none = torch.zeros_like(x)
        elementwise.rms_norm_backward(grads[0], x, ctx.norm.weight, ctx.norm.eps, none, out, again=False)
        return out, None
