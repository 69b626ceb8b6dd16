"""llama.cpp's names for model families, their settings and tensors, and how its layout differs from transformers'."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tunewright.errors import ModelError
from tunewright.models.families import FAMILIES, shape_of

Config = Mapping[str, Any]
Array = Any  # numpy.ndarray

_OTHER_TOWERS = ("vision_tower", "multi_modal_projector")


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp stores a family.

    Attributes:
        name: llama.cpp's.
        interleaved: whether the rows of the query and key projections pair neighbors for the rotary embedding, where
            transformers pairs the halves of a head.
        norm_offset: added to the weights of norms: Gemma's norms compute with 1 + weight.
        alternating: one layer of so many attends to the whole text; 0 where all do.
        check: raises ModelError on a config that llama.cpp would run differently.
    """

    name: str
    interleaved: bool = False
    norm_offset: float = 0.0
    alternating: int = 0
    check: Callable[[Config], None] = lambda config: None


@dataclass(frozen=True)
class TensorMapping:
    """A tensor's name in llama.cpp, the order of its rows there (None: unchanged), and what is added to its values."""

    name: str
    order: Array | None = None
    offset: float = 0.0


def refuse(what: str, why: str) -> ModelError:
    """Return the error for a model that llama.cpp computes differently from the training."""
    return ModelError(what, why, "export merged weights instead: tunewright export DIR --to merged")


def architecture_of(config: Config) -> Architecture:
    """Return how llama.cpp stores the model of this config.json.

    Raises:
        ModelError: llama.cpp has no such family, or computes this member of it differently.
    """
    kind = str(config.get("model_type", ""))
    if kind not in ARCHITECTURES:
        raise refuse(
            f"models of the kind {kind!r} are not written as GGUF", f"the kinds are: {', '.join(ARCHITECTURES)}"
        )
    architecture = ARCHITECTURES[kind]
    architecture.check(shape_of(config))
    return architecture


def mapping_of(name: str, config: Config) -> TensorMapping | None:
    """Return a tensor's mapping to llama.cpp; None for tensors that a text-only GGUF leaves out (a vision tower).

    Raises:
        ModelError: llama.cpp has no such tensor.
    """
    if any(tower in name for tower in _OTHER_TOWERS):
        return None
    architecture, shape = architecture_of(config), shape_of(config)
    plain = re.sub(r"^(model\.language_model\.|language_model\.model\.)", "model.", name)
    plain = re.sub(r"^language_model\.lm_head\.", "lm_head.", plain)
    names = _names(architecture.name, int(shape["num_hidden_layers"]))
    mapped = names.get_name(plain, try_suffixes=(".weight", ".bias"))
    if mapped is None:
        raise refuse(f"llama.cpp has no tensor for {name}", f"in models of the kind {architecture.name}")
    order = None
    if architecture.interleaved and (projection := re.search(r"self_attn\.([qk])_proj\.", plain)):
        heads = int(shape["num_attention_heads"])
        if projection[1] == "k":
            heads = int(shape.get("num_key_value_heads") or heads)
        order = _interleaved(heads, head_dim(shape))
    return TensorMapping(mapped, order, architecture.norm_offset if plain.endswith("norm.weight") else 0.0)


