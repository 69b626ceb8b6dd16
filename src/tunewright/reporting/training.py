"""The report's sections on training: losses, plans, advice, the cost of an answer, and the break-even with RAG."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tunewright.evaluation.results import Results
from tunewright.html import figures
from tunewright.records import Record, StageSummary
from tunewright.settings import Arm
from tunewright.statistics.intervals import duration, number, signed

MetricsRow = Mapping[str, Any]

_TITLES = {"sft": "Supervised fine-tuning", "dpo": "Preferences (DPO)"}
_VALUES = (
    "loss",
    "held_out_loss",
    "num_tokens",
    "tokens_per_s",
    "chosen_reward",
    "rejected_reward",
    "margin",
    "accuracy",
    "divergence",
)
_TIMES = {1: "once", 2: "twice"}
_ADVICE_NAME = re.compile(r"advice_(\d+)")


def parse_metrics(text: str) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl: phase, step, and the values measured there.

    Raises:
        ValueError: a line is not a training step.
    """
    rows = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            row = {"phase": str(entry.get("phase", "sft")), "step": float(entry["step"])}
            row |= {name: float(entry[name]) for name in _VALUES if name in entry}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error
        if row["step"] and "loss" not in row:
            raise ValueError("it has no loss")
        rows.append(row)
    return rows


def training_phases(rows: Sequence[MetricsRow]) -> list[dict[str, Any]] | None:
    """Return the view of each phase that took a step, in the order of the rows; None without any."""
    phases = {
        phase: [row for row in rows if row["phase"] == phase] for phase in dict.fromkeys(r["phase"] for r in rows)
    }
    return [_phase(phase, own) for phase, own in phases.items() if any(row["step"] for row in own)] or None


def _points(rows: Sequence[MetricsRow], name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]


def _phase(phase: str, rows: Sequence[MetricsRow]) -> dict[str, Any]:
    steps = [row for row in rows if row["step"]]
    title = "Distillation from passages" if any("divergence" in row for row in rows) else _TITLES.get(phase, phase)
    loss, held_out = _points(steps, "loss"), _points(rows, "held_out_loss")
    lines = [figures.Line("training", loss)]
    label = f"{title}: training loss over {len(steps)} steps, from {loss[0][1]:.2f} to {loss[-1][1]:.2f}"
    if held_out:
        lines.append(figures.Line("held-out", held_out, "second", marked=True))
        label += f"; held-out loss from {held_out[0][1]:.2f} to {held_out[-1][1]:.2f}"
    return {
        "phase": phase,
        "title": title,
        "figure": figures.curve(lines, label, "step"),
        "num_steps": len(steps),
        "first": loss[0][1],
        "last": loss[-1][1],
        "held_out": held_out,
        "held_out_lowest": min(held_out, key=lambda point: point[1]) if held_out else None,
        "tokens_per_s": statistics.median(row.get("tokens_per_s", 0.0) for row in steps),
        "rewards": _rewards(title, steps),
    }


def _rewards(title: str, steps: Sequence[MetricsRow]) -> dict[str, Any] | None:
    chosen, rejected = _points(steps, "chosen_reward"), _points(steps, "rejected_reward")
    if not chosen or not rejected:
        return None
    label = f"{title}: reward of the chosen answers to {chosen[-1][1]:.2f}, of the rejected to {rejected[-1][1]:.2f}"
    lines = [figures.Line("chosen", chosen), figures.Line("rejected", rejected, "second")]
    return {
        "figure": figures.curve(lines, label, "step"),
        "margin": steps[-1].get("margin"),
        "accuracy": steps[-1].get("accuracy"),
    }


