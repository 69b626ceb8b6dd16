"""Whether a loaded model is what the recipe asks for: each weight quantized, each target adapted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunewright.errors import ModelError
from tunewright.models.experts import PARAMETERS, expert_modules
from tunewright.settings import TrainingSettings

if TYPE_CHECKING:
    from torch.nn import Module

_QUANTIZED = ("Linear4bit", "Linear8bitLt")
_NUM_NAMED = 3


def check_coverage(model: Module, quantization: str, training: TrainingSettings, no_adapter: str = "") -> None:
    """Refuse a model of which a part that was to be quantized or adapted is not.

    Args:
        model: the base with its adapter.
        quantization: of the recipe.
        training: its method and targets.
        no_adapter: pattern of modules that get no adapter.

    Raises:
        ModelError: it names the parts.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if quantization != "none" and (missed := list(_unquantized(base))):
        raise ModelError(
            f"{_some(missed)} of the base would not be quantized",
            f"model.quantization is {quantization}, but {len(missed)} weights would stay in 16 bit",
            'set model.quantization = "none", or use another base',
        )
    if training.method != "full" and (missed := list(_unadapted(base, training, no_adapter))):
        raise ModelError(
            f"{_some(missed)} would get no adapter",
            f"training.targets is {', '.join(training.targets)}",
            'set training.targets = ["all-linear"] or ["attention"]',
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(names[:_NUM_NAMED]) + more


def _layers(base: Module) -> Iterator[tuple[str, Module]]:
    """Yield the modules of the text model's decoder layers."""
    body = base.model if hasattr(base, "model") else base
    body = getattr(body, "language_model", body)
    for number, layer in enumerate(getattr(body, "layers", ())):
        for name, module in layer.named_modules():
            yield f"layers.{number}.{name}".removesuffix(".base_layer"), module


def _unquantized(base: Module) -> Iterator[str]:
    from torch.nn import Linear

    skipped = ("lora_A", "lora_B")
    for name, module in _layers(base):
        if type(module) is Linear and not any(part in name for part in skipped):
            yield name
        for parameter in PARAMETERS:
            stored = module._parameters.get(parameter)
            if stored is not None and stored.dim() == 3:
                yield f"{name}.{parameter}"


def _unadapted(base: Module, training: TrainingSettings, no_adapter: str) -> Iterator[str]:
    """Yield what the targets name and no adapter covers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if training.targets == ("all-linear",):
        covered = {id(_innermost(module)) for _, module in _layers(base) if isinstance(module, BaseTunerLayer)}
        wrapped = {id(module) for _, module in _wrapped_parameters(base)}
        for name, module in _layers(base):
            linear = type(module).__name__ in (*_QUANTIZED, "Linear") and "lora_" not in name
            if no_adapter and re.fullmatch(no_adapter, name):
                continue
            if linear and not isinstance(module, BaseTunerLayer) and id(module) not in covered:
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
