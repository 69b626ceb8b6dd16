"""A LoRA adapter alone as GGUF, to be put on the base model's own GGUF file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError
from tunewright.export.gguf_architectures import Place, architecture_of, place_of
from tunewright.export.gguf_file import Tensor, constant, write_file
from tunewright.models.load import is_full

Array = Any  # numpy.ndarray

_PART = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight$")


def write_gguf_adapter(adapter_folder: Path, model_config: Mapping[str, Any], out: Path, dtype: str) -> None:
    """Write the adapter as llama.cpp's adapter file: each matrix under its place's name, rows in llama.cpp's order.

    Args:
        adapter_folder: adapter_config.json and adapter_model.safetensors, as peft writes them.
        model_config: the base model's config.json.
        out: the file.
        dtype: of the matrices: "f16", or "f32", which rounds nothing.

    Raises:
        ModelError: the adapter is no plain LoRA (DoRA, a fully tuned model, trained embeddings), or is damaged;
            nothing is written.
        DiskFullError: no space; an older file of that name stands.
    """
    settings = _settings(adapter_folder)
    parts = _read_parts(adapter_folder)
    tensors = []
    for module, pair in sorted(parts.items()):
        place = place_of(f"{module}.weight", model_config)
        if place is None:
            raise _merge_instead("the adapter changes a vision tower", f"{module}; a GGUF holds the text model alone")
        tensors += _pair(place, pair, settings, dtype)
    fields = {
        "general.type": "adapter",
        "general.name": "tuned adapter",
        "adapter.type": "lora",
        # llama.cpp computes alpha / rank, so that the rank gives a scale of 1: each pair's own is in its B.
        "adapter.lora.alpha": float(settings["r"]),
        "general.quantization_version": 2,
    }
    write_file(out, architecture_of(model_config).name, fields, tensors)


def _merge_instead(what: str, why: str) -> ModelError:
    return ModelError(what, why, "export the whole model: tunewright export DIR --to gguf")


def _settings(folder: Path) -> dict[str, Any]:
    """Return the adapter's settings.

    Raises:
        ModelError: it is more than a plain LoRA.
    """
    if is_full(folder):
        raise _merge_instead(f"{folder} holds a fully tuned model, not an adapter", "there is nothing to put on a base")
    try:
        settings: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        int(settings["r"]), float(settings["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"cannot read {folder / 'adapter_config.json'}", str(error), "name the folder of an adapter that peft wrote"
        ) from error
    if settings.get("peft_type", "LORA") != "LORA" or settings.get("use_dora"):
        kind = "DoRA" if settings.get("use_dora") else settings["peft_type"]
        raise _merge_instead(f"llama.cpp has no adapters of the kind {kind}", "only plain LoRA can stand alone")
    if settings.get("bias", "none") != "none" or settings.get("alpha_pattern") or settings.get("rank_pattern"):
        raise _merge_instead("the adapter changes biases, or differs in rank from layer to layer", "GGUF has one rank")
    return settings


def _read_parts(folder: Path) -> dict[str, dict[str, Array]]:
    """Return the matrices A [rank, in] and B [out, rank] of each module, in fp32.

    Raises:
        ModelError: the file is damaged, or holds more than pairs.
    """
    from safetensors import SafetensorError, safe_open

    parts: dict[str, dict[str, Array]] = {}
    try:
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                found = _PART.match(name)
                if found is None:
                    raise _merge_instead("the adapter is more than pairs of matrices", f"it also trains {name}")
                parts.setdefault(found[1], {})[found[2]] = file.get_tensor(name).float().numpy()
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read the adapter in {folder}", str(error), "export the adapter again") from error
    halves = [module for module, pair in parts.items() if len(pair) != 2]
    if halves or not parts:
        cause = f"{halves[0]} has one matrix only" if halves else "it has no matrices"
        raise ModelError(f"the adapter in {folder} is not complete", cause, "export the adapter again")
    return parts


def _pair(place: Place, pair: Mapping[str, Array], settings: Mapping[str, Any], dtype: str) -> list[Tensor]:
    """Return a module's two tensors; the scale goes into B, whose rows take the order that the module's have."""
    rank = int(settings["r"])
    scale = float(settings["lora_alpha"]) / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    first, second = pair["A"], pair["B"] * scale
    if first.shape[0] != rank or second.shape[1] != rank:
        raise ModelError(
            "the adapter's matrices do not have its rank", f"{place.name}: {first.shape[0]}, not {rank}", "train again"
        )
    if place.order is not None:
        second = second[place.order]
    return [constant(f"{place.name}.lora_{half}", values, dtype) for half, values in (("a", first), ("b", second))]
