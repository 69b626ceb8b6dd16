"""The fast path's layers, read out of a model of transformers with or without an adapter of peft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunewright.models.experts import packed_parameter, wrapped_experts
from tunewright.models.families import FAMILIES, Layers
from tunewright.models.text_config import fixed_up_to, forget_lengths, setting_of
from tunewright.training.kernels.attention import Scores
from tunewright.training.kernels.elementwise import Heads
from tunewright.training.kernels.experts import ExpertFactors, ExpertGroup, ExpertMLP
from tunewright.training.kernels.layer import DecoderLayer, DenseMLP, Norm
from tunewright.training.kernels.linear import LinearGroup, Scratch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tunewright.training.packing import PackedRow

NO_ROTATION = "none"  # the angles of a layer without positions, whose heads stay as they are


def causal_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the causal language model inside peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def body_of(model: PreTrainedModel) -> Any:
    """Return the text model that holds embedding, layers and last norm."""
    body = causal_of(model).model
    return getattr(body, "language_model", body)


def layers_of(model: PreTrainedModel) -> Layers | None:
    """Return what the model's family says of its layers; None for a family without a fast path."""
    family = FAMILIES.get(causal_of(model).config.model_type)
    return family.layers if family else None


def read_norm(module: torch.nn.Module, offset: float) -> Norm:
    """Return a norm; one whose weight is stored as a difference keeps its sum in 32 bit."""
    weight = module.weight.detach()
    eps = float(getattr(module, "variance_epsilon", 0.0) or module.eps)
    return Norm(weight.float() + offset if offset else weight, eps)


def read_layer(
    module: torch.nn.Module, number: int, kind: Layers, config: Any, dtype: torch.dtype, scratch: Scratch
) -> DecoderLayer:
    """Return a decoder layer.

    Args:
        module: transformers' layer.
        number: its index.
        kind: of the family.
        config: of the text model.
        dtype: type of the products.
        scratch: memory for unpacked weights, which all layers share.
    """
    attention = module.self_attn

    def group(parent: torch.nn.Module, *names: str) -> LinearGroup:
        return LinearGroup([getattr(parent, name) for name in names], dtype, scratch)

    def norm(name: str) -> Norm | None:
        return read_norm(getattr(module, name), kind.norm_offset) if name else None

    before, behind, before_mlp, behind_mlp = (norm(name) for name in kind.norms)
    head_norms, wide_norms = _head_norms(attention, kind)
    return DecoderLayer(
        qkv=group(attention, *kind.qkv),
        out=group(attention, "o_proj"),
        mlp=read_experts(*block, dtype, scratch)
        if (block := _experts_of(module, kind))
        else DenseMLP(group(module.mlp, *kind.gate_up), group(module.mlp, "down_proj")),
        attention_norm=before,
        mlp_norm=before_mlp,
        heads=_heads(config, attention),
        attention_after=behind,
        mlp_after=behind_mlp,
        head_norms=head_norms,
        wide_norms=wide_norms,
        scores=_scores(attention, kind, config),
        activation=kind.activation_of(config.to_dict()),
        residual=float(setting_of(config, "residual_multiplier", 1.0)),
        rotation=_rotation(attention, number, config),
    )


def _experts_of(module: torch.nn.Module, kind: Layers) -> tuple[torch.nn.Module, torch.nn.Module] | None:
    """Return router and experts of a decoder layer; None where its MLP is dense."""
    block_name, router_name = kind.experts or ("", "")
    block = getattr(module, block_name, None)
    if block is None or not hasattr(block, "experts"):
        return None
    return getattr(block, router_name), block.experts


def read_experts(router: torch.nn.Module, experts: torch.nn.Module, dtype: torch.dtype, scratch: Scratch) -> ExpertMLP:
    """Return an MLP of experts; arguments as in ``read_layer``."""
    experts, wrappers = wrapped_experts(experts)

    def group(name: str) -> ExpertGroup:
        weight, state = packed_parameter(experts, name)
        shape = tuple(weight.shape if state is None else state.shape)
        factors = ExpertFactors(weight, state, wrappers.get(name), (shape[0], shape[1], shape[2]))
        return ExpertGroup(factors, dtype, scratch)

    return ExpertMLP(router, group("gate_up_proj"), group("down_proj"))


def _heads(config: Any, attention: torch.nn.Module) -> Heads:
    query = int(config.num_attention_heads)
    return query, int(config.num_key_value_heads or query), int(attention.head_dim)


def _head_norms(attention: torch.nn.Module, kind: Layers) -> tuple[Norm | None, tuple[Norm, Norm] | None]:
    """Return the norms of single heads, and those over all heads together."""
    if not hasattr(attention, "q_norm"):
        return None, None
    query, key = (read_norm(part, kind.norm_offset) for part in (attention.q_norm, attention.k_norm))
    if kind.wide_head_norms:
        return None, (query, key)
    return Norm(torch.stack([query.weight, key.weight]), query.eps), None


def _scores(attention: torch.nn.Module, kind: Layers, config: Any) -> Scores:
    own = hasattr(attention, "sliding_window")
    window = attention.sliding_window if own else setting_of(config, "sliding_window")
    softcap = getattr(config, kind.softcap) if kind.softcap else 0.0
    return Scores(float(attention.scaling), int(window or 0), float(softcap or 0.0))


