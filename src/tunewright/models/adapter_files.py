"""The files of an adapter, checked before a library opens them: kind, settings, patterns, and no pickle."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError
from tunewright.models.capped_programs import ProgramError, check_patterns
from tunewright.models.model_files import unsafe_file

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_MAX_CONFIG_BYTES = 8 << 20
_MAX_RANK = 8192
# Settings of LoRA that name layers, sizes and scales, and change nothing but the arithmetic. All others import modules,
# open files or copy layers: they pass only where they are off.
_ALLOWED = frozenset(
    {
        "peft_type",
        "task_type",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "lora_alpha",
        "lora_dropout",
        "lora_bias",
        "bias",
        "fan_in_fan_out",
        "use_rslora",
        "use_dora",
        "init_lora_weights",
        "loftq_config",
        "target_modules",
        "exclude_modules",
        "target_parameters",
        "modules_to_save",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
        "trainable_token_indices",
        "ensure_weight_tying",
        "use_qalora",
        "qalora_group_size",
    }
)
_DEFAULTS = {"megatron_core": "megatron.core"}  # written by peft whether Megatron is used or not
_LITERAL = re.compile(r"[\w.-]*")
_HINT = "use an adapter that peft wrote for LoRA, DoRA or rsLoRA"


def check_adapter(folder: Path, layers: Sequence[str] = ()) -> None:
    """Refuse an adapter that could run code, or hang, in a library that loads it.

    Args:
        folder: in peft's format.
        layers: names of the base's modules, which its patterns are matched with; without them, patterns are not
            tried, for loaders that match none.

    Raises:
        ModelError: a file is a pickle, missing or none, or a setting or a pattern is not allowed.
    """
    fault = unsafe_file(folder) or _weights_fault(folder) or _config_fault(folder, layers)
    if fault:
        raise ModelError(f"cannot load the adapter in {folder}", fault, _HINT)


def _weights_fault(folder: Path) -> str:
    if (folder / WEIGHTS).is_file():
        return ""
    others = sorted(file.name for file in folder.glob("adapter_model.*"))
    if others:
        return f"{others[0]}: a pickle can run code, and only {WEIGHTS} is loaded"
    return f"{WEIGHTS} is missing"


def _config_fault(folder: Path, layers: Sequence[str]) -> str:
    file = folder / CONFIG
    try:
        if file.stat().st_size > _MAX_CONFIG_BYTES:
            return f"{CONFIG}: it has more than {_MAX_CONFIG_BYTES >> 20} MB"
        config = json.loads(file.read_bytes())
        if not isinstance(config, dict):
            return f"{CONFIG}: it holds no JSON object"
    except OSError as error:
        return f"{CONFIG}: {error.strerror}"
    except (ValueError, RecursionError):
        return f"{CONFIG}: not JSON"
    if config.get("peft_type") != "LORA":
        return f"{CONFIG}: peft_type is {config.get('peft_type')!r}, and only LORA is loaded"
    for key, value in config.items():
        if key not in _ALLOWED and value and value != _DEFAULTS.get(key) and not _is_harmless(key, value):
            return f"{CONFIG}: {key} is not a setting that is loaded"
    if not all(isinstance(rank, int) and 0 < rank <= _MAX_RANK for rank in _ranks(config)):
        return f"{CONFIG}: a rank is not a number from 1 to {_MAX_RANK:,}"
    patterns = [pattern for pattern in _patterns(config) if not _LITERAL.fullmatch(pattern)]
    try:
        if patterns and layers:
            check_patterns(patterns, layers)
    except ProgramError as error:
        return f"{CONFIG}: one of its patterns ({', '.join(patterns)[:200]}) cannot be used: {error}"
    return ""


def _is_harmless(key: str, value: Any) -> bool:
    """Return whether a setting is what peft writes of a model's class, which only its AutoPeftModel imports."""
    library = value.get("parent_library") if key == "auto_mapping" and isinstance(value, dict) else None
    return isinstance(library, str) and library.startswith("transformers.")


def _ranks(config: Mapping[str, Any]) -> Iterator[Any]:
    yield config.get("r")
    patterns = config.get("rank_pattern")
    yield from patterns.values() if isinstance(patterns, dict) else ()


def _patterns(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield every text that peft may take for a regular expression."""
    for key in ("target_modules", "exclude_modules"):  # lists are names
        if isinstance(config.get(key), str):
            yield config[key]
    for key in ("layers_pattern", "modules_to_save", "rank_pattern", "alpha_pattern"):
        value = config.get(key) or ()
        yield from (value,) if isinstance(value, str) else (text for text in value if isinstance(text, str))
