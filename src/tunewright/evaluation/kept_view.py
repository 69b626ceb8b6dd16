"""What the adapter kept, for the report and the terminal: by kind and topic, against the margins, with examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewright.evaluation import figures
from tunewright.evaluation.guards import guard_name, harm_of
from tunewright.evaluation.measured import BASE, KEPT, TUNED, Guard, Kept, KeptGroup
from tunewright.evaluation.verdict import Verdict
from tunewright.evaluation.wording import signed
from tunewright.records import KeptAnswer, KeptItem, KeptKind
from tunewright.rundir import RunFolder

if TYPE_CHECKING:
    from markupsafe import Markup

_NUM_EXAMPLES = 6


def kept_view(run: RunFolder, verdict: Verdict) -> dict[str, Any] | None:
    """Return what the page shows of the third ring; None where it was not sat."""
    kept = verdict.results.kept
    if kept is None:
        return None
    items = run.records_if_any("kept.jsonl", KeptItem)
    answers = run.records_if_any("kept-answers.jsonl", KeptAnswer)
    choices = [item for item in items if item.kind == "choice"]
    guards = [guard for guard in verdict.results.guards if guard.measure.startswith(KEPT)]
    return {
        "found": kept,
        "figures": [
            {"figure": guard_figure(guard), "guard": guard, "name": guard_name(guard.measure)} for guard in guards
        ],
        "judged": [*_rows(kept, "choice", "questions"), *_rows(kept, "format", "formats")],
        "read": _rows(kept, "passage", "texts"),
        "chance": sum(1 / len(item.options) for item in choices) / len(choices) if choices else None,
        "examples": _examples(items, answers),
    }


def kept_line(verdict: Verdict) -> str:
    """Return the third ring's result in one line, or nothing where it was not sat."""
    kept = verdict.results.kept
    if kept is None:
        return ""
    told = []
    if kept.accuracy:
        judged = [group for group in kept.groups if group.kind != "passage" and not group.topic]
        num = sum(group.num for group in judged)
        base, tuned = (sum(getattr(g, arm) * g.num for g in judged) / num for arm in (BASE, TUNED))
        told.append(f"{base:.0%} → {tuned:.0%} of {num} general questions and formats right")
    if kept.cross_entropy:
        (read,) = (group for group in kept.groups if group.kind == "passage" and not group.topic)
        told.append(f"general text {read.base:.2f} → {read.tuned:.2f} nats per token")
    return f"kept, base → tuned: {'; '.join(told)}"


def guard_figure(guard: Guard) -> Markup:
    """Return the picture of a guard: its interval, and shaded the harm that is allowed."""
    interval, margin = guard.interval, guard.margin
    row = figures.Row(
        label="tuned − base",
        value=f"{signed(interval.mean, 3)}  ({signed(interval.low, 3)} to {signed(interval.high, 3)})",
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        kind={"inside": "better", "beyond": "worse", "unclear": "rival"}[guard.state],
    )
    reach = max(1.5 * margin, abs(interval.low), abs(interval.high))
    band = (0.0, margin) if harm_of(guard.measure) == "increase" else (-margin, 0.0)
    label = f"{guard_name(guard.measure)}, {row.label} {row.value}; {guard.state}"
    return figures.forest([row], figures.nice_scale(-reach, reach, 6), label, 0.0, band)


def _rows(kept: Kept, kind: KeptKind, name: str) -> list[tuple[str, bool, KeptGroup]]:
    """Return (name, whether it is the whole kind, means): the kind, then its topics."""
    return [(group.topic or name, not group.topic, group) for group in kept.groups if group.kind == kind]


def _examples(items: Sequence[KeptItem], answers: Sequence[KeptAnswer]) -> list[dict[str, Any]]:
    """Return format prompts that base or tuned alone has right: those lost first, then those gained."""
    told = {(answer.item, answer.arm): answer for answer in answers if answer.kind == "format"}
    both: list[dict[str, Any]] = [
        {"item": item, "base": told[item.id, BASE], "tuned": told[item.id, TUNED]}
        for item in items
        if (item.id, BASE) in told and (item.id, TUNED) in told
    ]
    lost = [pair for pair in both if pair["tuned"].value < pair["base"].value]
    gained = [pair for pair in both if pair["tuned"].value > pair["base"].value]
    shown = lost[: max(_NUM_EXAMPLES // 2, _NUM_EXAMPLES - len(gained))]
    return [*shown, *gained[: _NUM_EXAMPLES - len(shown)]]
