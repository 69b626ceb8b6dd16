"""The families of models that are trained and tested, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Layers:
    """A family's decoder layers, as the fast path of training computes them; names are those of transformers.

    A layer is attention with rotated heads and a gated MLP, each added to the stream. What differs between members of
    a family (windows, scales, soft caps, biases, rotation, norms of heads) is read from the model.

    Attributes:
        norms: before attention, after it, before the MLP, after it; "" where there is none.
        norm_offset: what is added to the weight of a norm.
        qkv: the linear layers of queries, keys and values, or the layer that holds all three.
        gate_up: the linear layers of the MLP's gate and its factor, or the layer that holds both.
        activation: the key of the gate's activation in the config, and its default.
        wide_head_norms: whether queries and keys are normed over all heads together.
        softcap: the key of the soft cap of attention's scores in the config.
        experts: the names of a sparse MLP and of its router; a layer without it has a dense MLP.
    """

    norms: tuple[str, str, str, str] = ("input_layernorm", "", "post_attention_layernorm", "")
    norm_offset: float = 0.0
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    gate_up: tuple[str, ...] = ("gate_proj", "up_proj")
    activation: tuple[str, str] = ("hidden_act", "silu")
    wide_head_norms: bool = False
    softcap: str = ""
    experts: tuple[str, str] | None = None

    def activation_of(self, shape: Mapping[str, Any]) -> str:
        """Return the name of the gate's activation in the config of a language model."""
        key, default = self.activation
        return str(shape.get(key) or default)


@dataclass(frozen=True)
class Family:
    """How a family differs from others in loading and training.

    Attributes:
        examples: well-known members.
        attention_layers: the linear layers of attention, for ``training.targets = ["attention"]``; () takes those of
            the modules that are named so.
        attention: the attention implementation of transformers that computes the family's attention exactly.
        no_adapter: pattern of modules that get no adapter, such as the vision tower of a multimodal model.
        unquantized: modules that stay as they are in a quantized base, since the model computes with their weights.
        nested: the key of the language model's config in that of a multimodal model.
        layers: how the fast path of training computes its layers; None where it cannot.
    """

    examples: str
    attention_layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    attention: str = "sdpa"
    no_adapter: str = ""
    unquantized: tuple[str, ...] = ()
    nested: str = ""
    layers: Layers | None = None


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a model's config.json; a kind without an entry of its own takes the plain path."""
    kind = str(config.get("model_type", ""))
    return FAMILIES.get(kind) or PLAIN_KINDS.get(kind) or replace(_OTHER, nested=_nested_in(config))


def shape_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the language model alone."""
    nested = family_of(config).nested
    return dict(config[nested]) if nested else dict(config)


def _nested_in(config: Mapping[str, Any]) -> str:
    return "text_config" if isinstance(config.get("text_config"), dict) else ""


def complete_shape_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the language model with all sizes; transformers fills in what the file omits.

    Published configs omit what equals the default: that of Gemma 3 4B has neither heads nor vocabulary.
    """
    shape = shape_of(config)
    if all(key in shape for key in _SIZES):
        return shape
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    values = {key: value for key, value in config.items() if key != "model_type"}
    try:
        whole = AutoConfig.for_model(str(config["model_type"]), **values)
    except (KeyError, ValueError, StrictDataclassError):
        return shape
    text = whole.get_text_config()
    named = {key: value for key in _SIZES if (value := getattr(text, key, None)) is not None}
    wide = next((value for key in _WIDTHS if (value := getattr(text, key, None))), 4 * named.get("hidden_size", 0))
    return {"intermediate_size": wide, **text.to_dict(), **named, **shape}


_WIDTHS = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")  # of the MLP; of most, four times the stream


_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "tie_word_embeddings",
)
ACTIVATIONS = ("silu", "gelu_pytorch_tanh")  # that the fast path computes

