"""Conversions of single values: numbers, names, optimizers, schedules, data files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tunewright.importers.rules import Changed, Decision, NoCounterpart
from tunewright.run_folder import RunFile

HUB_DATA = "not a local .jsonl or .json file: save it as one and list it in {}"

OPTIMIZERS = {
    "adamw": "adamw",
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw_apex_fused": "adamw",
    "adamw_8bit": "adamw-8bit",
    "adamw_bnb_8bit": "adamw-8bit",
    "paged_adamw_8bit": "paged-adamw-8bit",
}
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant_with_warmup": "constant"}


def number(value: Any) -> float:
    """Return a finite number; YAML 1.1 reads 2e-4 as text."""
    try:
        result = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise NoCounterpart("not a number")
    return result


def whole(value: Any) -> int:
    """Return a whole number."""
    result = number(value)
    if result != int(result):
        raise NoCounterpart("not a whole number")
    return int(result)


def whole_epochs(value: Any) -> Any:
    """Return epochs, rounded up to a whole number."""
    epochs = number(value)
    if epochs <= 0:
        raise NoCounterpart("training needs at least one epoch; the recipe's default stays")
    up = math.ceil(epochs)
    return up if up == epochs else Changed(up, f"whole epochs only: {up}")


def share(value: Any) -> Any:
    """Return the held-out share."""
    result = number(value)
    if result >= 1:
        raise NoCounterpart("a number of samples; training.held_out_share is a share")
    return result if result <= 0.5 else Changed(0.5, "at most half of the samples")


def text(value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise NoCounterpart("not text")
    return value


def names(value: Any) -> tuple[str, ...]:
    """Return names from a list or a comma-separated text."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(item, str) and item.strip() for item in given):
        raise NoCounterpart("not a list of names")
    return tuple(text(item).strip() for item in given)


def targets(value: Any) -> Any:
    """Return the layers that get an adapter."""
    layers = names(value)
    return ("all-linear",) if set(layers) & {"all", "all-linear", "all_linear"} else layers


def optimizer(value: Any) -> Any:
    """Return the optimizer."""
    name = str(value)
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    if name == "paged_adamw_32bit":
        return Changed("adamw", "paged only in 8-bit; adamw is used")
    raise NoCounterpart("no such optimizer; adamw is used")


def schedule(value: Any) -> Any:
    """Return the schedule of the learning rate."""
    name = str(value)
    if name == "constant":
        return Changed("constant", "with a warm-up over training.warmup_share; set that to 0 for none")
    if name in SCHEDULES:
        return SCHEDULES[name]
    raise NoCounterpart("no such schedule; cosine is used")


def switch(kind: str) -> Any:
    """Return a conversion of a switch into this value; a switch that is off has no counterpart."""

    def convert(value: Any) -> str:
        if on(value):
            return kind
        raise NoCounterpart("off, which is the default")

    return convert


def compute(kind: str) -> Any:
    """Return a conversion of a switch such as ``bf16: true`` into the compute type."""
    convert = switch(kind)
    return lambda value: "auto" if value == "auto" else kind if value == "full" else convert(value)


def steps(value: Any) -> int:
    """Return the steps between checkpoints."""
    result = number(value)
    if result < 1 or result != int(result):
        raise NoCounterpart(
            "a share of the training; training.checkpoint_steps is a number of steps, and its default stays"
        )
    return int(result)


def on(value: Any) -> bool:
    """Return whether a switch is on, in any YAML spelling."""
    return value is True or str(value).lower() in ("true", "1", "yes", "on")


def batch(per_device: str, accumulation: str, packed: str = "") -> Any:
    """Return the decision on the batch size: per GPU in other trainers, samples per step over all GPUs in a recipe."""

    def decide(given: Mapping[str, Any]) -> Decision:
        sizes = {key: given[key] for key in (per_device, accumulation) if given.get(key) is not None}
        try:
            product = math.prod(whole(size) for size in sizes.values())
        except NoCounterpart as error:
            return Decision(remarks=dict.fromkeys(sizes, str(error)))
        result = Decision({"training.batch_size": product}, dict.fromkeys(sizes, ("training.batch_size",)))
        if packed and on(given.get(packed)):
            result.remarks[per_device] = (
                "it counts packed rows, training.batch_size counts samples: raise that to match"
            )
        return result

    return decide


def phase(rate: str, epochs: str, preference: Callable[[Mapping[str, Any]], bool]) -> Any:
    """Return the decision on learning rate and epochs, of supervised or of preference training."""

    def decide(given: Mapping[str, Any]) -> Decision:
        section, result = "preference" if preference(given) else "training", Decision()
        for key, name, read in ((rate, "learning_rate", number), (epochs, "epochs", whole_epochs)):
            if given.get(key) is None:
                continue
            try:
                value = read(given[key])
            except NoCounterpart as error:
                result.remarks[key] = str(error)
                continue
            if isinstance(value, Changed):
                result.remarks[key], value = value.why, value.value
            result.settings[f"{section}.{name}"] = value
            result.taken[key] = (f"{section}.{name}",)
        return result

    return decide


def merged_names(ours: str, *theirs: str) -> Any:
    """Return the decision on several lists of names that become one list."""

    def decide(given: Mapping[str, Any]) -> Decision:
        result = Decision()
        for key in theirs:
            try:
                listed = names(given[key]) if given.get(key) is not None else ()
            except NoCounterpart as error:
                result.remarks[key] = str(error)
                continue
            if listed:
                result.taken[key] = (ours,)
                result.settings[ours] = tuple(dict.fromkeys([*result.settings.get(ours, ()), *listed]))
        return result

    return decide


def method(*, full: bool, rslora: bool, dora: bool, quantization: str) -> dict[str, Any]:
    """Return the training method and the quantization; full training needs an unquantized base."""
    if full:
        return {"training.method": "full", "model.quantization": "none"}
    kind = "dora" if dora else "rslora" if rslora else "lora"
    return {"training.method": kind, "model.quantization": quantization}


def without_quantization(decision: Decision, *switches: str) -> Decision:
    """Return the decision; for full training, the quantization switches are listed as without a counterpart."""
    if decision.settings["training.method"] == "full":
        for key in switches:
            if decision.taken.pop(key, None):
                decision.remarks[key] = "all weights are trained, so the base is not quantized"
    return decision


def is_data_file(path: Any) -> bool:
    """Return whether this is a local file or folder from which chats or pairs can be read."""
    if not isinstance(path, str) or "://" in path or "\0" in path:
        return False
    return Path(path).suffix in (".json", ".jsonl") or (len(path) < 1024 and Path(path).is_dir())


def data(files: Iterable[str], preference: bool) -> dict[str, Any]:
    """Return the data settings: chats, or only preference pairs."""
    paths = tuple(dict.fromkeys(files))
    if preference:
        # A recipe without supervised training has to name pairs; a run reports that the file is missing.
        return {"preference.data": paths or (RunFile.PAIRS,), "training.epochs": 0}
    return {"synthesis.data": paths} if paths else {}
