"""The fast path: a model of the Llama kind (families.Family.like_llama) with LoRA factors, from rows to logps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from tunewright.training.kernels import elementwise
from tunewright.training.kernels.attention import segments_of
from tunewright.training.kernels.distillation import Mixture, distilled
from tunewright.training.kernels.head import TargetLogps
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
    """A model of the Llama kind with LoRA factors, computed by the layers of this package; a ``ComputePath``.

    Args:
        model: a model for which ``unsupported_reason`` is empty.
    """

    name: ClassVar[str] = "the fast path"
    is_fast: ClassVar[bool] = True

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        causal = _causal(model)
        body = causal.model
        self._embedding, self._rotary = body.embed_tokens, body.rotary_emb
        self._head = causal.get_output_embeddings()
        self._dtype = body.norm.weight.dtype
        self._norm = _norm(body.norm)
        self._scratch = Scratch(body.norm.weight)
        self.layers = [self._layer(module) for module in body.layers]

    def _layer(self, module: torch.nn.Module) -> DecoderLayer:
        attention, mlp = module.self_attn, module.mlp
        size = int(attention.head_dim)

        def group(*modules: torch.nn.Module) -> LinearGroup:
            return LinearGroup(modules, self._dtype, self._scratch)

        qkv = group(attention.q_proj, attention.k_proj, attention.v_proj)
        query, key = (part.num_out // size for part in qkv.parts[:2])
        norms = None
        if hasattr(attention, "q_norm"):
            weights = torch.stack([attention.q_norm.weight.detach(), attention.k_norm.weight.detach()])
            norms = Norm(weights, attention.q_norm.variance_epsilon)
        return DecoderLayer(
            qkv=qkv,
            out=group(attention.o_proj),
            gate_up=group(mlp.gate_proj, mlp.up_proj),
            down=group(mlp.down_proj),
            attention_norm=_norm(module.input_layernorm),
            mlp_norm=_norm(module.post_attention_layernorm),
            heads=(query, key, size),
            head_norms=norms,
        )

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
                group.use_eight_bits()

    def token_logps(self, row: PackedRow) -> Tensor:
        """Return the log-probability in nats of each supervised token: [n], float32, differentiable."""
        with torch.autocast(row.input_ids.device.type, enabled=False):
            x = self.predictions(row)
            if self._has_plain_head:
                return TargetLogps.apply(x, self._head.weight, row.targets)
            return -torch.nn.functional.cross_entropy(x.float(), row.targets, reduction="none")

    def predictions(self, row: PackedRow) -> Tensor:
        """Return the normed values before the head at each supervised token, [n, h], or logits if it is not plain."""
        device = row.input_ids.device
        # The layers choose their types themselves; autocast would only add casts.
        with torch.autocast(device.type, enabled=False):
            x = self._embedding(row.input_ids)
            cos, sin = (angle[0, :, : angle.shape[-1] // 2] for angle in self._rotary(x, row.position_ids))
            context = RowContext(segments_of(row.lengths, device), (cos.contiguous(), sin.contiguous()))
            x = x[0].to(self._dtype)
            for layer in self.layers:
                x = LayerPass.apply(x, layer, context, torch.is_grad_enabled(), *layer.parameters)
            x = NormPass.apply(x[row.logit_positions], self._norm)
            return x if self._has_plain_head else self._head(x)

    def distilled(self, row: PackedRow, teacher: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
        """Return each supervised token's loss, divergence and cross-entropy; see ``ComputePath.distilled``."""
        with torch.autocast(row.input_ids.device.type, enabled=False):
            weight = self._head.weight if self._has_plain_head else None
            return distilled(self.predictions(row), weight, teacher, row, mixture)

    @property
    def _has_plain_head(self) -> bool:
        return type(self._head) is torch.nn.Linear and self._head.bias is None


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


def unsupported_reason(model: PreTrainedModel) -> str:
    """Return why this model of the Llama kind cannot take the fast path; empty when it can.

    Args:
        model: the base with or without an adapter of peft.
    """
    causal = _causal(model)
    layers = causal.model.layers
    size = int(layers[0].self_attn.head_dim)
    if size != 2 * causal.model.rotary_emb.inv_freq.numel():
        return "only a part of each head is rotated by position"
    if size & (size - 1):
        return f"the size of its heads, {size}, is no power of two"
    trained = [name for name, parameter in layers.named_parameters() if parameter.requires_grad]
    if any("lora_" not in name for name in trained):
        return "the layers train more than LoRA factors"
    weights = [part for layer in layers for part in _linears(layer)]
    kinds = {type(part).__name__ for part in weights if not _is_plain(part)}
    return f"its weights have a format of their own ({', '.join(sorted(kinds))})" if kinds else ""


def _linears(layer: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the frozen linear layers of a decoder layer, without their adapters."""
    attention, mlp = layer.self_attn, layer.mlp
    modules = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    modules += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return [getattr(module, "base_layer", module) for module in modules]


def _is_plain(module: torch.nn.Module) -> bool:
    """Return whether ``linear.unpack`` reads the weight: in 16 or 32 bit, or packed in bytes by bitsandbytes."""
    if type(module) is torch.nn.Linear:
        return bool(module.weight.is_floating_point() and module.weight.element_size() > 1)
    return type(module).__name__ == "Linear4bit" and bool(module.weight.dtype == torch.uint8)


def _causal(model: PreTrainedModel) -> PreTrainedModel:
    """Return the causal language model inside peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _norm(module: torch.nn.Module) -> Norm:
    return Norm(module.weight.detach(), float(module.variance_epsilon))
