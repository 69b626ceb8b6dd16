"""An adapter read from its file: what it adds to each layer, in fp32, one layer at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError

# What models are wrapped in differs between their files and their classes; what is left of a name is the same in both.
_WRAPPERS = frozenset({"base_model", "model", "language_model", "vision_model"})
_PARTS = (".lora_A", ".lora_B", ".lora_magnitude_vector", ".token_adapter")

_AS_IT_IS = "export the adapter itself: tunewright export DIR --to adapter"
_AGAIN = "train it again: tunewright run DIR/recipe.toml --dir DIR"

# Of peft's options, those that change what is computed and that no recipe sets: {option: its harmless values}.
_HARMLESS: Mapping[str, tuple[object, ...]] = {
    "alpha_pattern": ({}, None),
    "rank_pattern": ({}, None),
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "lora_bias": (False,),
    "modules_to_save": (None, []),
    "layer_replication": (None,),
    "target_parameters": (None, []),
    "use_qalora": (False,),
    "alora_invocation_tokens": (None,),
}


def place(name: str) -> str:
    """Return a layer's or a tensor's name without what the model is wrapped in."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


@dataclass(frozen=True)
class Deltas:
    """What an adapter does to a model's weights.

    Attributes:
        rank: of every pair of matrices.
        scale: what their product is multiplied with.
        layers: by the layer's place, its tensors' names by their part (".lora_A", ...).
        tokens: by the place of an embedding or a head, the rows that the adapter holds.
    """

    file: Path
    rank: int
    scale: float
    layers: Mapping[str, Mapping[str, str]]
    tokens: Mapping[str, tuple[int, ...]]

    @property
    def places(self) -> frozenset[str]:
        """The layers that the adapter changes."""
        return frozenset(self.layers)

    def apply(self, layer: str, weight: Any) -> Any:
        """Return a layer's weight [out, in] with the adapter merged in.

        LoRA: W + s·BA. DoRA: its rows scaled to the trained magnitudes, m·(W + s·BA)/‖W + s·BA‖.
        Embeddings: trained rows in place of the base's.

        Args:
            layer: the layer's place.
            weight: the base's weight in fp32, on the device to compute on.
        """
        parts = {part: self.read(layer, part).to(weight) for part in self.layers[layer]}
        if ".token_adapter" in parts:
            changed = weight.clone()
            changed[list(self.tokens[layer])] = parts[".token_adapter"]
            return changed
        merged = weight + self.scale * (parts[".lora_B"] @ parts[".lora_A"])
        if ".lora_magnitude_vector" in parts:
            merged *= (parts[".lora_magnitude_vector"] / merged.norm(dim=1))[:, None]
        return merged

    def read(self, layer: str, part: str) -> Any:
        """Return one of a layer's tensors in fp32."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as weights:
            return weights.get_tensor(self.layers[layer][part]).float()


def read_deltas(folder: Path) -> Deltas:
    """Read what an adapter in peft's format changes; its tensors are read when they are needed.

    Raises:
        ModelError: the adapter is of a kind that is not converted here, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / "adapter_model.safetensors"
    config = _config(folder)
    rank = int(config["r"])
    layers: dict[str, dict[str, str]] = {}
    try:
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no mapping)
                part = next((part for part in _PARTS if part in name), None)
                if part is None:
                    raise ModelError(f"{file} holds {name}", "it is no part of a LoRA adapter", _AS_IT_IS)
                layers.setdefault(place(name.partition(part)[0]), {})[part] = name
                if part == ".lora_A" and (found := weights.get_slice(name).get_shape()[0]) != rank:
                    raise ModelError(
                        "the adapter's matrices do not have its rank", f"{name}: {found}, not {rank}", _AGAIN
                    )
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read the adapter in {folder}", str(error), _AGAIN) from error
    halves = [layer for layer, parts in layers.items() if (".lora_A" in parts) != (".lora_B" in parts)]
    if halves or not layers:
        cause = f"{halves[0]} has one matrix only" if halves else "it has no matrices"
        raise ModelError(f"the adapter in {folder} is not complete", cause, _AGAIN)
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    rows = config.get("trainable_token_indices") or {}
    return Deltas(file, rank, scale, layers, {place(name): tuple(numbers) for name, numbers in rows.items()})


def _config(folder: Path) -> dict[str, Any]:
    """Return the adapter's settings.

    Raises:
        ModelError: they cannot be read, or ask for more than LoRA, DoRA and rows of tokens.
    """
    file = folder / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"cannot read {file}", str(error), _AGAIN) from error
    strange = [key for key, harmless in _HARMLESS.items() if key in config and config[key] not in harmless]
    strange += ["peft_type"] if config.get("peft_type") != "LORA" else []
    if strange:
        raise ModelError(
            f"the adapter in {folder} is of a kind that is not converted here",
            f"its {file.name} sets {', '.join(f'{key} = {config.get(key)!r}' for key in strange)}",
            _AS_IT_IS,
        )
    return config
