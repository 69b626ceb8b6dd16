"""Metrics: one JSON line per optimizer step, the note beside the progress bar, and optional trackers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.recipe import Recipe
from tunewright.storage import write_atomic

if TYPE_CHECKING:
    from accelerate import Accelerator


def tracker(recipe: Recipe, folder: Path, phase: str) -> tuple[Listener, ...]:
    """Return a listener that logs each line of metrics to the recipe's tracker; an empty tuple without a tracker.

    Files go to ``folder``/tracker. A tracker's own settings decide whether it works offline (such as
    WANDB_MODE=offline). An error in a tracker is reported once and ends the tracking, not the training.
    """
    name = recipe.training.tracker
    if not name:
        return ()
    try:
        accelerator = _accelerator(name, folder / "tracker" / phase)
    except Exception as error:
        console.warning(f"no tracking with {name}: {error or type(error).__name__}; the training continues without it")
        return ()
    broken: list[bool] = []

    def listen(row: dict[str, Any]) -> None:
        if broken:
            return
        try:
            values = {f"{phase}/{key}": value for key, value in row.items() if isinstance(value, int | float)}
            accelerator.log(values, step=int(row["step"]))
        except Exception as error:
            broken.append(True)
            console.warning(f"tracking with {name} ended: {error}; the training continues without it")

    return (listen,)


def _accelerator(name: str, folder: Path) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.tracking import get_available_trackers

    if name not in [str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()]:
        raise RuntimeError(f"it is not installed: pip install {name}")
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(log_with=name, project_dir=folder)
    accelerator.init_trackers("tunewright")
    return accelerator


Listener = Callable[[dict[str, Any]], None]


class MetricsLog:
    """The lines of one phase in metrics.jsonl; the lines of other phases in the same file stay.

    Args:
        file: the JSON-lines file.
        phase: the training that the lines belong to, "sft" or "dpo".
        writes: whether this process writes; of several processes only the first one does.
        flops_per_token: floating-point operations per trained token, for the share of the hardware's peak.
        peak_flops: the hardware's floating-point operations per second; 0 where unknown.
        listeners: called with every line.
    """

    def __init__(
        self,
        file: Path,
        phase: str = "sft",
        writes: bool = True,
        flops_per_token: float = 0.0,
        peak_flops: float = 0.0,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.file = file
        self.label = f"train {phase}"
        self._phase = phase
        self._writes = writes
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._listeners = listeners

    def keep_until(self, step: int) -> None:
        """Drop the phase's lines after ``step``, the checkpoint's: their steps are about to run again."""
        if self._writes:
            kept = [row for row in read_metrics(self.file) if row["phase"] != self._phase or row["step"] <= step]
            if step == 0:
                kept = [row for row in kept if row["phase"] != self._phase]
            write_atomic(self.file, "".join(json.dumps(row) + "\n" for row in kept).encode())

    def write(self, row: dict[str, Any]) -> None:
        """Append a line and pass it to the listeners."""
        if self._writes:
            row = {"phase": self._phase, **row}
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            for listen in self._listeners:
                listen(row)

    def note(self, row: dict[str, Any]) -> str:
        """Return the note beside the progress bar: loss, speed, share of the hardware's peak, memory."""
        parts = [f"loss {row['loss']:.3f}"]
        if "accuracy" in row:
            parts.append(f"chosen {row['accuracy']:.0%}")
        parts.append(f"{row['tokens_per_s']:,.0f} tok/s")
        if self._peak_flops and self._flops_per_token:
            share = row["tokens_per_s"] * self._flops_per_token / self._peak_flops
            parts.append(f"{share:.0%} of peak" if share >= 0.1 else f"{share:.1%} of peak")
        memory = gpu_peak_bytes()
        if memory:
            parts.append(f"{memory / 2**30:.1f} GiB")
        return "  ".join(parts)


def keep_phases(file: Path, phases: set[str]) -> None:
    """Drop the lines of phases that are no longer trained."""
    rows = read_metrics(file)
    kept = [row for row in rows if row["phase"] in phases]
    if len(kept) < len(rows):
        write_atomic(file, "".join(json.dumps(row) + "\n" for row in kept).encode())


def gpu_peak_bytes() -> int:
    """Return the peak of the memory that this process has reserved on its GPU; 0 without a GPU."""
    import torch

    return int(torch.cuda.max_memory_reserved()) if torch.cuda.is_available() else 0


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file, up to the first line that a crash cut short; empty without a file."""
    rows: list[dict[str, Any]] = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        try:
            rows.append({"phase": "sft", **json.loads(text)})
        except (ValueError, TypeError, RecursionError):
            break
    return rows