def plan_views(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the view of each phase's plan beside what was measured; ``content`` is that of plan.json.

    Raises:
        ValueError: the content is not a plan of each phase.
    """
    try:
        return {phase: _plan_view(plan) for phase, plan in content.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def _plan_view(plan: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for name, key, label in (("memory", "bytes", _gib), ("time", "s", duration)):
        planned, measured = float(plan[f"planned_{key}"]), float(plan[f"measured_{key}"])
        if planned > 0 and measured > 0:
            off = f"{signed(100 * (measured / planned - 1), 0)}%"
            rows.append((name, label(planned), label(measured), off))
    halvings = int(plan["halvings"])
    # Out of memory, the trainer halves the micro-batch and, at one example, recomputes activations.
    memory = (
        f"memory ran out {_TIMES.get(halvings, f'{halvings} times')}; the copy of the base was dropped, the "
        "micro-batch was halved or activations were recomputed; the result is the same"
        if halvings
        else "memory never ran out"
    )
    return {"rows": rows, "note": f"{plan['told']}; {plan['path']}; {memory}."}


def _gib(num_bytes: float) -> str:
    return f"{number(num_bytes / 2**30)} GiB"


def advice(summary: StageSummary | None) -> list[str]:
    """Return the advice of the train stage, which is among its figures as advice_1, advice_2 and so on."""
    if summary is None:
        return []
    matches = [match for name in summary.figures if (match := _ADVICE_NAME.fullmatch(name))]
    return [str(summary.figures[match[0]]) for match in sorted(matches, key=lambda match: int(match[1]))]


_DATA_STAGES = ("exam", "synth", "curate", "pairs")


class BreakEven(Record):
    """After how many answers tuning repays itself against RAG's longer prompts, in time on the same machine.

    ``saved_s``: seconds that a tuned answer takes less than a RAG answer, in batches as in the exam. ``spent_s``:
    seconds of training; ``made_s``: of writing exam and data. ``answers``: how many answers save as much as the
    training took, ``with_data``: as training and data took; None where nothing is saved.
    """

    saved_s: float
    spent_s: float
    made_s: float
    prompt_tokens: float
    answers: int | None
    with_data: int | None


def break_even(results: Results, seconds: Mapping[str, float], steps_s: float = 0.0) -> BreakEven | None:
    """Return the break-even; None where an arm or the time of the training is missing.

    Args:
        results: of the exam.
        seconds: duration of the last attempt at each stage, by name.
        steps_s: duration of all training steps, including earlier attempts.
    """
    rag, tuned = results.arm(Arm.RAG), results.arm(Arm.TUNED)
    if rag is None or tuned is None or "train" not in seconds:
        return None
    saved, made = rag.duration_s - tuned.duration_s, sum(seconds.get(name, 0.0) for name in _DATA_STAGES)
    spent = max(seconds["train"], steps_s)
    return BreakEven(
        saved_s=saved,
        spent_s=spent,
        made_s=made,
        prompt_tokens=rag.num_prompt_tokens - tuned.num_prompt_tokens,
        answers=math.ceil(spent / saved) if saved > 0 else None,
        with_data=math.ceil((spent + made) / saved) if saved > 0 else None,
    )


def _steps_s(rows: Sequence[MetricsRow]) -> float:
    """Return the seconds of all steps that the adapter rests on; repeated steps count once."""
    return math.fsum(row.get("num_tokens", 0.0) / row["tokens_per_s"] for row in rows if row.get("tokens_per_s"))


def _dollars(teacher_use: Mapping[str, Mapping[str, float]]) -> float:
    """Return the cost of all replies on record, including those to earlier settings: they were paid for."""
    return math.fsum(values.get("US dollars", 0.0) for values in teacher_use.values())


def costs(
    results: Results,
    durations_s: Mapping[str, float],
    rows: Sequence[MetricsRow],
    teacher_use: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Return the view: tokens and seconds per answer of each arm, the dollars paid, the break-even.

    Args:
        results: of the exam.
        durations_s: of the last attempt at each stage, by name.
        rows: of metrics.jsonl.
        teacher_use: as ``data_statistics.teacher_use`` returns it.
    """
    base = results.arm(Arm.BASE)
    return {
        "arms": [
            {
                "name": arm.arm,
                "prompt": arm.num_prompt_tokens,
                "answer": arm.num_tokens,
                "seconds": arm.duration_s,
                "times": arm.duration_s / base.duration_s if base and base.duration_s else None,
            }
            for arm in results.arms
        ],
        "dollars": _dollars(teacher_use),
        "even": break_even(results, durations_s, _steps_s(rows)),
    }
