"""Optional experiment trackers (W&B, TensorBoard, MLflow, trackio) through accelerate; none can stop a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.recipe import Recipe
from tunewright.training.metrics import Listener


def tracker(recipe: Recipe, folder: Path, phase: str) -> tuple[Listener, ...]:
    """Return a listener that logs each line of metrics to the recipe's tracker, or none.

    Files go to ``folder``/tracker; whether a tracker works offline is its own setting (such as WANDB_MODE=offline).
    Anything that goes wrong in a tracker is told once and ends the tracking, not the training.
    """
    name = recipe.training.tracker
    if not name:
        return ()
    try:
        accelerator = _accelerator(name, folder / "tracker" / phase)
    except Exception as error:
        console.warning(f"no tracking with {name}: {error or type(error).__name__}; the training goes on without")
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
            console.warning(f"tracking with {name} ended: {error}; the training goes on without")

    return (listen,)


def _accelerator(name: str, folder: Path) -> Any:
    from accelerate import Accelerator
    from accelerate.tracking import get_available_trackers

    if name not in [str(getattr(known, "value", known)) for known in get_available_trackers()]:
        raise RuntimeError(f"it is not installed (pip install {name})")
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(log_with=name, project_dir=folder)
    accelerator.init_trackers("tunewright")
    return accelerator
