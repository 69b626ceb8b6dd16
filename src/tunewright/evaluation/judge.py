"""The judge stage: a model reads the exam's answers, claim by claim and two by two; it decides no verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewright import console
from tunewright.answers import is_refusal
from tunewright.durable import file_digest
from tunewright.evaluation.judge_independence import check_independent
from tunewright.evaluation.judge_summary import JUDGMENTS, PREFERENCES, SUMMARY, Judgment, summarize
from tunewright.metrics import gold_fields
from tunewright.recipe import Recipe
from tunewright.records import Answer, Chunk, Question, StageSummary
from tunewright.rundir import RunFolder
from tunewright.teacher import open_teacher
from tunewright.teacher.judging import Judged, compare, judge
from tunewright.teacher.protocol import Asks

_STAGE = "judge"


@dataclass(frozen=True)
class _Sheet:
    """What the judge reads about an exam: its questions, what must carry their answers, and the answers by arm."""

    questions: Sequence[Question]
    passages: Mapping[str, str]
    told: Mapping[tuple[str, str], str]  # (question, arm) → answer
    refusal: str

    def checkable(self) -> list[Question]:
        """The questions whose answers a passage must carry; JSON answers make no claims that a passage carries."""
        return [q for q in self.questions if q.answerable and self.passages[q.id] and gold_fields(q) is None]

    def declines(self, question: Question, arm: str) -> bool:
        return is_refusal(self.told.get((question.id, arm), ""), self.refusal)

    def judged(self, question: Question, arm: str, with_gold: bool) -> Judged:
        passage = self.passages[question.id]
        if with_gold:
            passage = f"{passage}\n\nReference answer: {question.gold}".strip()
        return Judged(question.question, self.told[question.id, arm], passage)


def judge_exam(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Let the judge read the answers; write judgments.jsonl and judge.json.

    Claims: every arm's answers to answerable questions that have a passage to be checked against; an answer that
    declines claims nothing. Preferences: the tuned arm against each of its rivals, on every question, in both orders.

    Raises:
        RecipeError: the judge is the teacher or of the student's family, and not forced.
        TeacherError: the judge cannot be used; its judgments so far are kept.
    """
    forced = check_independent(recipe)
    answers = run.read_records("answers.jsonl", Answer)
    sheet = _sheet(run, recipe, answers)
    arms = list(dict.fromkeys(answer.arm for answer in answers))
    with open_teacher(run, recipe.judge.as_teacher, _STAGE) as teacher:
        judgments = [*_claims(sheet, arms, teacher, recipe.seed), *_preferences(sheet, arms, teacher, recipe.seed)]
        figures: dict[str, float | int | str] = {"calls": teacher.num_calls, "from_journal": teacher.num_from_journal}
        if teacher.cost:
            figures["cost_usd"] = round(teacher.cost, 6)
    checkable = sheet.checkable()
    declined = {arm: sum(sheet.declines(question, arm) for question in checkable) for arm in arms}
    summary = summarize(judgments, sheet.told, declined, recipe.judge.model, forced)
    summary = summary.model_copy(update={"answers": file_digest(run.file("answers.jsonl"))})
    run.write_records(JUDGMENTS, judgments)
    run.write(SUMMARY, summary.model_dump_json(indent=2) + "\n")
    missing = sum(judgment.outcome is None for judgment in judgments)
    if missing:
        console.warning(f"{missing} of {len(judgments)} judgments brought no verdict and are left out")
    rejected = {"no verdict": missing} if missing else {}
    return StageSummary(num_in=len(judgments), num_out=len(judgments) - missing, rejected=rejected, figures=figures)


def _sheet(run: RunFolder, recipe: Recipe, answers: Sequence[Answer]) -> _Sheet:
    questions = run.read_records("exam.jsonl", Question)
    chunks = run.records_if_any("chunks.jsonl", Chunk)
    told = {(answer.question, answer.arm): answer.text for answer in answers}
    return _Sheet(questions, {q.id: _passage(q, chunks) for q in questions}, told, recipe.refusal)


def _passage(question: Question, chunks: Sequence[Chunk]) -> str:
    """Return what an answer can be checked against: the passage shown, else the chunk around the evidence."""
    if question.passage or not question.evidence:
        return question.passage or ""
    span = question.evidence
    around = (c for c in chunks if c.document == span.document and c.start <= span.start and span.end <= c.end)
    found = next(around, None)
    return f"{found.title}\n{found.text}".strip() if found else span.quote


def _claims(sheet: _Sheet, arms: Sequence[str], teacher: Asks, seed: int) -> list[Judgment]:
    """Return the worst finding on any claim of each answer that claims something."""
    asked = [
        (question, arm)
        for arm in arms
        for question in sheet.checkable()
        if sheet.told.get((question.id, arm), "").strip() and not sheet.declines(question, arm)
    ]
    findings = judge([sheet.judged(question, arm, with_gold=False) for question, arm in asked], teacher, seed)
    return [
        Judgment(question=question.id, document=question.document, arms=(arm,), outcome=finding)
        for (question, arm), finding in zip(asked, findings, strict=True)
    ]


def _preferences(sheet: _Sheet, arms: Sequence[str], teacher: Asks, seed: int) -> list[Judgment]:
    """Return which arm's answer is better, of each question and pair of arms."""
    asked = [
        (question, first, second)
        for first, second in PREFERENCES
        if first in arms and second in arms
        for question in sheet.questions
    ]
    pairs = [(sheet.judged(q, first, True), sheet.judged(q, second, True)) for q, first, second in asked]
    judgments = []
    for (question, first, second), found in zip(asked, compare(pairs, teacher, seed), strict=True):
        named = {"first": first, "second": second, "tie": "tie"}
        judgments.append(
            Judgment(
                question=question.id,
                document=question.document,
                arms=(first, second),
                outcome=named[found.better] if found else None,
                flipped=found.flipped if found else False,
                choices=found.choices if found else 0,
                first_shown=found.first_shown if found else 0,
            )
        )
    return judgments
