"""Values of other trainers' settings in the terms of a recipe: numbers, names, optimizers, schedules, data files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tunewright.importers.rules import Changed, Decision, Unlike
from tunewright.run_folder import RunFile

HUB_DATA = "no .jsonl or .json file of this machine: save it as one and name it in {}"

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
        told = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        told = math.nan
    if not math.isfinite(told):
        raise Unlike("not a number")
    return told


def whole(value: Any) -> int:
    """Return a whole number."""
    told = number(value)
    if told != int(told):
        raise Unlike("not a whole number")
    return int(told)


def passes(value: Any) -> Any:
    """Return epochs: whole passes, at least one."""
    told = number(value)
    if told <= 0:
        raise Unlike("no pass over the data is no training; ours stays")
    up = math.ceil(told)
    return up if up == told else Changed(up, f"whole passes only: {up}")


def share(value: Any) -> Any:
    """Return the share that is held out."""
    told = number(value)
    if told >= 1:
        raise Unlike("a count of samples; training.held_out_share is a share of them")
    return min(told, 0.5) if told <= 0.5 else Changed(0.5, "half of the samples at most")


def text(value: Any) -> str:
    """Return text."""
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise Unlike("not text")
    return value


def names(value: Any) -> tuple[str, ...]:
    """Return names, of a list or with commas between them."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(item, str) and item.strip() for item in given):
        raise Unlike("not a list of names")
    return tuple(text(item).strip() for item in given)


def targets(value: Any) -> Any:
    """Return the layers that get an adapter."""
    told = names(value)
    return ("all-linear",) if set(told) & {"all", "all-linear", "all_linear"} else told


def optimizer(value: Any) -> Any:
    """Return the optimizer, or AdamW where there is no such one."""
    name = str(value)
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    if name == "paged_adamw_32bit":
        return Changed("adamw", "paged in 8 bit alone: adamw instead")
    raise Unlike("no such optimizer: adamw instead")


def schedule(value: Any) -> Any:
    """Return the schedule of the learning rate, or cosine where there is no such one."""
    name = str(value)
    if name == "constant":
        return Changed("constant", "here it rises over training.warmup_share first: set that to 0 for none")
    if name in SCHEDULES:
        return SCHEDULES[name]
    raise Unlike("no such schedule: cosine instead")


def switch(kind: str) -> Any:
    """Return a conversion of a switch into the value that it stands for; off, it stands for none."""

    def told(value: Any) -> str:
        if on(value):
            return kind
        raise Unlike("off, as when it is not named")

    return told


def compute(kind: str) -> Any:
    """Return a conversion of a switch such as ``bf16: true`` into the compute type."""
    told = switch(kind)
    return lambda value: "auto" if value == "auto" else kind if value == "full" else told(value)


def steps(value: Any) -> int:
    """Return steps between checkpoints."""
    told = number(value)
    if told < 1 or told != int(told):
        raise Unlike("steps are counted, not shares of a training; training.checkpoint_steps stays")
    return int(told)


def on(value: Any) -> bool:
    """Return whether a switch is on, written in any of YAML's ways."""
    return value is True or str(value).lower() in ("true", "1", "yes", "on")


def batch(per_device: str, accumulation: str, packed: str = "") -> Any:
    """Return the decision on the batch: theirs is per GPU, ours is the samples of one step over all of them."""

    def decide(given: Mapping[str, Any]) -> Decision:
        sizes = {key: given[key] for key in (per_device, accumulation) if given.get(key) is not None}
        try:
            product = math.prod(whole(size) for size in sizes.values())
        except Unlike as error:
            return Decision(remarks=dict.fromkeys(sizes, str(error)))
        result = Decision({"training.batch_size": product}, dict.fromkeys(sizes, ("training.batch_size",)))
        if packed and on(given.get(packed)):
            result.remarks[per_device] = "theirs counts packed rows, ours samples: raise training.batch_size to match"
        return result

    return decide


def phase(rate: str, epochs: str, preference: Callable[[Mapping[str, Any]], bool]) -> Any:
    """Return the decision on rate and passes: of the supervised training, or of the preferences alone."""

    def decide(given: Mapping[str, Any]) -> Decision:
        section, result = "preference" if preference(given) else "training", Decision()
        for key, name, read in ((rate, "learning_rate", number), (epochs, "epochs", passes)):
            if given.get(key) is None:
                continue
            try:
                told = read(given[key])
            except Unlike as error:
                result.remarks[key] = str(error)
                continue
            if isinstance(told, Changed):
                result.remarks[key], told = told.why, told.value
            result.settings[f"{section}.{name}"] = told
            result.taken[key] = (f"{section}.{name}",)
        return result

    return decide


def united(ours: str, *theirs: str) -> Any:
    """Return the decision on lists of names that become one."""

    def decide(given: Mapping[str, Any]) -> Decision:
        result = Decision()
        for key in theirs:
            try:
                told = names(given[key]) if given.get(key) is not None else ()
            except Unlike as error:
                result.remarks[key] = str(error)
                continue
            if told:
                result.taken[key] = (ours,)
                result.settings[ours] = tuple(dict.fromkeys([*result.settings.get(ours, ()), *told]))
        return result

    return decide


def method(*, full: bool, rslora: bool, dora: bool, quantization: str) -> dict[str, Any]:
    """Return what is trained, on what kind of base; whole weights move only unquantized."""
    if full:
        return {"training.method": "full", "model.quantization": "none"}
    kind = "dora" if dora else "rslora" if rslora else "lora"
    return {"training.method": kind, "model.quantization": quantization}


def without_quantization(decision: Decision, *switches: str) -> Decision:
    """Return the decision with the switches that quantize listed, where every weight is trained."""
    if decision.settings["training.method"] == "full":
        for key in switches:
            if decision.taken.pop(key, None):
                decision.remarks[key] = "every weight is trained: the base is not quantized"
    return decision


def is_data_file(path: Any) -> bool:
    """Return whether it is a file or folder of this machine that chats or pairs can be read from."""
    if not isinstance(path, str) or "://" in path or "\0" in path:
        return False
    return Path(path).suffix in (".json", ".jsonl") or (len(path) < 1024 and Path(path).is_dir())


def data(files: Iterable[str], preference: bool) -> dict[str, Any]:
    """Return where the data goes: chats to train on, or pairs alone."""
    found = tuple(dict.fromkeys(files))
    if preference:
        # A recipe without supervised training has to name pairs; until they lie there, a run says that they do not.
        return {"preference.data": found or (RunFile.PAIRS,), "training.epochs": 0}
    return {"synthesis.data": found} if found else {}
