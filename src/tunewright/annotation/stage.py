"""The stage verdict: where marks decide, it gives the verdict again from records alone, whenever marks are read."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.annotation.decision import Ballot, ballot, marked_difference
from tunewright.annotation.plan import answer_pairs_digest, pairs
from tunewright.errors import StageError
from tunewright.evaluation.extra_arms import extra_arms
from tunewright.evaluation.judge import Judgment, judge_differences
from tunewright.evaluation.rule import note_rule, rivals
from tunewright.evaluation.stage import leaks
from tunewright.evaluation.verdict import Verdict, decide
from tunewright.recipe import Recipe
from tunewright.records import Answer, Mark, Question, RetentionAnswer, Score, StageSummary
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.storage import file_digest


def verdict(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Apply the rule to the scores again, with the marks and the judge's preferences; no model is loaded.

    Writes verdict.json, which the evaluate stage wrote without marks.

    Raises:
        RunFolderError: a record is damaged.
        StageError: the rule of the run is decided by the score.
    """
    rule = run.read_json(RunFile.RULE)
    if "marks" not in rule:
        raise StageError(
            "marks do not decide this run",
            'its rule was fixed with evaluation.primary = "score", and the recipe now says "marks"',
            f"evaluate again; the verdict will say that the rule was changed after answers existed: {run.again()}",
        )
    questions, answers = run.read_records(RunFile.EXAM, Question), run.read_records(RunFile.ANSWERS, Answer)
    possible = [
        marked_difference(rival, read_ballot(run, rival, questions, answers), rule["marks"]["min_marks"], rule["alpha"])
        for rival in rivals(rule)
    ]
    marked = [difference for difference in possible if difference]
    before = run.read_record(RunFile.VERDICT, Verdict).results
    shown = {"retrieval": before.retrieval, "recovery": before.recovery}  # no part of the rule
    result = decide(
        run.read_records(RunFile.SCORES, Score),
        answers,
        rule,
        leaks(run, recipe),
        run.records_if_any(RunFile.RETENTION_ANSWERS, RetentionAnswer),
        note_rule(run.journal(RunFile.RULE_HISTORY), rule, answered=True),
        [extra.name for extra in extra_arms(recipe) if extra.base],
        marked,
    )
    result = result.model_copy(update={"results": result.results.model_copy(update=shown)})
    run.write(RunFile.VERDICT, result.model_dump_json(indent=2) + "\n")
    figures: dict[str, float | int | str] = {f"marks_{d.second}": d.num_marks for d in marked}
    return StageSummary(num_in=len(questions), num_out=len(questions), figures={**figures, "verdict": result.name})


def read_ballot(run: RunFolder, rival: str, questions: Sequence[Question], answers: Sequence[Answer]) -> Ballot:
    """Return what people and the judge prefer of tuned and a rival; marks and judgments of other answers are left out.

    Raises:
        RunFolderError: a record is damaged.
    """
    answer_pairs = pairs(questions, answers, (rival, Arm.TUNED))
    shown = answer_pairs_digest(answer_pairs)
    marks = [mark for mark in run.records_if_any(RunFile.MARKS, Mark) if mark.answers == shown]
    judged: dict[str, float] = {}
    if run.json_if_any(RunFile.JUDGE).get("answers") == file_digest(run.file(RunFile.ANSWERS)):
        judged = judge_differences(run.records_if_any(RunFile.JUDGMENTS, Judgment), (rival, Arm.TUNED))
    return ballot(rival, answer_pairs, marks, judged)
