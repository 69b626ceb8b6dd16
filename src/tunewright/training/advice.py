"""What a training's own figures say about its data, in plain words, with what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_FEW = 100
_TURNED = 1.02  # a held-out loss this much above its lowest has turned, beyond noise
_MOVED = 0.05  # share of its first value that a loss must fall by to count as learning


def advise(rows: Sequence[Mapping[str, Any]], num_examples: int) -> list[str]:
    """Return sentences on too little data, overfitting and no effect; none when all is well.

    Args:
        rows: the lines of metrics.jsonl.
        num_examples: what was trained on.
    """
    found = []
    if num_examples < _FEW:
        found.append(
            f"Only {num_examples} samples: fine-tuning rarely beats a few examples in the prompt below {_FEW}. "
            "Add documents, or raise synthesis.samples_per_document."
        )
    for phase in dict.fromkeys(row["phase"] for row in rows):
        own = [row for row in rows if row["phase"] == phase]
        section = "preference" if phase == "dpo" else "training"
        found += [sentence for sentence in (_overfit(own, section), _no_effect(own, section)) if sentence]
    return found


def _overfit(rows: Sequence[Mapping[str, Any]], section: str) -> str:
    held = [(float(row["epoch"]), float(row["held_out_loss"])) for row in rows if "held_out_loss" in row]
    if len(held) < 3:
        return ""
    best_epoch, best = min(held[1:], key=lambda item: item[1])
    last_epoch, last = held[-1]
    if best_epoch == last_epoch or last < best * _TURNED:
        return ""
    return (
        f"The held-out loss was lowest after epoch {best_epoch:.0f} ({best:.3f}) and rose to {last:.3f} by epoch "
        f"{last_epoch:.0f}: the later epochs learned the samples by heart. "
        f"Run again with --set {section}.epochs={best_epoch:.0f}, or add data."
    )


def _no_effect(rows: Sequence[Mapping[str, Any]], section: str) -> str:
    losses = [float(row["loss"]) for row in rows if "loss" in row]
    if len(losses) < 10:
        return ""
    part = max(1, len(losses) // 5)
    first, last = sum(losses[:part]) / part, sum(losses[-part:]) / part
    if last < first * (1 - _MOVED):
        return ""
    return (
        f"The training loss hardly moved ({first:.3f} to {last:.3f}): the adapter learned next to nothing. "
        f"Raise {section}.learning_rate or {section}.epochs, and look at what it was trained on."
    )
