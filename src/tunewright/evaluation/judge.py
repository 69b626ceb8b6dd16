"""The judge stage: a model reads the exam's answers, claim by claim and two by two; it decides no verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewright import console
from tunewright.errors import RecipeError
from tunewright.metrics import gold_fields, is_refusal
from tunewright.recipe import Recipe
from tunewright.records import Answer, Chunk, Question, Record, StageSummary
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import EMBEDDED, Arm
from tunewright.statistics.agreement import ExactShare, exact_share
from tunewright.statistics.intervals import Interval, mean_interval, paired
from tunewright.storage import file_digest
from tunewright.teacher import open_teacher
from tunewright.teacher.identity import teacher_identity
from tunewright.teacher.llm_judge import Judged, compare, judge
from tunewright.teacher.protocol import Asks

# Judges favor answers of their own kind (Panickssery et al. 2024, arXiv 2404.13076). Told by names alone.
_FAMILIES = {
    "claude": "Claude",
    "command": "Command",
    "deepseek": "DeepSeek",
    "gemini": "Gemini",
    "gemma": "Gemma",
    "gpt": "GPT",
    "llama": "Llama",
    "ministral": "Mistral",
    "mistral": "Mistral",
    "mixtral": "Mistral",
    "olmo": "OLMo",
    "phi": "Phi",
    "qwen": "Qwen",
    "qwq": "Qwen",
    "smollm": "SmolLM",
    "tulu": "Llama",
    "vicuna": "Llama",
    "zephyr": "Mistral",
}


def family_of_name(name: str) -> str:
    """Return the family that a model's name tells, or nothing: the last part of a path or hub name decides."""
    if name == EMBEDDED:
        return "SmolLM"
    last = name.rstrip("/").rpartition("/")[2].lower()
    return next((family for word, family in _FAMILIES.items() if re.search(rf"(?<![a-z]){word}", last)), "")


def faults(recipe: Recipe) -> list[str]:
    """Return why the judge is not independent of what it judges; nothing when it is, as far as names tell."""
    judge, teacher, found = recipe.judge.as_teacher, recipe.teacher, []
    same_name = bool(teacher.model) and judge.model.lower() == teacher.model.lower()
    if same_name or teacher_identity(judge, recipe.folder) == teacher_identity(teacher, recipe.folder):
        found.append(f"{judge.model} also wrote the training data")
    family = family_of_name(judge.model)
    if family and family == family_of_name(recipe.model.base):
        found.append(f"{judge.model} is of the student's family ({family})")
    return found


def check_independent(recipe: Recipe) -> tuple[str, ...]:
    """Return the faults of a judge that was forced, with a warning; nothing where it is independent.

    Raises:
        RecipeError: it is not independent, and not forced.
    """
    found = faults(recipe)
    if not found:
        return ()
    told = "; ".join(found)
    if not recipe.judge.forced:
        raise RecipeError(
            f"{recipe.judge.model} cannot judge this exam",
            f"{told}: models favor what is like their own",
            "name another in judge.model; to take it all the same, which the report then says: judge.forced = true",
        )
    console.warning(f"the judge is not independent: {told}")
    return tuple(found)


PREFERENCES = ((Arm.TUNED, Arm.BASE), (Arm.TUNED, Arm.FEW_SHOT), (Arm.TUNED, Arm.RAG))
LEAST_MARKS = 30  # decided by people; below, agreement with them says too little (shared practice: 30 and more)


class Judgment(Record):
    """One judgment: of one arm's answer (a finding), or of two arms' (the better arm, or "tie").

    ``outcome`` is None where the judge gave no usable verdict. ``flipped``: the two orders disagreed. Of its
    ``choices``, at most one an order, ``first_shown`` were of the answer shown first.
    """

    question: str
    document: str
    arms: tuple[str, ...]
    outcome: str | None
    flipped: bool = False
    choices: int = 0
    first_shown: int = 0


class ArmFaithfulness(Record):
    """One arm: the share of its judged answers all of whose claims the passage supports.

    ``declined``: its answers to such questions that decline, and so claim nothing.
    """

    arm: str
    supported: Interval | None
    findings: dict[str, int]
    declined: int


class Preference(Record):
    """Two arms: who won how often; ``interval`` in [-1, 1], positive for the first, ties count 0, clustered."""

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    interval: Interval | None


