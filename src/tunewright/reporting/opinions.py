"""What people and a judge said of the answers, for the report; and whether the judge may be counted."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from tunewright.annotation.plan import Pair, pairs, shown_digest
from tunewright.annotation.summary import Agreement, Markings, agreement, consensus, length_differences
from tunewright.errors import RunFolderError, command
from tunewright.evaluation.judge import LEAST_MARKS, JudgeSummary, Judgment, judge_differences
from tunewright.evaluation.results import Results
from tunewright.records import Answer, AnyRecord, Mark, Question
from tunewright.run_folder import RunFile, RunFolder
from tunewright.statistics.agreement import exact_share
from tunewright.statistics.intervals import Interval
from tunewright.storage import file_digest

MARKING, MARKS = RunFile.MARKING_PLAN, RunFile.MARKS
_JUDGE = "judge"


def _read(run: RunFolder, name: str, kind: type[AnyRecord], again: str) -> AnyRecord | None:
    if not run.file(name).is_file():
        return None
    try:
        return kind.model_validate_json(run.file(name).read_bytes())
    except ValidationError as error:
        raise RunFolderError(f"{run.file(name)} is damaged", str(error.errors()[0]["msg"]), again) from error


def _marked(run: RunFolder, marking: Markings) -> list[Pair]:
    return pairs(run.read_records(RunFile.EXAM, Question), run.read_records(RunFile.ANSWERS, Answer), marking.arms)


def _decided(agreement: Agreement) -> int:
    return agreement.agreed + agreement.opposed + agreement.equal


def trial(run: RunFolder, marking: Markings | None) -> dict[str, Any] | None:
    """Return how the judge fared against the marks, beside "the longest wins" on the same questions; None without both.

    It is counted only when people decided at least 30 of the questions that it compared, it agrees with them beyond
    chance (exact interval of its decided ones above one half), and more often than "the longest answer wins" does.
    """
    if marking is None or not (run.file(RunFile.JUDGMENTS).is_file() and run.file(MARKS).is_file()):
        return None
    people = consensus(run.read_records(MARKS, Mark), marking.arms)
    found = judge_differences(run.read_records(RunFile.JUDGMENTS, Judgment), marking.arms)
    judge = agreement(_JUDGE, people, found)
    lengths = length_differences(_marked(run, marking), marking.arms)
    beyond = exact_share(judge.agreed, judge.agreed + judge.opposed).low > 0.5
    longest = agreement("longest", {question: people[question] for question in people if question in found}, lengths)
    beats = beyond and (judge.share or 0.0) > (longest.share or 0.0)
    return {
        "judge": judge,
        "longest": longest,
        "beyond": beyond,
        "decided": _decided(judge),
        "least": LEAST_MARKS,
        "counted": beats and _decided(judge) >= LEAST_MARKS,
    }


def disagreement(marking: Markings | None, results: Results) -> str:
    """Return a sentence where people and the score prefer different arms, both beyond chance; else nothing."""
    if marking is None or marking.preference is None:
        return ""
    first, second = marking.arms
    found, turned = results.difference(second, first), results.difference(first, second)
    if found is None and turned is None:
        return ""
    people, score = marking.preference, found.interval if found else _negated(turned.interval)  # type: ignore[union-attr]
    if not (people.low > 0 and score.high < 0 or people.high < 0 and score.low > 0):
        return ""
    return (
        f"People and the score disagree, both beyond chance: people prefer {marking.arms[int(people.mean > 0)]}, the "
        f"score {marking.arms[int(score.mean > 0)]}. Take this verdict as NOT PROVEN until you know why."
    )


def _negated(interval: Interval) -> Interval:
    return interval.model_copy(update={"mean": -interval.mean, "low": -interval.high, "high": -interval.low})


def opinions(run: RunFolder, results: Results) -> dict[str, Any]:
    """Return the views ``judged``, ``marked``, each None where nobody judged or marked, and their ``disagreement``.

    What was said of other answers than those that stand is left out.

    Raises:
        RunFolderError: a file is damaged.
    """
    summary = _read(run, RunFile.JUDGE, JudgeSummary, f"delete it, then: {run.again()}")
    again = command("mark", run.path, "--read", "FILE...")
    marking = _read(run, MARKING, Markings, f"read the marks again: {again}")
    answers = run.file(RunFile.ANSWERS)
    now = file_digest(answers) if answers.is_file() else ""
    summary = summary if summary and summary.answers == now else None
    marking = marking if marking and marking.answers == shown_digest(_marked(run, marking)) else None
    judged = {"summary": summary, "trial": trial(run, marking)} if summary else None
    return {"judged": judged, "marked": marking, "disagreement": disagreement(marking, results)}
