"""Bases whose files are already quantized: bitsandbytes' NF4 is trained as it is, any other is named and refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_PART = re.compile(r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+)$")
_NAMES = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "fp8": "fp8 blocks",
    "fbgemm_fp8": "fp8 (FBGEMM)",
    "mxfp4": "MXFP4",
    "nvfp4": "NVFP4",
    "modelopt": "ModelOpt",
    "hqq": "HQQ",
    "torchao": "torchao",
    "bitnet": "BitNet",
    "auto-round": "AutoRound",
}


def quantization_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model's config.json states of the quantization of its files; empty where they are not quantized."""
    texts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in texts:
        stated = part.get("quantization_config") or part.get("compression_config")
        if isinstance(stated, dict):
            return dict(stated)
    stated = config.get("quantization")  # as MLX writes it
    return {"quant_method": "MLX", **stated} if isinstance(stated, dict) else {}


def stored_nf4(config: Mapping[str, Any]) -> str:
    """Return the setting for a base whose files are in NF4: "nf4" or "nf4-double"; empty for any other."""
    stated = quantization_in(config)
    if not stated.get("load_in_4bit") or stated.get("bnb_4bit_quant_type") != "nf4":
        return ""
    return "nf4-double" if stated.get("bnb_4bit_use_double_quant") else "nf4"


def foreign_quantization(config: Mapping[str, Any]) -> str:
    """Return the name of a quantization that cannot be trained; empty where there is none, or where it is NF4."""
    stated = quantization_in(config)
    if not stated or stored_nf4(config):
        return ""
    method = str(stated.get("quant_method") or "")
    if stated.get("load_in_8bit"):
        return "bitsandbytes in 8 bit"
    if stated.get("load_in_4bit"):
        return f"bitsandbytes as {str(stated.get('bnb_4bit_quant_type', 'fp4')).upper()}"
    bits = stated.get("bits") or stated.get("w_bit")
    name = _NAMES.get(method.lower(), method) or "a method that config.json does not name"
    return f"{name} in {bits} bit" if isinstance(bits, int) else name


def is_state_of_quantization(name: str) -> bool:
    """Return whether a tensor of a folder is a part of another's quantization: its scales, its table, its shape."""
    return bool(_PART.search(name))


def shape_unpacked(files: Mapping[str, Path], name: str) -> list[int] | None:
    """Return the shape of a weight that is stored packed; None where it is stored plainly.

    Args:
        files: the file of each tensor, states of quantization included.
        name: of the weight.
    """
    state = _state_name(files, name)
    if state is None:
        return None
    return [int(size) for size in _read_json(files[state], state)["shape"]]


def unpacked(files: Mapping[str, Path], name: str, dtype: torch.dtype | None, device: str) -> torch.Tensor:
    """Return a weight [out, in] that is stored packed, in the type of the computation, on ``device``.

    Args:
        files: the file of each tensor, states of quantization included.
        name: of the weight.
        dtype: to unpack to; None takes the one that the file names.
        device: to unpack on.
    """
    import bitsandbytes as bnb
    from safetensors import safe_open

    parts: dict[str, Any] = {}
    for part in (name, *(other for other in files if other.startswith(f"{name}.") and is_state_of_quantization(other))):
        with safe_open(files[part], framework="pt", device=device) as weights:
            parts[part] = weights.get_tensor(part)
    packed = parts.pop(name)
    state = bnb.functional.QuantState.from_dict({key[len(name) + 1 :]: value for key, value in parts.items()}, device)
    state.dtype = dtype or state.dtype
    result: torch.Tensor = bnb.functional.dequantize_4bit(packed, state)
    return result


def _state_name(files: Mapping[str, Path], name: str) -> str | None:
    start = f"{name}.quant_state.bitsandbytes__"
    return next((other for other in (f"{start}nf4", f"{start}fp4") if other in files), None)


def _read_json(file: Path, name: str) -> dict[str, Any]:
    import json

    from safetensors import safe_open

    with safe_open(file, framework="numpy") as weights:
        content: dict[str, Any] = json.loads(bytes(weights.get_tensor(name)))
    return content


def compute_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Make a model whose files are in NF4 compute in this type, as one that is quantized while it loads does.

    transformers takes the type of the computation and of all other weights from the files.
    """
    import bitsandbytes as bnb

    stored = model.dtype
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.compute_dtype, module.compute_type_is_set = dtype, True
            module.weight.quant_state.dtype = dtype
    for value in model.parameters():
        if not isinstance(value, bnb.nn.Params4bit) and value.dtype == stored:
            value.data = value.data.to(dtype)
    model.config.dtype = dtype
