"""Checkpoints: weights, optimizer and random state in safetensors and JSON only, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.distributed import Processes
from tunewright.errors import TrainingError, cause_of, shell
from tunewright.records import digest
from tunewright.storage import atomic_folder, disk_errors, file_digest
from tunewright.training.step_plan import Capacity

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

_STATE = "state.json"
_TENSORS = ("adapter.safetensors", "optimizer.safetensors", "rng.safetensors")
_NUM_KEPT = 2  # checkpoints of a phase; older ones are removed


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        path: its folder.
        step: optimizer steps done.
        total_steps: optimizer steps planned.
        settings: what the training depends on (data, settings, base).
        loop: what the loop learned on its way (the micro-batch that fits, the loss scale).
        numbers: the optimizer's plain numbers by "key/parameter".
    """

    path: Path
    step: int
    total_steps: int
    settings: dict[str, Any]
    loop: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


def trainable(model: PreTrainedModel) -> dict[str, Parameter]:
    """Return the trained parameters by name, in the order of the model."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _optimizer_state(model: PreTrainedModel, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the optimizer's tensors and plain numbers by "key/parameter"."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for name, parameter in trainable(model).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if hasattr(value, "detach"):
                tensors[f"{key}/{name}"] = value.detach().cpu().contiguous().clone()
            else:
                numbers[f"{key}/{name}"] = value
    return tensors, numbers


def random_state() -> dict[str, Tensor]:
    """Return the states of torch's generators by device (uint8), for ``set_random_state``."""
    import torch

    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Restore the states of torch's generators."""
    import torch

    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save(
    folder: Path,
    model: PreTrainedModel,
    optimizer: Optimizer,
    step: int,
    total_steps: int,
    settings: Mapping[str, Any],
    loop: Mapping[str, float],
) -> Path:
    """Write a checkpoint of the state after ``step`` optimizer steps; keep one older checkpoint, remove the rest.

    Raises:
        DiskFullError: no space; the earlier checkpoints are unchanged.
    """
    from safetensors.torch import save_file

    tensors, numbers = _optimizer_state(model, optimizer)
    groups = {
        "adapter.safetensors": {name: value.detach().cpu().contiguous() for name, value in trainable(model).items()},
        "optimizer.safetensors": tensors,
        "rng.safetensors": random_state(),
    }
    num_bytes = sum(tensor.nbytes for group in groups.values() for tensor in group.values())
    path = folder / f"step-{step:07d}"
    with disk_errors(path, num_bytes), atomic_folder(path) as target:
        for name, group in groups.items():
            save_file(group, target / name)
        state = {
            "step": step,
            "total_steps": total_steps,
            "settings": dict(settings),
            "loop": dict(loop),
            "numbers": numbers,
            "digests": {name: file_digest(target / name) for name in groups},
        }
        state["digest"] = digest(state)
        (target / _STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")
    for old in paths(folder)[:-_NUM_KEPT]:
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
    hint = f"remove it and run again, to continue from the checkpoint before it: {shell('rm', '-r', path)}"
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        if state.pop("digest") != digest(state):
            raise ValueError("its digest differs from the one on record")
        newest = Checkpoint(
            path,
            int(state["step"]),
            int(state["total_steps"]),
            dict(state["settings"]),
            dict(state["loop"]),
            dict(state["numbers"]),
        )
        digests = dict(state["digests"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(f"{path / _STATE} is damaged", cause_of(error), hint) from error
    for name in _TENSORS:
        file = path / name
        if not file.is_file():
            raise TrainingError(f"{file} is missing", "training cannot continue exactly without it", hint)
        if file_digest(file) != digests.get(name):
            raise TrainingError(f"{file} is damaged", "its digest differs from the one on record", hint)
    return newest


def _load(file: Path) -> dict[str, Tensor]:
    """Return a file's tensors; safetensors holds no code."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(file)
        return tensors
    except SafetensorError as error:
        raise TrainingError(
            f"{file} is not a safetensors file", str(error), f"remove it: {shell('rm', '-r', file.parent)}"
        ) from error


def load_weights(checkpoint: Checkpoint, model: PreTrainedModel) -> None:
    """Copy a checkpoint's trained weights into the model.

    Raises:
        TrainingError: the checkpoint belongs to another adapter.
    """
    import torch

    weights = _load(checkpoint.path / "adapter.safetensors")
    own = trainable(model)
    if set(weights) != set(own):
        raise TrainingError(f"{checkpoint.path} belongs to another adapter", "the names of the parameters differ")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def restore(checkpoint: Checkpoint, model: PreTrainedModel, optimizer: Optimizer) -> None:
    """Restore a checkpoint's weights, optimizer state and random state exactly."""
    load_weights(checkpoint, model)
    own = trainable(model)
    state: dict[str, dict[str, Tensor | float]] = {name: {} for name in own}
    for path, tensor in _load(checkpoint.path / "optimizer.safetensors").items():
        key, _, name = path.partition("/")
        # Unless it is fused, AdamW keeps its step count on the CPU; all other state is on the parameter's device.
        on_cpu = key == "step" and not optimizer.defaults.get("fused")
        state[name][key] = tensor if on_cpu else tensor.to(own[name].device)
    for path, number in checkpoint.numbers.items():
        key, _, name = path.partition("/")
        state[name][key] = number
    for name, parameter in own.items():
        if state[name]:
            optimizer.state[parameter] = state[name]
    set_random_state(_load(checkpoint.path / "rng.safetensors"))


def require_same(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Return the newest checkpoint of the training with this identity, or None.

    A checkpoint of another training that had finished does not count.

    Raises:
        TrainingError: the checkpoint is damaged, or belongs to an unfinished training with other settings; the
            differences are listed.
    """
    newest = latest(folder)
    if newest is None or newest.settings == dict(identity):
        return newest
    if newest.step == newest.total_steps:
        return None
    changed = [
        f"{key}: {newest.settings.get(key)!r} → {identity.get(key)!r}"
        for key in sorted(set(newest.settings) | set(identity))
        if newest.settings.get(key) != identity.get(key)
    ]
    raise TrainingError(
        f"{folder} holds an unfinished training with other settings",
        "\n  ".join(changed),
        f"restore the settings to continue it, or discard it: {shell('rm', '-r', folder)}",
    )


def make_room(folder: Path, identity: Mapping[str, Any], processes: Processes) -> None:
    """Remove the files of a finished training with other settings, and half-written checkpoints of a killed one."""
    other = require_same(folder, identity) is None
    processes.wait()  # all have read the folder before the first process removes anything
    if processes.is_first:
        for path in folder.glob("*") if other else folder.glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    processes.wait()


def resume(
    folder: Path,
    identity: Mapping[str, Any],
    model: PreTrainedModel,
    optimizer: Optimizer,
    capacity: Capacity,
    processes: Processes,
) -> tuple[int, Capacity]:
    """Restore the newest checkpoint; return the number of steps done, and the capacity to continue with.

    Raises:
        TrainingError: see ``require_same``.
    """
    newest = require_same(folder, identity)
    if newest is not None:
        restore(newest, model, optimizer)
        capacity = Capacity.from_dict(newest.loop).within(capacity)
        if newest.step < newest.total_steps:
            console.line(f"continuing after step {newest.step}, from {newest.path.name}")
    step = newest.step if newest else 0
    if processes.rank:  # the checkpoint holds the first process's random state, but dropout must differ per process
        import torch

        torch.manual_seed(hash((step, processes.rank)))
    return step, capacity


@contextmanager
def stop_signal(processes: Processes, device: str) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C was pressed, so that the current step can finish.

    A second Ctrl-C stops at once. With several processes, Ctrl-C in any of them stops all.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        console.line("stopping after this step (Ctrl-C again stops at once)")

    def stopping() -> bool:
        return not processes.all(not received, device)

    try:
        previous = signal.signal(signal.SIGINT, receive)
    except ValueError:  # not in the main thread: the caller's own handler stays
        yield stopping
        return
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGINT, previous)
