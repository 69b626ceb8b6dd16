"""Several finished runs on the same exam, such as one for each base: scores, costs, differences, and people's marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from tunewright.evaluation.measurement import holm_adjusted, paired_difference
from tunewright.evaluation.results import ArmResult, Difference
from tunewright.evaluation.verdict import Verdict
from tunewright.records import Answer, Mark, Score, digest
from tunewright.settings import Arm
from tunewright.statistics.agreement import Game, Strength
from tunewright.statistics.intervals import duration, number, signed, spread


@dataclass(frozen=True)
class MarkedRun:
    """The marks of a run, the two arms that they compare, and the run's answers."""

    arms: tuple[str, str]
    marks: Sequence[Mark]
    answers: Sequence[Answer]


@dataclass(frozen=True)
class LeaderboardEntry:
    """A finished run under a unique name.

    Attributes:
        base: the recipe's base model.
        scores: of all arms.
        plans: content of plan.json, by phase.
        marked: None where there are no marks of the present answers.
    """

    name: str
    base: str
    verdict: Verdict
    scores: Sequence[Score]
    plans: Mapping[str, Mapping[str, Any]]
    marked: MarkedRun | None


def differences(entries: Sequence[LeaderboardEntry]) -> list[Difference]:
    """Return the paired differences between all tuned models, with Holm's correction over all of them."""
    scores = {
        entry.name: {score.question: score for score in entry.scores if score.arm == Arm.TUNED} for entry in entries
    }
    compared = []
    for first, second in combinations(scores, 2):
        if scores[first] and scores[second]:
            difference = paired_difference(scores[first], scores[second], lambda score: score.primary, "primary", 0.95)
            if difference:
                compared.append(difference.model_copy(update={"first": first, "second": second}))
    return holm_adjusted(compared)


def games(entries: Sequence[LeaderboardEntry]) -> list[Game]:
    """Return the marks of all runs as games; the same base model is one player in all runs.

    Bases are the same when they gave the same answers: what a recipe says of its base may be incomplete.
    """
    played, bases = [], dict[str, str]()
    for entry in entries:
        if entry.marked is None:
            continue
        texts = sorted((answer.question, answer.text) for answer in entry.marked.answers if answer.arm == Arm.BASE)
        names: dict[str, str] = {
            Arm.TUNED: entry.name,
            Arm.BASE: bases.setdefault(digest(texts), f"{Arm.BASE} of {entry.name}"),
        }
        first, second = entry.marked.arms
        sides = [names.get(arm, f"{entry.name} {arm}") for arm in (first, second)]
        for mark in entry.marked.marks:
            if mark.repeat or mark.choice == "cannot tell":
                continue
            share = 0.5 if mark.winner is None else float(mark.winner == first)
            played.append(Game(first=sides[0], second=sides[1], share=share, cluster=mark.document))
    return played


def score_table(entries: Sequence[LeaderboardEntry]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: scores, gain and verdict of each run."""
    rows = []
    for entry in entries:
        results = entry.verdict.results
        gain = results.difference(Arm.TUNED, Arm.BASE)
        rows.append(
            [
                entry.name,
                Path(entry.base).name,
                *(_score(results.arm(arm)) for arm in (Arm.BASE, Arm.TUNED)),
                f"{signed(gain.interval.mean)} ({spread(gain.interval)})" if gain else "–",
                entry.verdict.name,
            ]
        )
    return ["run", "base model", "base (95%)", "tuned (95%)", "gain (95%)", "verdict"], rows


def training_cost(entry: LeaderboardEntry) -> tuple[float, float]:
    """Return the seconds and the peak bytes of a run's training; 0 where they were not measured."""
    peak = max((float(plan.get("measured_bytes", 0)) for plan in entry.plans.values()), default=0.0)
    return sum(float(plan.get("measured_s", 0)) for plan in entry.plans.values()), peak


def cost_table(entries: Sequence[LeaderboardEntry]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: the cost of an answer of each tuned model, and of its training."""
    rows = []
    for entry in entries:
        tuned = entry.verdict.results.arm(Arm.TUNED)
        seconds, peak = training_cost(entry)
        rows.append(
            [
                entry.name,
                number(tuned.duration_s) if tuned else "–",
                f"{tuned.num_prompt_tokens:.0f} + {tuned.num_tokens:.0f}" if tuned else "–",
                duration(seconds) if seconds else "–",
                f"{peak / 2**30:.1f} GiB" if peak else "–",
            ]
        )
    return ["run", "seconds per answer", "tokens (prompt + answer)", "training time", "peak memory of training"], rows


def _score(arm: ArmResult | None) -> str:
    return f"{number(arm.primary.mean)} ({spread(arm.primary)})" if arm else "–"


def strength_table(strengths: Sequence[Strength]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: Bradley-Terry log strength of each model by people's marks."""
    return ["model", "strength", "95% interval", "marks"], [
        [s.name, signed(s.value), f"{number(s.low)} to {number(s.high)}", str(s.num)] for s in strengths
    ]