class JudgeSummary(Record):
    """The content of judge.json.

    ``flipped``: comparisons of different answers whose two orders disagree. ``first_shown``: of the choices made, those
    of the answer shown first; one half shows no favor for a place. ``longer_won``: of the decided, those won by the
    longer answer. ``not_independent``: why, where the judge was forced.
    ``answers``: the digest of answers.jsonl as it was judged.
    """

    model: str
    faithfulness: tuple[ArmFaithfulness, ...]
    preferences: tuple[Preference, ...]
    flipped: ExactShare
    first_shown: ExactShare
    longer_won: ExactShare
    not_independent: tuple[str, ...] = ()
    answers: str = ""


def summarize(
    judgments: Sequence[Judgment],
    told: Mapping[tuple[str, str], str],
    declined: Mapping[str, int],
    model: str,
    not_independent: Sequence[str] = (),
) -> JudgeSummary:
    """Return the figures of all judgments.

    Args:
        judgments: of answers and of pairs.
        told: (question, arm) → answer.
        declined: arm → answers that decline.
        model: the judge's name.
        not_independent: what speaks against this judge, where it was forced.
    """
    single = [judgment for judgment in judgments if len(judgment.arms) == 1]
    double = [j for j in judgments if len(j.arms) == 2 and j.outcome is not None]
    different = [j for j in double if not _same(told, j)]
    decided = [j for j in double if j.outcome != "tie" and _length(told, j, 0) != _length(told, j, 1)]
    longer = [j for j in decided if j.outcome == j.arms[int(_length(told, j, 1) > _length(told, j, 0))]]
    return JudgeSummary(
        model=model,
        faithfulness=tuple(
            _faithfulness(arm, [j for j in single if j.arms == (arm,)], declined.get(arm, 0))
            for arm in dict.fromkeys(j.arms[0] for j in single)
        ),
        preferences=tuple(
            _preference(pair, [j for j in double if j.arms == pair]) for pair in dict.fromkeys(j.arms for j in double)
        ),
        flipped=exact_share(sum(j.flipped for j in different), len(different)),
        first_shown=exact_share(sum(j.first_shown for j in double), sum(j.choices for j in double)),
        longer_won=exact_share(len(longer), len(decided)),
        not_independent=tuple(not_independent),
    )


def _length(told: Mapping[tuple[str, str], str], judgment: Judgment, place: int) -> int:
    return len(told[judgment.question, judgment.arms[place]].strip())


def _same(told: Mapping[tuple[str, str], str], judgment: Judgment) -> bool:
    one, other = (told[judgment.question, arm].strip() for arm in judgment.arms)
    return one == other


def _faithfulness(arm: str, judgments: Sequence[Judgment], declined: int) -> ArmFaithfulness:
    known = [j for j in judgments if j.outcome is not None]
    supported = [float(j.outcome == "supported") for j in known]
    return ArmFaithfulness(
        arm=arm,
        supported=mean_interval(supported, [j.document for j in known]) if known else None,
        findings=dict(Counter(j.outcome or "no verdict" for j in judgments)),
        declined=declined,
    )


def _preference(pair: tuple[str, ...], judgments: Sequence[Judgment]) -> Preference:
    first, second = pair
    values = [float(j.outcome == first) - float(j.outcome == second) for j in judgments]
    return Preference(
        first=first,
        second=second,
        wins=values.count(1.0),
        losses=values.count(-1.0),
        ties=values.count(0.0),
        interval=paired(values, [j.document for j in judgments]) if values else None,
    )


def judge_differences(judgments: Sequence[Judgment], arms: tuple[str, str]) -> dict[str, float]:
    """Return question → 1 where the judge prefers the second arm, -1 the first, 0 neither: as a metric of marking."""
    found = [j for j in judgments if set(j.arms) == set(arms) and len(j.arms) == 2 and j.outcome is not None]
    return {j.question: float(j.outcome == arms[1]) - float(j.outcome == arms[0]) for j in found}


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
    answers = run.read_records(RunFile.ANSWERS, Answer)
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
    summary = summary.model_copy(update={"answers": file_digest(run.file(RunFile.ANSWERS))})
    run.write_records(RunFile.JUDGMENTS, judgments)
    run.write(RunFile.JUDGE, summary.model_dump_json(indent=2) + "\n")
    missing = sum(judgment.outcome is None for judgment in judgments)
    if missing:
        console.warning(f"{missing} of {len(judgments)} judgments brought no verdict and are left out")
    rejected = {"no verdict": missing} if missing else {}
    return StageSummary(num_in=len(judgments), num_out=len(judgments) - missing, rejected=rejected, figures=figures)


def _sheet(run: RunFolder, recipe: Recipe, answers: Sequence[Answer]) -> _Sheet:
    questions = run.read_records(RunFile.EXAM, Question)
    chunks = run.records_if_any(RunFile.CHUNKS, Chunk)
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
