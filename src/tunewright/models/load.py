"""Loading the student: the frozen base in NF4 or 16/32 bit, and its LoRA adapter."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError
from tunewright.models.source import read_config

_FLOAT_BITS = {"float32": 32, "bfloat16": 16, "float16": 16}


def quiet_libraries() -> None:
    """Keep progress bars and advice of the model libraries off the user's screen; errors still raise."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|bitsandbytes")


def pick_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_dtype(device: str) -> Any:
    """Return the type to compute in: bf16 where the hardware has it, else fp32.

    A CPU without bf16 units runs bf16 products some forty times slower than fp32 ones.
    """
    import torch

    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def load_base(folder: Path, quantization: str, device: str, dtype: Any = None) -> Any:
    """Load the frozen base model.

    Args:
        folder: a local model folder.
        quantization: "nf4-double" (NF4 with quantized scales; Dettmers et al. 2023), "nf4", or "none".
        device: "cpu" or "cuda".
        dtype: type to compute in; picked from the hardware when None.

    Raises:
        ModelError: unknown architecture, damaged files, or a pickle-only checkpoint.
    """
    quiet_libraries()
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = dtype or compute_dtype(device)
    extra: dict[str, Any] = {}
    if quantization != "none":
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=quantization == "nf4-double",
            bnb_4bit_compute_dtype=dtype,
        )
    read_config(folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **extra,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"cannot load the base model in {folder}", reason[0], "run: tunewright doctor") from error
    model.config.use_cache = False
    model.requires_grad_(False)
    return model


def attach_adapter(model: Any, rank: int, alpha: float, dropout: float, targets: Sequence[str], seed: int) -> Any:
    """Put a fresh LoRA adapter (Hu et al. 2021) on the base; its weights are a pure function of the seed."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets[0] if len(targets) == 1 and targets[0] == "all-linear" else list(targets),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(
            "no layer of the model matches training.targets",
            str(error).splitlines()[0],
            'use targets = ["all-linear"]',
        ) from error


def load_adapter(model: Any, folder: Path) -> Any:
    """Put a saved adapter on the base, for inference."""
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        adapted = PeftModel.from_pretrained(model, folder, is_trainable=False)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"the adapter in {folder} does not fit the base model",
            str(error).splitlines()[0],
            "run the recipe on this run folder again: a damaged adapter is trained anew",
        ) from error
    adapted.eval()
    return adapted


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """Write an adapter in peft's format, for the base of that name; the same weights give the same bytes."""
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name  # not the folder of this machine's cache
    # peft keeps the targets in a set, whose order differs from process to process.
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def for_inference(model: Any) -> Any:
    """Return the base with NF4 weights expanded to the compute type once: the same numbers, no work per token.

    Only where memory allows it for certain (a CPU); on a GPU the 4-bit weights stay.
    """
    model.eval()
    if getattr(model, "is_loaded_in_4bit", False) and model.device.type == "cpu":
        return model.dequantize()
    return model
