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
from tunewright.errors import TrainingError
from tunewright.parallel import Processes
from tunewright.training import checkpoint
from tunewright.training.capacity import Capacity


def resume(
    folder: Path,
    identity: Mapping[str, Any],
    model: Any,
    optimizer: Any,
    capacity: Capacity,
    processes: Processes,
) -> tuple[int, Capacity]:
    """Restore the newest checkpoint; return the steps that it stands after, and the capacity in force.

    A finished training with other settings gives way to a new one; an unfinished one is refused.

    Raises:
        TrainingError: a damaged checkpoint, or one of a training with other settings; the differences are listed.
    """
    found = checkpoint.latest(folder)
    processes.wait()  # before the first process may remove anything
    if found is None:
        return 0, capacity
    if found.settings != dict(identity):
        if found.step == found.total_steps:  # that training had ended: nothing is lost by a new one
            if processes.is_first:
                shutil.rmtree(folder)
            return 0, capacity
        changed = [
            f"{key}: {found.settings.get(key)!r} → {identity.get(key)!r}"
            for key in sorted(set(found.settings) | set(identity))
            if found.settings.get(key) != identity.get(key)
        ]
        raise TrainingError(
            f"an unfinished training with other settings stands in {folder}",
            "\n  ".join(changed),
            f"set them back to go on with it, or give it up: rm -r '{folder}'",
        )
    checkpoint.restore(found, model, optimizer)
    if processes.rank:  # the checkpoint holds the first process's random state; dropout must differ between them
        import torch

        torch.manual_seed(hash((found.step, processes.rank)))
    if found.step < found.total_steps:
        console.line(f"going on after step {found.step}, from {found.path.name}")
    return found.step, Capacity.from_dict(found.loop)


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
