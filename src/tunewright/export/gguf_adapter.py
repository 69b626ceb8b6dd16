"""A LoRA adapter alone as GGUF, to be put on the base model's own GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError
from tunewright.export.deltas import Deltas
from tunewright.export.gguf_architectures import architecture_of, place_of
from tunewright.export.gguf_file import Tensor, constant, write_file

_FIRST, _SECOND = ".lora_A", ".lora_B"  # [rank, in] and [out, rank]


def write_gguf_adapter(deltas: Deltas | None, model_config: Mapping[str, Any], out: Path, dtype: str) -> None:
    """Write the adapter as llama.cpp's adapter file: each matrix under its place's name, rows in llama.cpp's order.

    Args:
        deltas: the adapter; None of a fully tuned model, which has none.
        model_config: the base model's config.json.
        out: the file.
        dtype: of the matrices: "f16", or "f32", which rounds nothing.

    Raises:
        ModelError: the adapter is no plain LoRA (DoRA, a fully tuned model, trained embeddings); nothing is written.
        DiskFullError: no space; an older file of that name stands.
    """
    if deltas is None:
        raise _merge_instead("a fully tuned model has no adapter", "every weight was trained")
    tensors = [tensor for layer in sorted(deltas.layers) for tensor in _pair(deltas, layer, model_config, dtype)]
    fields = {
        "general.type": "adapter",
        "general.name": "tuned adapter",
        "adapter.type": "lora",
        # llama.cpp computes alpha / rank, so that the rank gives a scale of 1: each pair's own is in its B.
        "adapter.lora.alpha": float(deltas.rank),
        "general.quantization_version": 2,
    }
    write_file(out, architecture_of(model_config).name, fields, tensors)


def _merge_instead(what: str, why: str) -> ModelError:
    return ModelError(what, why, "export the whole model: tunewright export DIR --to gguf")


def _pair(deltas: Deltas, layer: str, model_config: Mapping[str, Any], dtype: str) -> list[Tensor]:
    """Return a layer's two tensors; the scale goes into B, whose rows take the order that the layer's have."""
    parts = deltas.layers[layer]
    if ".lora_magnitude_vector" in parts:
        raise _merge_instead("llama.cpp has no adapters of the kind DoRA", "only plain LoRA can stand alone")
    if ".token_adapter" in parts:
        raise _merge_instead("the adapter is more than pairs of matrices", f"it also trains rows of {layer}")
    module = parts[_FIRST].partition(_FIRST)[0].removeprefix("base_model.model.")
    place = place_of(f"{module}.weight", model_config)
    if place is None:
        raise _merge_instead("the adapter changes a vision tower", f"{module}; a GGUF holds the text model alone")
    first, second = deltas.read(layer, _FIRST).numpy(), deltas.read(layer, _SECOND).numpy() * deltas.scale
    if place.order is not None:
        second = second[place.order]
    return [constant(f"{place.name}.lora_{half}", values, dtype) for half, values in (("a", first), ("b", second))]
