"""What quantizing does to a base: which layers it concerns, and the numbers that they then stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewright.models.load import quantization_config, quiet_libraries


def quantized_layers(folder: Path, quantization: str, dtype: Any) -> frozenset[str]:
    """Return the names of the layers that are loaded quantized, as transformers chooses them; nothing is loaded."""
    if quantization == "none":
        return frozenset()
    quiet_libraries()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.quantizers import AutoHfQuantizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    quantizer = AutoHfQuantizer.from_config(quantization_config(quantization, dtype), pre_quantized=False)
    quantizer.preprocess_model(model, device_map={"": "cpu"}, dtype=dtype)
    kinds = ("Linear4bit", "Linear8bitLt")
    return frozenset(name for name, module in model.named_modules() if type(module).__name__ in kinds)


def dequantized(weight: Any, quantization: str, device: str) -> Any:
    """Return a weight [out, in] in the numbers that it has once quantized, in its own type, on that device."""
    import bitsandbytes as bnb

    if quantization == "int8":
        quantized = bnb.nn.Int8Params(weight.contiguous(), requires_grad=False).to(device)
        return bnb.functional.int8_vectorwise_dequant(quantized.data, quantized.SCB)
    packed, state = bnb.functional.quantize_4bit(
        weight.contiguous().to(device), compress_statistics=quantization == "nf4-double", quant_type="nf4"
    )
    return bnb.functional.dequantize_4bit(packed, state)
