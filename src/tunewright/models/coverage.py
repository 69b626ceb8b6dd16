"""Whether a loaded model is what the recipe asks for: each weight quantized, each target adapted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.errors import ModelError
from tunewright.models.experts import PARAMETERS, expert_modules, trains_experts
from tunewright.models.families import TOWERS, family_of
from tunewright.models.loading import attach_adapter, is_linear, outline
from tunewright.settings import TrainingSettings

if TYPE_CHECKING:
    from torch.nn import Module

_QUANTIZED = ("Linear4bit", "Linear8bitLt")
_NUM_NAMED = 3


def check_outline(folder: Path, quantization: str, training: TrainingSettings) -> None:
    """Refuse a base of which a part would not be quantized or adapted, before its weights are loaded.

    Args:
        folder: of the base.
        quantization: of the recipe; "none" for a base whose files are quantized.
        training: its method and targets.

    Raises:
        ModelError: it names the parts.
    """
    import torch

    model = outline(folder, quantization, torch.float32)
    if training.method != "full":
        with torch.device("meta"):  # LoRA stands for DoRA, which reads the weights
            model = attach_adapter(model, training.model_copy(update={"method": "lora"}), 0)
    check_coverage(model, quantization, training, loaded=False)


def check_coverage(model: Module, quantization: str, training: TrainingSettings, loaded: bool = True) -> None:
    """Refuse a model of which a part that was to be quantized or adapted is not.

    Args:
        model: the base with its adapter.
        quantization: of the recipe.
        training: its method and targets.
        loaded: whether its weights are there; experts are quantized once they are.

    Raises:
        ModelError: it names the parts.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    kind = str(base.config.model_type)
    family = family_of(base.config.to_dict())
    if quantization != "none":
        stacked = loaded or not trains_experts(kind)
        missed = [name for name in _unquantized(base, stacked) if not name.endswith(family.unquantized or "/")]
        if missed:
            raise ModelError(
                f"{_some(missed)} of the base would not be quantized",
                f"model.quantization is {quantization}, but {len(missed)} weights would stay in 16 bit",
                'set model.quantization = "none", or use another base',
            )
    if training.method != "full" and (missed := list(_unadapted(base, training, family.no_adapter))):
        attention = ["attention"] if training.targets == ("all-linear",) else ["all-linear"]
        raise ModelError(
            f"{_some(missed)} would get no adapter",
            f"training.targets is {', '.join(training.targets)}",
            f"set training.targets = {json.dumps(attention)}",
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(names[:_NUM_NAMED]) + more


def _layers(base: Any) -> Iterator[tuple[str, Module]]:
    """Yield the modules of the text model beside its embedding and its head."""
    outside = [base.get_input_embeddings(), base.get_output_embeddings()]
    skipped = {id(part) for layer in outside if layer is not None for part in layer.modules()}
    for name, module in base.named_modules():
        if id(module) not in skipped and "lora_" not in name and not re.fullmatch(TOWERS, name):
            yield name.removesuffix(".base_layer"), module


def _stacked(module: Module) -> list[str]:
    """Return the parameters of a module that hold the matrices of several experts."""
    if "Conv" in type(module).__name__:
        return []
    own = module._parameters.items()
    return [name for name, value in own if value is not None and value.dim() == 3 and min(value.shape[1:]) > 1]


def _unquantized(base: Module, stacked: bool) -> Iterator[str]:
    for name, module in _layers(base):
        if is_linear(module) and type(module).__name__ not in _QUANTIZED:
            yield name
        if stacked:
            yield from (f"{name}.{parameter}" for parameter in _stacked(module))


def _unadapted(base: Module, training: TrainingSettings, no_adapter: str) -> Iterator[str]:
    """Yield what the targets name and no adapter covers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if training.targets == ("all-linear",):
        covered = {id(_innermost(module)) for _, module in _layers(base) if isinstance(module, BaseTunerLayer)}
        wrapped = {id(module) for _, module in _wrapped_parameters(base)}
        for name, module in _layers(base):
            if no_adapter and re.fullmatch(no_adapter, name):
                continue
            missed = is_linear(module) and not isinstance(module, BaseTunerLayer) and id(module) not in covered
            if missed or (_stacked(module) and id(module) not in wrapped):
                yield name
        yield from (name for name, module in expert_modules(base) if id(module) not in wrapped)
    elif training.targets != ("attention",):
        names = [name for name, module in base.named_modules() if isinstance(module, BaseTunerLayer)]
        for target in training.targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                yield target


def _innermost(module: Module) -> Module:
    while hasattr(module, "base_layer"):
        module = module.base_layer
    return module


def _wrapped_parameters(base: Module) -> Iterator[tuple[str, Module]]:
    """Yield each module of experts all of whose parameters peft has wrapped."""
    wrappers: dict[int, set[str]] = {}
    modules: dict[int, Module] = {}
    for _, module in base.named_modules():
        if hasattr(module, "parameter_name"):
            inner = _innermost(module)
            wrappers.setdefault(id(inner), set()).add(module.parameter_name)
            modules[id(inner)] = inner
    for key, names in wrappers.items():
        if names == set(PARAMETERS):
            yield "", modules[key]
