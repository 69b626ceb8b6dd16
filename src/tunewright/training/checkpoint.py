"""Checkpoints: adapter, optimizer and random state in safetensors and JSON only, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import TrainingError
from tunewright.rundir import atomic_folder, disk_errors, file_digest

_STATE = "state.json"
_TENSORS = ("adapter.safetensors", "optimizer.safetensors", "rng.safetensors")
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: the optimizer steps done and planned, and what it was trained on."""

    path: Path
    step: int
    total_steps: int
    settings: dict[str, Any]


def trainable(model: Any) -> dict[str, Any]:
    """Return the trained parameters by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _optimizer_tensors(optimizer: Any) -> dict[str, Any]:
    state = optimizer.state_dict()["state"]
    return {f"{number}.{key}": value for number, entry in state.items() for key, value in entry.items()}


def _rng_tensors() -> dict[str, Any]:
    import torch

    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors


def save(folder: Path, model: Any, optimizer: Any, step: int, total_steps: int, settings: Mapping[str, Any]) -> Path:
    """Write a checkpoint of the state after ``step`` optimizer steps; older ones but the last are removed.

    Raises:
        DiskFullError: no space; the previous checkpoints stand.
    """
    from safetensors.torch import save_file

    groups = {
        "adapter.safetensors": {name: value.detach().cpu().contiguous() for name, value in trainable(model).items()},
        "optimizer.safetensors": _optimizer_tensors(optimizer),
        "rng.safetensors": _rng_tensors(),
    }
    num_bytes = sum(tensor.nbytes for group in groups.values() for tensor in group.values())
    path = folder / f"step-{step:07d}"
    with disk_errors(path, num_bytes), atomic_folder(path) as target:
        for name, tensors in groups.items():
            save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, target / name)
        state = {"step": step, "total_steps": total_steps, "settings": dict(settings)}
        state["digests"] = {name: file_digest(target / name) for name in groups}
        (target / _STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")
    for old in paths(folder)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def paths(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / _STATE).is_file())


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint, checked against its digests, or None.

    Raises:
        TrainingError: a file is missing or a byte differs; the file is named.
    """
    complete = paths(folder)
    if not complete:
        return None
    path = complete[-1]
    hint = f"remove the damaged checkpoint and run again, it goes on from the one before: rm -r '{path}'"
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        found = Checkpoint(path, int(state["step"]), int(state["total_steps"]), dict(state["settings"]))
        digests = dict(state["digests"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path / _STATE} is damaged", str(error), hint) from error
    for name in _TENSORS:
        file = path / name
        if not file.is_file():
            raise TrainingError(f"{file} is missing", "training cannot go on exactly without it", hint)
        if file_digest(file) != digests.get(name):
            raise TrainingError(f"{file} is damaged", "its digest is not the one that was written", hint)
    return found


def restore(checkpoint: Checkpoint, model: Any, optimizer: Any) -> None:
    """Put a checkpoint's weights, optimizer state and random state back, exactly."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(checkpoint.path / "adapter.safetensors")
    own = trainable(model)
    if set(weights) != set(own):
        raise TrainingError(f"{checkpoint.path} belongs to another adapter", "the parameters' names differ")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in load_file(checkpoint.path / "optimizer.safetensors").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    rng = load_file(checkpoint.path / "rng.safetensors")
    torch.set_rng_state(rng["cpu"])
    if "cuda" in rng and torch.cuda.is_available():
        torch.cuda.set_rng_state(rng["cuda"])
