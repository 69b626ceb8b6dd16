"""What an answer costs by arm, and after how many answers the training has repaid itself against retrieval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tunewright.evaluation.measured import BASE, RAG, TUNED, Results
from tunewright.records import Record

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


def break_even(results: Results, seconds: dict[str, float]) -> BreakEven | None:
    """Return when the training is repaid; None where an arm or the training's time is not known.

    Args:
        results: of the exam.
        seconds: how long each stage took, by name.
    """
    rag, tuned = results.arm(RAG), results.arm(TUNED)
    if rag is None or tuned is None or "train" not in seconds:
        return None
    saved, made = rag.duration_s - tuned.duration_s, sum(seconds.get(name, 0.0) for name in _MAKING)
    spent = seconds["train"]
    return BreakEven(
        saved_s=saved,
        spent_s=spent,
        made_s=made,
        prompt_tokens=rag.num_prompt_tokens - tuned.num_prompt_tokens,
        answers=math.ceil(spent / saved) if saved > 0 else None,
        with_data=math.ceil((spent + made) / saved) if saved > 0 else None,
    )


def costs(results: Results, stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the view: each arm's tokens and seconds per answer beside the base's, the dollars told, the break-even."""
    base = results.arm(BASE)
    dollars = [stage["summary"].figures.get("cost_usd", 0) for stage in stages]
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
        "dollars": math.fsum(float(amount) for amount in dollars),
        "even": break_even(results, {s["stage"]: float(s["duration_s"]) for s in stages if "duration_s" in s}),
    }
