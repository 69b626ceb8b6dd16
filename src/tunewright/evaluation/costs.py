"""What an answer costs by arm, and after how many answers the training has repaid itself against retrieval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tunewright.evaluation.data_funnel import teacher_use
from tunewright.evaluation.measured import BASE, RAG, TUNED, Results
from tunewright.evaluation.training_log import metrics_rows
from tunewright.records import Record
from tunewright.rundir import RunFolder

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
    rag, tuned = results.arm(RAG), results.arm(TUNED)
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
    journal = run.file("teacher.jsonl")
    use = teacher_use(journal) if journal.is_file() else {}
    return math.fsum(values.get("US dollars", 0.0) for values in use.values())


def costs(run: RunFolder, results: Results, stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the view: each arm's tokens and seconds per answer beside the base's, the dollars paid, the break-even."""
    base = results.arm(BASE)
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
