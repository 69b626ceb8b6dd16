"""Experts of sparse MLPs: three-dimensional parameters, which are quantized and adapted apart from linear layers."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunewright.errors import ModelError
from tunewright.models.families import FAMILIES, shape_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from tunewright.recipe import Recipe

PARAMETERS = ("gate_up_proj", "down_proj")
# The keys of a config that count a layer's experts, those of a token, and the width of an expert.
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_WIDTHS = ("moe_intermediate_size", "intermediate_size")


def num_experts(shape: Mapping[str, Any]) -> int:
    """Return the experts of a sparse layer by the config of a language model; 0 for a dense model."""
    return next((int(shape[key]) for key in _COUNTS if shape.get(key)), 0)


def expert_width(shape: Mapping[str, Any]) -> int:
    """Return the width of an expert."""
    return next(int(shape[key]) for key in _WIDTHS if shape.get(key))


def trains_experts(kind: str) -> bool:
    """Return whether the experts of a kind of models are quantized and adapted."""
    layers = FAMILIES[kind].layers if kind in FAMILIES else None
    return layers is not None and layers.experts is not None


def expert_modules(model: Module) -> Iterator[tuple[str, Module]]:
    """Yield each module that holds experts, by its name in the model."""
    for name, module in model.named_modules():
        if all(_holds(module, parameter) for parameter in PARAMETERS):
            yield name, module


def _holds(module: Module, name: str) -> bool:
    """Return whether a module holds a parameter itself; one that is quantized is not unpacked for it."""
    parameter = module._parameters.get(name)
    return name in getattr(module, "parametrizations", {}) or (parameter is not None and parameter.dim() == 3)


def expert_targets(model: Module) -> list[str]:
    """Return the names by which peft adapts the experts' parameters; none for a dense model."""
    ends = {".".join(name.split(".")[-2:]) for name, _ in expert_modules(model)}
    return [f"{end}.{parameter}" for end in sorted(ends) for parameter in PARAMETERS]


def check_experts(recipe: Recipe, config: Mapping[str, Any]) -> None:
    """Refuse a base of experts that cannot be trained as a recipe says, before anything of it is loaded.

    Args:
        recipe: its model and training sections.
        config: the base's config.json.

    Raises:
        ModelError: it names what cannot be done.
    """
    if not num_experts(shape_of(config)):
        return
    kind = str(config.get("model_type", ""))
    if cause := _obstacle(recipe, trains_experts(kind), kind):
        raise ModelError(f"{recipe.model.base} is a mixture of experts, and cannot be trained so", *cause)


def _obstacle(recipe: Recipe, trained: bool, kind: str) -> tuple[str, str] | None:
    """Return why not, and what to change; ``trained``: whether experts of this kind are quantized and adapted."""
    training, quantization = recipe.training, recipe.model.quantization
    if quantization == "int8":
        return "experts are quantized to NF4 only, not to int8", 'set model.quantization = "nf4-double"'
    if quantization != "none" and not trained:
        return f"experts of the kind {kind!r} are not quantized", 'set model.quantization = "none"'
    if recipe.model.sharded and quantization != "none":
        return "quantized experts are not spread over several GPUs", "set model.sharded = false"
    if recipe.model.fp8:
        return "8-bit gradients do not cover experts", "set model.fp8 = false"
    if training.method == "full" or training.targets == ("attention",):
        return None
    attention = 'set training.targets = ["attention"]'
    if not trained:
        return f"experts of the kind {kind!r} get no adapter", attention
    if training.method == "dora":
        return "experts are adapted by LoRA only, not by DoRA", f"{attention}, or training.method"
    if training.dropout:
        return "the adapters of experts have no dropout", f"{attention}, or training.dropout = 0"
    parts = {"gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3"} & set(training.targets)
    if parts:
        return f"experts are adapted as a whole, not {sorted(parts)[0]} alone", 'set training.targets = ["all-linear"]'
    return None


def packed_parameter(module: Module, name: str) -> tuple[Tensor, Any]:
    """Return a parameter as it is stored, and its quantization state; None for one that is not quantized."""
    parametrizations = getattr(module, "parametrizations", {})
    if name not in parametrizations:
        return getattr(module, name), None
    stored = parametrizations[name]
    return stored.original, stored[0].quant_state


