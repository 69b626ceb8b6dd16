"""Verdicts of arms with retention answers, without a model."""

from __future__ import annotations

from typing import Literal

from support.verdicts import ARMS, GOOD, answered
from tunewright.evaluation.rule import rule
from tunewright.evaluation.verdict import Verdict, decide
from tunewright.records import RetentionAnswer


def judge(
    answers_to_items: list[RetentionAnswer],
    means: dict[str, float] = GOOD,
    margin: float | None = 0.05,
    use: Literal["task", "assistant"] = "assistant",
) -> Verdict:
    scores, answers = answered(means)
    return decide(scores, answers, rule(0.10, ARMS, margin, use=use), 0, answers_to_items)
