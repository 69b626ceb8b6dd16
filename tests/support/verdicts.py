"""Scores and answers of arms with given means, for verdicts without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tunewright.records import Answer, Score

ARMS = ("base", "few-shot", "similar-shot", "rag", "tuned", "tuned+rag")
RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.05, (6, 60))
Metrics = Mapping[str, Callable[[int], float]]


def answered(
    means: Mapping[str, float],
    num: int = 30,
    per_document: int = 2,
    metrics: Mapping[str, Metrics] | None = None,
    nll: Mapping[str, float] | None = None,
    noise: float = 1.0,
) -> tuple[list[Score], list[Answer]]:
    """Return scores and answers of arms with the given mean primary scores and a little noise."""
    scores, answers = [], []
    others = [arm for arm in means if arm != "similar-shot"]
    for arm, mean in means.items():
        row = others.index(arm) % len(NOISE) if arm in others else 1  # similar-shot: as the few-shot arm
        for i in range(num):
            own = {name: value(i) for name, value in (metrics or {}).get(arm, {}).items()}
            scores.append(
                Score(
                    question=f"q{i}",
                    arm=arm,
                    ring="learned" if i % 3 else "unseen",
                    document=f"d{i // per_document}",
                    primary=float(np.clip(mean + noise * NOISE[row, i], 0, 1)),
                    metrics={
                        "answerable": 1,
                        "closed_book": i % 3 > 0,
                        "false_refusal": 0,
                        "truncated": 0,
                        "empty": 0,
                        "cut_or_empty": 0,
                    }
                    | own,
                )
            )
            answers.append(
                Answer(
                    question=f"q{i}",
                    arm=arm,
                    text=f"the answer of {arm}",
                    finish="stop",
                    num_prompt_tokens=10,
                    num_tokens=5,
                    duration_s=0.5,
                    # tuned is another model than the base: its likelihoods moved, to both sides
                    gold_nll=(nll or {}).get(arm, 3.0) + 0.2 * NOISE[row, i] + (arm == "tuned") * (-1) ** i * 0.1,
                )
            )
    return scores, answers


def scored(base: float, few_shot: float, rag: float, tuned: float, tuned_rag: float) -> dict[str, float]:
    """Return the arms' means; similar-shot is as good as few-shot."""
    return dict(zip(ARMS, (base, few_shot, few_shot, rag, tuned, tuned_rag), strict=True))


GOOD = scored(0.2, 0.3, 0.4, 0.7, 0.5)