@contextmanager
def adapting(model: Module) -> Iterator[None]:
    """Let peft see quantized experts as plain parameters while it puts an adapter on the model.

    It would look for quantized ones under other names, wrap them in another order, and so write an adapter that fits
    no base in 16 bit; and it would compute them without the adapter of their first product, which torch's cache of
    parametrizations hides (peft 0.21). So the parameters that it sees are empty ones of the right shape, which take no
    memory, and the outer wrapper computes the experts itself.
    """
    import torch

    replaced = []
    for name, module in list(expert_modules(model)):
        states = [packed_parameter(module, parameter) for parameter in PARAMETERS]
        if any(state is None for _, state in states):
            continue
        stand_in = torch.nn.Module()
        stand_in.is_transposed = getattr(module, "is_transposed", False)
        for parameter, (weight, state) in zip(PARAMETERS, states, strict=True):
            value = torch.empty((), dtype=state.dtype, device=weight.device).expand(state.shape)
            setattr(stand_in, parameter, torch.nn.Parameter(value, requires_grad=False))
        parent_name, _, key = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        setattr(parent, key, stand_in)
        replaced.append((parent, key, stand_in, module))
    try:
        yield
    finally:
        for parent, key, stand_in, module in replaced:
            holder, inner_key = parent, key
            while (inner := getattr(holder, inner_key)) is not stand_in:
                holder, inner_key = inner, "base_layer"
            setattr(holder, inner_key, module)
            if holder is not parent and hasattr(outer := getattr(parent, key), "parameter_name"):
                outer.__class__ = _wrapper_class()


@functools.cache
def _wrapper_class() -> type:
    """Return peft's wrapper of a parameter, for quantized experts; peft recognizes it by its name."""
    from peft.tuners.lora.layer import ParamWrapper

    return type("ParamWrapper", (ParamWrapper,), {"forward": _adapted_forward})


def wrapped_experts(outer: Module) -> tuple[Module, dict[str, Any]]:
    """Return the module of experts inside peft's wrappers, and the wrapper of each parameter."""
    wrappers: dict[str, Any] = {}
    while hasattr(outer, "parameter_name"):
        wrappers[outer.parameter_name] = outer
        outer = outer.base_layer
    return outer, wrappers


def _adapted_forward(outer: Module, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums of the experts' outputs [T, h], one expert after the other.

    Args:
        outer: the outer of peft's two wrappers.
        x: tokens, [T, h].
        chosen: experts of each token, [T, c].
        weights: of each choice, [T, c].
    """
    import torch

    experts, wrappers = wrapped_experts(outer)
    gate_up, down = (getattr(experts, name) for name in PARAMETERS)
    out = torch.zeros_like(x)
    for number in chosen.unique().tolist():
        tokens, choices = torch.where(chosen == number)
        own = x[tokens]
        gate, up = _product(own, gate_up[number], wrappers[PARAMETERS[0]], number).chunk(2, dim=-1)
        own = _product(experts.act_fn(gate) * up, down[number], wrappers[PARAMETERS[1]], number)
        out.index_add_(0, tokens, (own * weights[tokens, choices, None]).to(out.dtype))
    return out


def _product(x: Tensor, weight: Tensor, wrapper: Any, number: int) -> Tensor:
    """Return ``x`` [t, k] times an expert's weight [n, k] with its adapters."""
    import torch

    out = torch.nn.functional.linear(x, weight.to(x.dtype))
    for name in [] if wrapper.disable_adapters else wrapper.active_adapters:
        if name in wrapper.lora_A:
            rank = wrapper.r[name]
            down = wrapper.lora_A[name].weight[number * rank : (number + 1) * rank]
            up = wrapper.lora_B[name].weight.unflatten(1, (rank, -1))[:, :, number]
            inner = torch.nn.functional.linear(x.to(down.dtype), down)
            out = out + (torch.nn.functional.linear(inner, up) * wrapper.scaling[name]).to(out.dtype)
    return out


def quantize_experts(model: Module, quantization: str, device: str) -> None:
    """Quantize the experts of a model to NF4, one parameter at a time, on ``device``.

    Blocks of scales do not cross experts: an expert holds a multiple of their 64 weights.
    """
    import torch
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    for _, module in list(expert_modules(model)):
        for name in PARAMETERS:
            parameter = getattr(module, name)
            setattr(module, name, torch.nn.Parameter(parameter.data.to(device), requires_grad=False))
            replace_parameter_4bit(module, name, quantization == "nf4-double", "nf4", 64)