def _rotation(attention: torch.nn.Module, number: int, config: Any) -> str:
    """Return the name of the layer's angles: its type where each type has its own, else ""."""
    if not getattr(attention, "use_rope", True):
        return NO_ROTATION
    by_type = _types(config)
    return config.layer_types[number] if by_type else ""


def _types(config: Any) -> list[str]:
    """Return the types of layer that have a rotation of their own; none if all layers share it."""
    types = sorted(set(setting_of(config, "layer_types") or ()))
    return types if types and set(types) <= set(config.rope_parameters) else []


def angles_of(rotary: torch.nn.Module, config: Any, x: Tensor, row: PackedRow) -> Mapping[str, Any]:
    """Return the cosines and sines of all rotations of a packed row, [T, r / 2] each, by name.

    Args:
        rotary: the text model's rotary embedding.
        config: of the text model.
        x: embedded tokens, [1, T, h].
        row: its positions, and the lengths of its sequences.
    """
    types: list[Any] = [[kind] for kind in _types(config)] or [[]]
    # Where a rotation depends on the length of what is computed, each sequence gets its own.
    lengths = row.lengths if max(row.lengths) > fixed_up_to(config) else (sum(row.lengths),)
    halves = {}
    for kind in types:
        parts = []
        for positions in row.position_ids.split(lengths, 1):
            forget_lengths(rotary)
            parts.append(rotary(x, positions, *kind))
        angles = [torch.cat(part, 1)[0] for part in zip(*parts, strict=True)]
        halves["".join(kind)] = tuple(angle[:, : angle.shape[-1] // 2].contiguous() for angle in angles)
    if not all(setting_of(config, "no_rope_layers") or [1]):
        cos, sin = next(iter(halves.values()))
        halves[NO_ROTATION] = torch.ones_like(cos), torch.zeros_like(sin)
    return halves


def unsupported_reason(model: PreTrainedModel) -> str:
    """Return why this model of a family with a fast path cannot take it; empty when it can.

    Args:
        model: the base with or without an adapter of peft.
    """
    kind, layers = layers_of(model), body_of(model).layers
    if kind is None:
        return f"models of the kind {causal_of(model).config.model_type!r} have layers of their own"
    if strange := _unknown_setting(causal_of(model).config.get_text_config()):
        return f"its config sets {strange}, which the fast path does not know"
    trained = [name for name, parameter in layers.named_parameters() if parameter.requires_grad]
    if any("lora_" not in name for name in trained):
        return "the layers train more than LoRA factors"
    weights = [part for layer in layers for part in _linears(layer, kind)]
    kinds = {type(part).__name__ for part in weights if not _is_plain(part)}
    return f"its weights have a format of their own ({', '.join(sorted(kinds))})" if kinds else ""


# What the configs of the families with a fast path set: what the fast path computes or training checks before, and what
# changes no number. A later version of transformers may add others.
_KNOWN = frozenset(
    (  # noqa: SIM905 (a list would take a line for each)
        "attention_bias attention_dropout attention_multiplier attn_logit_softcapping bos_token_id decoder_sparse_step "
        "embd_pdrop embedding_multiplier eos_token_id final_logit_softcapping head_dim hidden_act hidden_activation "
        "hidden_size initializer_range intermediate_size layer_types logits_scaling max_position_embeddings "
        "max_window_layers mlp_bias mlp_only_layers moe_intermediate_size no_rope_layer_interval no_rope_layers "
        "norm_topk_prob num_attention_heads num_experts num_experts_per_tok num_hidden_layers num_key_value_heads "
        "num_local_experts original_max_position_embeddings output_router_logits pad_token_id pretraining_tp "
        "query_pre_attn_scalar resid_pdrop residual_multiplier rms_norm_eps rope_parameters router_aux_loss_coef "
        "router_jitter_noise sliding_window tie_word_embeddings use_bidirectional_attention use_cache "
        "use_sliding_window vocab_size"
    ).split()
)


def _unknown_setting(config: Any) -> str:
    """Return a setting of models of this kind that the fast path does not know and that is not as usual; else ""."""
    from transformers import PreTrainedConfig

    usual = type(config)()
    names = sorted(usual.to_dict().keys() - PreTrainedConfig().to_dict().keys() - _KNOWN)
    names = [name for name in names if not name.startswith("_")]
    return next((name for name in names if getattr(config, name, None) != getattr(usual, name)), "")


def _linears(layer: torch.nn.Module, kind: Layers) -> list[torch.nn.Module]:
    """Return the frozen linear layers of a decoder layer, without their adapters."""
    modules = [getattr(layer.self_attn, name) for name in (*kind.qkv, "o_proj")]
    if _experts_of(layer, kind) is None:
        modules += [getattr(layer.mlp, name) for name in (*kind.gate_up, "down_proj")]
    return [getattr(module, "base_layer", module) for module in modules]


def _is_plain(module: torch.nn.Module) -> bool:
    """Return whether ``linear.unpack`` reads the weight: in 16 or 32 bit, or packed in bytes by bitsandbytes."""
    if type(module) is torch.nn.Linear:
        return bool(module.weight.is_floating_point() and module.weight.element_size() > 1)
    return type(module).__name__ == "Linear4bit" and bool(module.weight.dtype == torch.uint8)
