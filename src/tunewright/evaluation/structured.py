"""How structured answers fared: base against tuned, by measure and by field."""

from __future__ import annotations

from tunewright.evaluation.measured import BASE, TUNED
from tunewright.evaluation.verdict import Verdict
from tunewright.evaluation.wording import signed


def structured_table(verdict: Verdict) -> tuple[list[str], list[list[str]]] | None:
    """Return columns and rows, base against tuned by measure and field, where gold answers are JSON objects."""
    base, tuned = verdict.results.arm(BASE), verdict.results.arm(TUNED)
    if base is None or tuned is None or not verdict.results.structured:
        return None
    columns = ["structured answers", BASE, TUNED, "tuned − base", f"{1 - verdict.rule['alpha']:.0%} interval"]
    return columns, [
        [
            d.measure.replace("_", " ", 1) if ":" not in d.measure else d.measure.partition(":")[2],
            f"{base.metrics[d.measure]:.0%}",
            f"{tuned.metrics[d.measure]:.0%}",
            signed(d.interval.mean),
            f"{signed(d.interval.low)} to {signed(d.interval.high)}",
        ]
        for d in verdict.results.structured
    ]
