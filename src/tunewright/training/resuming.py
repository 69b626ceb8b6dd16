"""Going on after an interruption: the newest checkpoint of the same training, and Ctrl-C that ends a step first."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tunewright import console
from tunewright.errors import TrainingError, shell
from tunewright.parallel import Processes
from tunewright.training import checkpoint
from tunewright.training.capacity import Capacity


def require_same(folder: Path, identity: Mapping[str, Any]) -> checkpoint.Checkpoint | None:
    """Return the newest checkpoint of the training that ``identity`` names, or None.

    That of another training that had ended does not count.

    Raises:
        TrainingError: a damaged checkpoint, or one of an unfinished training with other settings; the differences are
            listed.
    """
    found = checkpoint.latest(folder)
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
        checkpoint.restore(found, model, optimizer)
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
