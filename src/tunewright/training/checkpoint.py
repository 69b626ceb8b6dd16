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
from typing import Any

from tunewright import console
from tunewright.distributed import Processes
from tunewright.errors import TrainingError, shell
from tunewright.records import digest
from tunewright.storage import atomic_folder, disk_errors, file_digest
from tunewright.training.step_plan import Capacity

_STATE = "state.json"
_TENSORS = ("adapter.safetensors", "optimizer.safetensors", "rng.safetensors")
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: the optimizer steps done and planned, and what it was trained on.

    ``settings`` name what the training depends on; ``loop`` what the loop found out on its way (the micro-batch that
    fits, the loss scale).
    """

    path: Path
    step: int
    total_steps: int
    settings: dict[str, Any]
    loop: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


def trainable(model: Any) -> dict[str, Any]:
    """Return the trained parameters by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _optimizer_state(model: Any, optimizer: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the optimizer's tensors and plain numbers by "key/parameter"."""
    tensors: dict[str, Any] = {}
    numbers: dict[str, float] = {}
    for name, parameter in trainable(model).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if hasattr(value, "detach"):
                tensors[f"{key}/{name}"] = value.detach().cpu().contiguous().clone()
            else:
                numbers[f"{key}/{name}"] = value
    return tensors, numbers


def random_state() -> dict[str, Any]:
    """Return the state of torch's generators by device, for ``set_random_state``."""
    import torch

    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the generators back."""
    import torch

    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save(
    folder: Path,
    model: Any,
    optimizer: Any,
    step: int,
    total_steps: int,
    settings: Mapping[str, Any],
    loop: Mapping[str, float],
) -> Path:
    """Write a checkpoint of the state after ``step`` optimizer steps; older ones but the last are removed.

    Raises:
        DiskFullError: no space; the previous checkpoints stand.
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
    hint = f"remove the damaged checkpoint and run again, it goes on from the one before: {shell('rm', '-r', path)}"
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        if state.pop("digest") != digest(state):
            raise ValueError("its digest is not the one that was written")
        found = Checkpoint(
            path,
            int(state["step"]),
            int(state["total_steps"]),
            dict(state["settings"]),
            dict(state["loop"]),
            dict(state["numbers"]),
        )
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


def _load(file: Path) -> dict[str, Any]:
    """Return a file's tensors; safetensors holds nothing that could run."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Any] = load_file(file)
        return tensors
    except SafetensorError as error:
        raise TrainingError(
            f"{file} is not a safetensors file", str(error), f"remove it: {shell('rm', '-r', file.parent)}"
        ) from error


def load_weights(checkpoint: Checkpoint, model: Any) -> None:
    """Put a checkpoint's trained weights into the model.

    Raises:
        TrainingError: it holds the weights of another adapter.
    """
    import torch

    weights = _load(checkpoint.path / "adapter.safetensors")
    own = trainable(model)
    if set(weights) != set(own):
        raise TrainingError(f"{checkpoint.path} belongs to another adapter", "the parameters' names differ")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def restore(checkpoint: Checkpoint, model: Any, optimizer: Any) -> None:
    """Put a checkpoint's weights, optimizer state and random state back, exactly."""
    load_weights(checkpoint, model)
    own = trainable(model)
    state: dict[str, dict[str, Any]] = {name: {} for name in own}
    for path, tensor in _load(checkpoint.path / "optimizer.safetensors").items():
        key, _, name = path.partition("/")
        # Unless it is fused, AdamW keeps its step count on the CPU; everything else lives beside the parameter.
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
    """Return the newest checkpoint of the training that ``identity`` names, or None.

    That of another training that had ended does not count.

    Raises:
        TrainingError: a damaged checkpoint, or one of an unfinished training with other settings; the differences are
            listed.
    """
    found = latest(folder)
    if found is None or found.settings == dict(identity):
        return found
    if found.step == found.total_steps:
        return None
    changed = [
        f"{key}: {found.settings.get(key)!r} → {identity.get(key)!r}"
        for key in sorted(set(found.settings) | set(identity))
        if found.settings.get(key) != identity.get(key)
    ]
    raise TrainingError(
        f"an unfinished training with other settings stands in {folder}",
        "\n  ".join(changed),
        f"set them back to go on with it, or give it up: {shell('rm', '-r', folder)}",
    )


def make_room(folder: Path, identity: Mapping[str, Any], processes: Processes) -> None:
    """Remove what a finished training with other settings left, and what a kill left of a half-written checkpoint."""
    other = require_same(folder, identity) is None
    processes.wait()  # all have looked before the first one removes anything
    if processes.is_first:
        for path in folder.glob("*") if other else folder.glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    processes.wait()


def resume(
    folder: Path,
    identity: Mapping[str, Any],
    model: Any,
    optimizer: Any,
    capacity: Capacity,
    processes: Processes,
) -> tuple[int, Capacity]:
    """Restore the newest checkpoint; return the steps that it stands after, and the capacity in force.

    Raises:
        TrainingError: see ``require_same``.
    """
    found = require_same(folder, identity)
    if found is not None:
        restore(found, model, optimizer)
        capacity = Capacity.from_dict(found.loop).within(capacity)
        if found.step < found.total_steps:
            console.line(f"going on after step {found.step}, from {found.path.name}")
    step = found.step if found else 0
    if processes.rank:  # a checkpoint holds the first process's random state, and dropout must differ between them
        import torch

        torch.manual_seed(hash((step, processes.rank)))
    return step, capacity


@contextmanager
def stop_signal(processes: Processes, device: str) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed, so that the step under way can end.

    A second Ctrl-C stops at once. With several processes one that was asked stops all.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        console.line("stopping after this step (Ctrl-C again stops at once)")

    def stopping() -> bool:
        return not processes.all(not asked, device)

    try:
        previous = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not the main thread: the caller's own handling stays
        yield stopping
        return
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGINT, previous)
