"""What an answer costs by arm, and after how many answers the training has repaid itself against retrieval."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tunewright.errors import RunFolderError
from tunewright.evaluation.results import Results
from tunewright.html import figures
from tunewright.records import Record, StageSummary
from tunewright.reporting.data_statistics import teacher_use
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.statistics.intervals import duration, number, signed

Row = Mapping[str, Any]

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
)
_TIMES = {1: "once", 2: "twice"}
_ADVICE = re.compile(r"advice_(\d+)")


def training(run: RunFolder) -> list[dict[str, Any]] | None:
    """Return what the page shows of each phase that took a step, in the order of metrics.jsonl; None without any.

    Raises:
        RunFolderError: metrics.jsonl has a line that is no training step.
    """
    rows = metrics_rows(run)
    phases = {
        phase: [row for row in rows if row["phase"] == phase] for phase in dict.fromkeys(r["phase"] for r in rows)
    }
    return [_phase(phase, own) for phase, own in phases.items() if any(row["step"] for row in own)] or None


def metrics_rows(run: RunFolder) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl that the run ended with: a phase, a step, and what was measured there.

    Raises:
        RunFolderError: a line is no training step.
    """
    path = run.file(RunFile.METRICS)
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            told = json.loads(line)
            row = {"phase": str(told.get("phase", "sft")), "step": float(told["step"])}
            row |= {name: float(told[name]) for name in _VALUES if name in told}
            if row["step"] and "loss" not in row:
                raise ValueError("it has no loss")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError(f"{path} has a line that is no training step", str(error), "train again") from error
        rows.append(row)
    return rows


def _points(rows: Sequence[Row], name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]


def _phase(phase: str, rows: Sequence[Row]) -> dict[str, Any]:
    steps = [row for row in rows if row["step"]]
    title = _TITLES.get(phase, phase)
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


def _rewards(title: str, steps: Sequence[Row]) -> dict[str, Any] | None:
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


def plans(run: RunFolder) -> dict[str, dict[str, Any]] | None:
    """Return each phase's plan beside what came of it; None without plan.json.

    Raises:
        RunFolderError: plan.json does not hold plans.
    """
    path = run.file(RunFile.PLAN)
    if not path.is_file():
        return None
    try:
        return {phase: _scored(plan) for phase, plan in run.read_json(RunFile.PLAN).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{path} holds no plan of a training", str(error), "train again") from error


def _scored(plan: Row) -> dict[str, Any]:
    rows = []
    for name, key, told in (("memory", "bytes", _gib), ("time", "s", duration)):
        planned, measured = float(plan[f"planned_{key}"]), float(plan[f"measured_{key}"])
        if planned > 0 and measured > 0:
            off = f"{signed(100 * (measured / planned - 1), 0)}%"
            rows.append((name, told(planned), told(measured), off))
    halvings = int(plan["halvings"])
    # A lack of memory is met by half the micro-batch and, where that is one example already, by recomputing.
    memory = (
        f"memory ran out {_TIMES.get(halvings, f'{halvings} times')}; the copy of the base went, the micro-batch was "
        "halved or activations were recomputed, the result is the same"
        if halvings
        else "memory never ran out"
    )
    return {"rows": rows, "told": f"{plan['told']}; {plan['path']}; {memory}."}


def _gib(num_bytes: float) -> str:
    return f"{number(num_bytes / 2**30)} GiB"


def advice(summary: StageSummary | None) -> list[str]:
    """Return the sentences that the train stage left among its figures as advice_1, advice_2 and so on."""
    found = {name: _ADVICE.fullmatch(name) for name in (summary.figures if summary else {})}
    numbers = {name: int(match[1]) for name, match in found.items() if match}
    return [str(summary.figures[name]) for name in sorted(numbers, key=lambda name: numbers[name])] if summary else []


_MAKING = ("exam", "synth", "curate", "pairs")


class BreakEven(Record):
    """When tuning repays itself against RAG's longer prompts, in time on the machine that ran both.

    ``saved_s``: seconds that a tuned answer takes less than a RAG answer, in batches as the exam ran. ``spent_s``:
    seconds of training; ``made_s``: of writing the data before it. ``answers`` and ``with_data``: how many answers save
    as much, None where nothing is saved.
    """

    saved_s: float
    spent_s: float
    made_s: float
    prompt_tokens: float
    answers: int | None
    with_data: int | None


def break_even(results: Results, seconds: dict[str, float], steps_s: float = 0.0) -> BreakEven | None:
    """Return when the training is repaid; None where an arm or the training's time is not known.

    Args:
        results: of the exam.
        seconds: how long the last attempt at each stage took, by name.
        steps_s: how long all training steps took, those of earlier attempts too.
    """
    rag, tuned = results.arm(Arm.RAG), results.arm(Arm.TUNED)
    if rag is None or tuned is None or "train" not in seconds:
        return None
    saved, made = rag.duration_s - tuned.duration_s, sum(seconds.get(name, 0.0) for name in _MAKING)
    spent = max(seconds["train"], steps_s)
    return BreakEven(
        saved_s=saved,
        spent_s=spent,
        made_s=made,
        prompt_tokens=rag.num_prompt_tokens - tuned.num_prompt_tokens,
        answers=math.ceil(spent / saved) if saved > 0 else None,
        with_data=math.ceil((spent + made) / saved) if saved > 0 else None,
    )


def _steps_s(run: RunFolder) -> float:
    """Return the seconds of all steps that the adapter is made of; those that were done again count once."""
    rows = metrics_rows(run)
    return math.fsum(row.get("num_tokens", 0.0) / row["tokens_per_s"] for row in rows if row.get("tokens_per_s"))


def _dollars(run: RunFolder) -> float:
    """Return what all replies on record cost, those to earlier settings too: they were paid for."""
    journal = run.file(RunFile.TEACHER_JOURNAL)
    use = teacher_use(journal) if journal.is_file() else {}
    return math.fsum(values.get("US dollars", 0.0) for values in use.values())


def costs(run: RunFolder, results: Results, stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the view: each arm's tokens and seconds per answer beside the base's, the dollars paid, the break-even."""
    base = results.arm(Arm.BASE)
    seconds = {s["stage"]: float(s["duration_s"]) for s in stages if "duration_s" in s}
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
        "dollars": _dollars(run),
        "even": break_even(results, seconds, _steps_s(run)),
    }