_LLAMA = Layers()
_GEMMA = Layers(
    norms=("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    norm_offset=1.0,
    activation=("hidden_activation", "gelu_pytorch_tanh"),
)

FAMILIES: Mapping[str, Family] = {
    "llama": Family("Llama 2, Llama 3.x, SmolLM2", layers=_LLAMA),
    "mistral": Family("Mistral-7B, Zephyr-7B, Mistral Small 3", layers=_LLAMA),
    "qwen2": Family("Qwen2, Qwen2.5", layers=_LLAMA),
    "qwen3": Family("Qwen3", layers=_LLAMA),
    # Gemma 2 caps its attention scores softly, which fused attention omits silently.
    "gemma2": Family("Gemma 2", attention="eager", layers=replace(_GEMMA, softcap="attn_logit_softcapping")),
    "gemma3_text": Family("Gemma 3 1B and smaller", layers=_GEMMA),
    "gemma3": Family(
        "Gemma 3 4B and larger",
        no_adapter=r".*(vision_tower|multi_modal_projector).*",
        nested="text_config",
        layers=_GEMMA,
    ),
    "phi3": Family(
        "Phi-3, Phi-4",
        attention_layers=("qkv_proj", "o_proj"),
        layers=Layers(qkv=("qkv_proj",), gate_up=("gate_up_proj",)),
    ),
    "qwen3_moe": Family("Qwen3-MoE, such as 30B-A3B", layers=Layers(experts=("mlp", "gate"))),
    "mixtral": Family("Mixtral", layers=Layers(experts=("mlp", "gate"))),
    "granitemoe": Family("Granite 3 MoE", layers=Layers(experts=("block_sparse_moe", "router"))),
    "smollm3": Family("SmolLM3", layers=_LLAMA),
    "granite": Family("Granite 3 and 4 (dense)", layers=_LLAMA),
    "olmo2": Family(
        "OLMo 2",
        layers=Layers(norms=("", "post_attention_layernorm", "", "post_feedforward_layernorm"), wide_head_norms=True),
    ),
}

_HEADS = ("q_proj", "k_proj", "v_proj", "o_proj")
_TOWER = "vision_tower|vision_model|visual|audio_tower|multi_modal_projector|embed_vision|embed_audio"
TOWERS = rf".*({_TOWER}).*"  # modules of multimodal models that text does not pass
# An indexer chooses tokens for sparse attention: no gradient passes its choice.
_OTHER = Family("other kinds", attention_layers=(), attention="", no_adapter=rf".*({_TOWER}|router|indexer).*")
_LINEAR_ATTENTION = (*_HEADS, "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj")

# Kinds that are tested on the plain path alone: transformers computes them. Where attention is "", it also chooses how.
PLAIN_KINDS: Mapping[str, Family] = {
    "qwen3_5_text": replace(_OTHER, examples="Qwen3.5 (text)", attention_layers=_LINEAR_ATTENTION),
    "qwen3_5": replace(_OTHER, examples="Qwen3.5", attention_layers=_LINEAR_ATTENTION, nested="text_config"),
    # Gemma 3n clamps these weights in place in each step of a training.
    "gemma3n_text": replace(_OTHER, examples="Gemma 3n (text)", unquantized=("prediction_coefs", "correction_coefs")),
    "gemma4_text": replace(_OTHER, examples="Gemma 4 (text)"),
    "gemma4": replace(_OTHER, examples="Gemma 4", nested="text_config"),
    "llama4_text": replace(_OTHER, examples="Llama 4 (text)"),
    "ministral3": replace(_OTHER, examples="Ministral 3"),
    "olmo3": replace(_OTHER, examples="OLMo 3"),
    "exaone4": replace(_OTHER, examples="EXAONE 4"),
    "lfm2": replace(_OTHER, examples="LFM2", attention_layers=("q_proj", "k_proj", "v_proj", "out_proj", "in_proj")),
    "glm4": replace(_OTHER, examples="GLM-4"),
    "cohere2": replace(_OTHER, examples="Command R7B, Command A"),
    "seed_oss": replace(_OTHER, examples="Seed-OSS"),
    # Its experts have biases and its attention sinks: it trains in 16 bit, with adapters on attention.
    "gpt_oss": replace(_OTHER, examples="gpt-oss"),
    "apertus": replace(_OTHER, examples="Apertus"),
    "arcee": replace(_OTHER, examples="Arcee AFM"),
}


def tested_kinds() -> str:
    """Return the kinds of models that are trained in tests, for messages."""
    return ", ".join([*FAMILIES, *PLAIN_KINDS])
