"""The families of models that are trained and tested, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewright import console


@dataclass(frozen=True)
class Family:
    """How a family differs from others in loading and training.

    Attributes:
        examples: well-known members.
        attention_layers: the linear layers of attention, for ``training.targets = ["attention"]``.
        attention: the attention implementation of transformers that computes the family's attention exactly.
        no_adapter: pattern of modules that get no adapter, such as the vision tower of a multimodal model.
        nested: the key of the language model's config in that of a multimodal model.
        like_llama: whether a layer is norm, attention with rotated heads, norm and SiLU-gated MLP, each added to the
            stream: what the fast path of training computes.
    """

    examples: str
    attention_layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    attention: str = "sdpa"
    no_adapter: str = ""
    nested: str = ""
    like_llama: bool = False


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a model's config.json; an unlisted family is treated as Llama, with a warning."""
    kind = str(config.get("model_type", ""))
    if kind not in FAMILIES:
        console.warning(f"models of the kind {kind!r} are untested; tested kinds: {', '.join(FAMILIES)}")
    return FAMILIES.get(kind, FAMILIES["llama"])


def shape_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the language model alone."""
    nested = FAMILIES.get(str(config.get("model_type", "")), FAMILIES["llama"]).nested
    return dict(config[nested]) if nested else dict(config)


FAMILIES: Mapping[str, Family] = {
    "llama": Family("Llama 2, Llama 3.x, SmolLM2", like_llama=True),
    "mistral": Family("Mistral-7B, Zephyr-7B", like_llama=True),
    "qwen2": Family("Qwen2, Qwen2.5", like_llama=True),
    "qwen3": Family("Qwen3", like_llama=True),
    # Gemma 2 caps its attention scores softly, which fused attention omits silently.
    "gemma2": Family("Gemma 2", attention="eager"),
    "gemma3_text": Family("Gemma 3 1B and smaller"),
    "gemma3": Family(
        "Gemma 3 4B and larger", no_adapter=r".*(vision_tower|multi_modal_projector).*", nested="text_config"
    ),
    "phi3": Family("Phi-3, Phi-4", attention_layers=("qkv_proj", "o_proj")),
}