@lru_cache(maxsize=4)
def _names(architecture: str, num_layers: int) -> Any:
    """Return the gguf package's map of tensor names."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    number = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture)
    return get_tensor_name_map(number, num_layers)


def _interleaved(num_heads: int, dim: int) -> Array:
    """Return the order of rows that alternates each head's first and second half."""
    import numpy as np

    return np.arange(num_heads * dim).reshape(num_heads, 2, dim // 2).swapaxes(1, 2).reshape(-1)


def head_dim(shape: Config) -> int:
    """Return the width of an attention head."""
    return int(shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"])


def rope_of(shape: Config) -> dict[str, Any]:
    """Return the settings of the rotary embedding from a config of an old or a new transformers."""
    rope = dict(shape.get("rope_parameters") or shape.get("rope_scaling") or {})
    rope = dict(rope.get("full_attention") or rope)
    rope.setdefault("rope_theta", shape.get("rope_theta", 10000.0))
    rope["rope_type"] = str(rope.get("rope_type") or rope.get("type") or "default")
    return rope


def context_length(config: Config) -> int:
    """Return the number of tokens up to which llama.cpp computes as transformers does.

    Where the family has a sliding window that llama.cpp does not apply (Llama's and Phi-3's), this is the window. Of
    LongRoPE's two sets of factors, llama.cpp takes the long one if the context has room for long texts, transformers
    if the text itself is long: so the context is limited to short texts.
    """
    shape = shape_of(config)
    length = int(shape["max_position_embeddings"])
    rope = rope_of(shape)
    if rope["rope_type"] == "longrope":
        length = min(length, _original_length(rope, shape))
    window = shape.get("sliding_window")
    used = shape.get("use_sliding_window", True)
    if window and used and not architecture_of(config).alternating:
        return min(length, int(window))
    return length


def settings_of(config: Config) -> dict[str, Any]:
    """Return the model's settings under llama.cpp's names."""
    architecture, shape = architecture_of(config), shape_of(config)
    heads, dim, rope = int(shape["num_attention_heads"]), head_dim(shape), rope_of(shape)
    settings = {
        "block_count": int(shape["num_hidden_layers"]),
        "context_length": context_length(config),
        "embedding_length": int(shape["hidden_size"]),
        "feed_forward_length": int(shape["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(shape.get("num_key_value_heads") or heads),
        "attention.key_length": dim,
        "attention.value_length": dim,
        "attention.layer_norm_rms_epsilon": float(shape["rms_norm_eps"]),
        "rope.dimension_count": int(dim * float(rope.get("partial_rotary_factor") or 1.0)),
        "rope.freq_base": float(rope["rope_theta"]),
        **_scaling(rope, shape),
    }
    if architecture.alternating:
        settings["attention.sliding_window"] = int(shape["sliding_window"])
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if shape.get(name):
            settings[name] = float(shape[name])
    return {f"{architecture.name}.{name}": value for name, value in settings.items()}


def _scaling(rope: Config, shape: Config) -> dict[str, Any]:
    """Return the settings that stretch the rotary embedding to longer texts."""
    kind = rope["rope_type"]
    if kind in ("default", "llama3"):  # the latter is a tensor of its own
        return {}
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn" and not any(rope.get(name) for name in ("mscale", "mscale_all_dim", "attention_factor")):
        original = rope.get("original_max_position_embeddings") or shape["max_position_embeddings"] / rope["factor"]
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope["factor"]),
            "rope.scaling.original_context_length": int(original),
        }
    if kind == "longrope":
        original = _original_length(rope, shape)
        scale = shape["max_position_embeddings"] / original
        factor = rope.get("attention_factor") or math.sqrt(1 + math.log(scale) / math.log(original))
        return {
            "rope.scaling.original_context_length": original,
            "rope.scaling.attn_factor": float(factor if scale > 1 else 1.0),
        }
    raise refuse(f"the rotary embedding of type {kind!r} is not written as GGUF", "llama.cpp scales it differently")


def _original_length(rope: Config, shape: Config) -> int:
    return int(rope.get("original_max_position_embeddings") or shape["original_max_position_embeddings"])


def extra_tensors(config: Config) -> Iterator[tuple[str, Array]]:
    """Yield the tensors that transformers computes from the config: the rotary embedding's factors."""
    import numpy as np

    shape = shape_of(config)
    rope = rope_of(shape)
    if rope["rope_type"] == "longrope":
        for name in ("long", "short"):
            yield f"rope_factors_{name}.weight", np.asarray(rope[f"{name}_factor"], dtype=np.float32)
    if rope["rope_type"] == "llama3":
        yield "rope_freqs.weight", _llama3_factors(rope, head_dim(shape))


def _llama3_factors(rope: Config, dim: int) -> Array:
    """Return the divisor of each frequency: 1 for short waves, the factor for long waves, a blend between."""
    import numpy as np

    original = rope["original_max_position_embeddings"]
    waves = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    blend = np.clip((original / waves - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - blend) / rope["factor"] + blend)).astype(np.float32)


def _check_gemma(config: Config, every: int, scaled_by_width: frozenset[int]) -> None:
    """Check the settings that llama.cpp takes from the family and not from the file.

    Args:
        config: the language model's.
        every: one layer of so many attends to the whole text.
        scaled_by_width: the numbers of layers of the models whose scores are scaled by the width per head.
    """
    layers, heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
    expected = config["hidden_size"] / heads if layers in scaled_by_width else head_dim(config)
    if config.get("query_pre_attn_scalar", expected) != expected:
        raise refuse("llama.cpp scales this model's attention differently", f"it takes {expected:g} for its size")
    pattern = ["sliding_attention" if (n + 1) % every else "full_attention" for n in range(layers)]
    if list(config.get("layer_types") or pattern) != pattern:
        raise refuse("llama.cpp orders this model's layers differently", f"it has one full layer in {every}")


def _check_gemma2(config: Config) -> None:
    _check_gemma(config, 2, frozenset({46}))


def _check_gemma3(config: Config) -> None:
    _check_gemma(config, 6, frozenset({62}))
    local = dict((config.get("rope_parameters") or {}).get("sliding_attention") or {})
    if float(local.get("rope_theta") or config.get("rope_local_base_freq") or 10000.0) != 10000.0:
        raise refuse("llama.cpp rotates this model's local layers differently", "it uses a base of 10000 there")


def _check_phi3(config: Config) -> None:
    if head_dim(config) * int(config["num_attention_heads"]) != int(config["hidden_size"]):
        raise refuse("llama.cpp has no Phi-3 with heads of this width", "they must fill the hidden size")


_LLAMA = Architecture("llama", interleaved=True)

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "gemma2": Architecture("gemma2", norm_offset=1.0, alternating=2, check=_check_gemma2),
    "gemma3_text": Architecture("gemma3", norm_offset=1.0, alternating=6, check=_check_gemma3),
    "gemma3": Architecture("gemma3", norm_offset=1.0, alternating=6, check=_check_gemma3),
    "phi3": Architecture("phi3", check=_check_phi3),
}
assert set(ARCHITECTURES) <= set(FAMILIES)
