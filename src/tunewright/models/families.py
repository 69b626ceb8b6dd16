"""The families of models that are trained and tested, and the little that differs between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewright import console


@dataclass(frozen=True)
class Family:
    """What differs between families that are otherwise loaded and trained alike.

    Attributes:
        examples: well-known members.
        attention_layers: the linear layers of attention, for ``training.targets = ["attention"]``.
        attention: which of transformers' attention implementations computes the family's attention exactly.
        no_adapter: pattern of modules that never get an adapter, such as the vision tower of a multimodal model.
        like_llama: whether a layer is norm, attention with turned heads, norm, SiLU-gated MLP, each added to the
            stream: what the fast path of training computes.
        nested: the key under which a multimodal model's config keeps that of its language model.
    """

    examples: str
    attention_layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    attention: str = "sdpa"
    no_adapter: str = ""
    nested: str = ""
    like_llama: bool = False


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a model's config.json; one that is not listed is treated like Llama, with a warning."""
    kind = str(config.get("model_type", ""))
    if kind not in FAMILIES:
        console.warning(f"models of the kind {kind!r} are not tested here; tested are: {', '.join(FAMILIES)}")
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
    # Gemma 2 caps its attention scores softly, which fused attention leaves out without a word.
    "gemma2": Family("Gemma 2", attention="eager"),
    "gemma3_text": Family("Gemma 3 1B and smaller"),
    "gemma3": Family(
        "Gemma 3 4B and larger", no_adapter=r".*(vision_tower|multi_modal_projector).*", nested="text_config"
    ),
    "phi3": Family("Phi-3, Phi-4", attention_layers=("qkv_proj", "o_proj")),
}
