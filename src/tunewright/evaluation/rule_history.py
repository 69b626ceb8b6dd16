"""Which rules a run was judged by, in order: a rule that was changed after answers existed is told as such."""

from __future__ import annotations

from typing import Any

from tunewright.evaluation.rule import rule_digest
from tunewright.evaluation.sitting import JOURNAL
from tunewright.rundir import RunFolder

HISTORY = "rules.jsonl"
_HARMLESS = frozenset({"compared"})  # no step of the rule names who sat the exam on request


def note_rule(run: RunFolder, rule: dict[str, Any]) -> tuple[str, ...]:
    """Note the rule before it is applied; return what differs from the one that was fixed before the first answer.

    Nothing is returned where no answer existed when the rule changed, and what changed no step counts for nothing.
    """
    journal = run.journal(HISTORY)
    answered = run.file(JOURNAL).is_file()
    last = journal.entries[-1] if journal.entries else None
    if last is None or last["digest"] != rule_digest(rule):
        journal.append({"digest": rule_digest(rule), "rule": rule, "answered": answered})
    entries = journal.entries
    if entries[0]["answered"]:
        return ("When the rule was first noted, answers existed already.",)
    before = next((past["rule"] for past in reversed(entries) if not past["answered"]), entries[0]["rule"])
    return tuple(
        f"The rule was changed after answers existed: {key} was {before.get(key)!r} and is {rule.get(key)!r}."
        for key in sorted({*before, *rule} - _HARMLESS - {"steps"})
        if before.get(key) != rule.get(key)
    )
