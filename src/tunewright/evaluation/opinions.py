"""What people and a judge said of the answers, for the report; and whether the judge may be counted."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from tunewright.errors import RunFolderError
from tunewright.evaluation.judge_summary import LEAST_MARKS, SUMMARY, JudgeSummary
from tunewright.evaluation.marking_summary import Agreement, Markings
from tunewright.evaluation.measured import Results
from tunewright.records import AnyRecord
from tunewright.rundir import RunFolder

MARKING = "marking.json"
_JUDGE = "judge"


def _read(run: RunFolder, name: str, kind: type[AnyRecord], again: str) -> AnyRecord | None:
    if not run.file(name).is_file():
        return None
    try:
        return kind.model_validate_json(run.file(name).read_bytes())
    except ValidationError as error:
        raise RunFolderError(f"{run.file(name)} is damaged", str(error.errors()[0]["msg"]), again) from error


def _decided(agreement: Agreement) -> int:
    return agreement.agreed + agreement.opposed + agreement.equal


def trial(marking: Markings | None) -> dict[str, Any] | None:
    """Return how the judge fared against the marks, beside "the longest wins"; None without both.

    It is counted only when, on at least 30 questions that people decided, it agrees with them more often than the rule
    "the longest answer wins" does.
    """
    judge = next((m for m in marking.metrics if m.name == _JUDGE), None) if marking else None
    if marking is None or judge is None:
        return None
    beats = (judge.share or 0.0) > (marking.longest.share or 0.0)
    enough = _decided(judge) >= LEAST_MARKS
    return {
        "judge": judge,
        "longest": marking.longest,
        "decided": _decided(judge),
        "least": LEAST_MARKS,
        "counted": beats and enough,
        "beats": beats,
    }


def disagreement(marking: Markings | None, results: Results) -> str:
    """Return a sentence where people and the score prefer different arms, both beyond chance; else nothing."""
    found = results.difference(marking.arms[1], marking.arms[0]) if marking else None
    if marking is None or marking.preference is None or found is None:
        return ""
    people, score = marking.preference, found.interval
    if not (people.low > 0 and score.high < 0 or people.high < 0 and score.low > 0):
        return ""
    return (
        f"People and the score disagree, both beyond chance: people prefer {marking.arms[int(people.mean > 0)]}, the "
        f"score {marking.arms[int(score.mean > 0)]}. Take this verdict as NOT PROVEN until you know why."
    )


def opinions(run: RunFolder, results: Results) -> dict[str, Any]:
    """Return the views ``judged``, ``marked``, each None where nobody judged or marked, and their ``disagreement``.

    Raises:
        RunFolderError: a file is damaged.
    """
    anew = f"tunewright run '{run.file('recipe.toml')}' --dir '{run.path}'"
    summary = _read(run, SUMMARY, JudgeSummary, f"delete it, then: {anew}")
    marking = _read(run, MARKING, Markings, f"read the marks again: tunewright mark '{run.path}' --read FILE...")
    judged = {"summary": summary, "trial": trial(marking)} if summary else None
    return {"judged": judged, "marked": marking, "disagreement": disagreement(marking, results)}
