"""The guards: harms that must be shown to stay within their margins, and the sentence that tells of each."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tunewright.evaluation.measured import Difference, Guard
from tunewright.evaluation.wording import plain

# Nats per token: the perplexity of general text may rise by a tenth (e^0.10 = 1.105) and no more. It is no setting:
# whoever knows how much accuracy they can spare seldom knows how many nats.
CROSS_ENTROPY_MARGIN = 0.10


class _Kind(NamedTuple):
    """Which way a measure does harm, how the report calls it, and what its sentence begins with."""

    harm: Literal["increase", "decrease"]
    name: str
    sentence: str


def harm_of(measure: str) -> Literal["increase", "decrease"]:
    """Return which way a guarded measure does harm."""
    return _KINDS[measure].harm


def guard(difference: Difference, margin: float) -> Guard:
    """Return whether a harm lies within its margin by the whole interval: inside, beyond, or unclear.

    Args:
        difference: of the guarded arm minus the one that it must not fall behind.
        margin: the largest harm allowed, in the measure's own units, above zero.
    """
    interval = difference.interval
    # As harm: a loss of accuracy counts like a rise of false refusals.
    rises = harm_of(difference.measure) == "increase"
    least, most = (interval.low, interval.high) if rises else (-interval.high, -interval.low)
    state: Literal["inside", "beyond", "unclear"] = "unclear"
    if most < margin:
        state = "inside"
    elif least > margin:
        state = "beyond"
    return Guard(
        measure=difference.measure,
        first=difference.first,
        second=difference.second,
        interval=interval,
        margin=margin,
        state=state,
    )


def guard_name(measure: str) -> str:
    """Return what a guard watches, as the report calls it."""
    return _KINDS[measure].name


def guard_sentence(guard: Guard) -> str:
    """Return a guard's sentence."""
    kind = _KINDS[guard.measure]
    verb = {"inside": "is shown to stay within", "beyond": "lies beyond", "unclear": "may exceed"}[guard.state]
    margin = f"{guard.margin:.2f}" if kind.harm == "increase" else f"a loss of {guard.margin:.2f}"
    sentence = f"{kind.sentence}, {guard.first} over {guard.second}"
    return f"{sentence}: {plain(guard.interval)}; that {verb} the margin of {margin}."


_KINDS = {
    "false_refusal": _Kind("increase", "declining questions that can be answered", "Declining answerable questions"),
    "kept_accuracy": _Kind(
        "decrease",
        "general questions and formats right",
        "What the model could do before (share of general questions and formats right)",
    ),
    "kept_cross_entropy": _Kind(
        "increase", "cross-entropy of general text, nats per token", "Cross-entropy of general text (nats per token)"
    ),
}
