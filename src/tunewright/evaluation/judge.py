"""A judge model's judgments of the exam's answers, claim by claim and in pairs; alone they decide no verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewright import console
from tunewright.errors import RecipeError
from tunewright.metrics import has_labels, is_refusal
from tunewright.recipe import Recipe
from tunewright.records import Answer, Chunk, Question, Record
from tunewright.settings import EMBEDDED, Arm
from tunewright.statistics.agreement import ExactShare, exact_share
from tunewright.statistics.intervals import Interval, difference_interval, mean_interval
from tunewright.teacher.identity import teacher_identity
from tunewright.teacher.llm_judge import JudgedAnswer, compare_answers, judge_support
from tunewright.teacher.protocol import TeacherLike
from tunewright.text.reasoning import text_to_score

# Judges favor answers of their own kind (Panickssery et al. 2024, arXiv 2404.13076). Only names are compared.
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
    """Return the family in a model's name, or nothing; the last part of a path or hub name decides."""
    if name == EMBEDDED:
        return "SmolLM"
    last = name.rstrip("/").rpartition("/")[2].lower()
    return next((family for word, family in _FAMILIES.items() if re.search(rf"(?<![a-z]){word}", last)), "")


def independence_faults(recipe: Recipe) -> list[str]:
    """Return why the judge is not independent of what it judges; nothing where the names show no fault."""
    judge, teacher = recipe.judge.as_teacher, recipe.writer
    faults = []
    same_name = bool(teacher.model) and judge.model.lower() == teacher.model.lower()
    if same_name or teacher_identity(judge, recipe.folder) == teacher_identity(teacher, recipe.folder):
        faults.append(f"{judge.model} also wrote the training data")
    family = family_of_name(judge.model)
    if family and family == family_of_name(recipe.model.base):
        faults.append(f"{judge.model} is of the student's family ({family})")
    return faults


def check_independent(recipe: Recipe) -> tuple[str, ...]:
    """Return the faults of a judge that is forced, with a warning; nothing where it is independent.

    Raises:
        RecipeError: the judge is the teacher or of the student's family, and not forced.
    """
    faults = independence_faults(recipe)
    if not faults:
        return ()
    reasons = "; ".join(faults)
    if not recipe.judge.forced:
        raise RecipeError(
            f"{recipe.judge.model} cannot judge this exam",
            f"{reasons}: models favor answers like their own",
            "name another in judge.model; to use it nevertheless, which the report then states: judge.forced = true",
        )
    console.warning(f"the judge is not independent: {reasons}")
    return tuple(faults)


PREFERENCES = tuple((Arm.TUNED, rival) for rival in (Arm.BASE, Arm.FEW_SHOT, Arm.SIMILAR_SHOT, Arm.RAG))


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
    of the answer shown first; one half shows no favor for a position. ``longer_won``: of the decided, those won by the
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
    answers: Mapping[tuple[str, str], str],
    declined: Mapping[str, int],
    model: str,
    not_independent: Sequence[str] = (),
) -> JudgeSummary:
    """Return the figures of all judgments.

    Args:
        judgments: of answers and of pairs.
        answers: (question, arm) → answer.
        declined: arm → answers that decline.
        model: the judge's name.
        not_independent: why the judge is not independent, where it was forced.
    """
    single = [judgment for judgment in judgments if len(judgment.arms) == 1]
    double = [j for j in judgments if len(j.arms) == 2 and j.outcome is not None]
    different = [j for j in double if not _same(answers, j)]
    decided = [j for j in double if j.outcome != "tie" and _length(answers, j, 0) != _length(answers, j, 1)]
    longer = [j for j in decided if j.outcome == j.arms[int(_length(answers, j, 1) > _length(answers, j, 0))]]
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


def _length(answers: Mapping[tuple[str, str], str], judgment: Judgment, index: int) -> int:
    return len(answers[judgment.question, judgment.arms[index]].strip())


def _same(answers: Mapping[tuple[str, str], str], judgment: Judgment) -> bool:
    first, second = (answers[judgment.question, arm].strip() for arm in judgment.arms)
    return first == second


def _faithfulness(arm: str, judgments: Sequence[Judgment], declined: int) -> ArmFaithfulness:
    usable = [j for j in judgments if j.outcome is not None]
    supported = [float(j.outcome == "supported") for j in usable]
    return ArmFaithfulness(
        arm=arm,
        supported=mean_interval(supported, [j.document for j in usable]) if usable else None,
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
        interval=difference_interval(values, [j.document for j in judgments]) if values else None,
    )


def judge_differences(judgments: Sequence[Judgment], arms: tuple[str, str]) -> dict[str, float]:
    """Return question → 1 where the judge prefers the second arm, -1 the first, 0 neither: as a metric of marking."""
    preferences = [j for j in judgments if set(j.arms) == set(arms) and len(j.arms) == 2 and j.outcome is not None]
    return {j.question: float(j.outcome == arms[1]) - float(j.outcome == arms[0]) for j in preferences}


@dataclass(frozen=True)
class AnsweredExam:
    """An exam as the judge reads it: its questions, the passage behind each, and the answers by arm."""

    questions: Sequence[Question]
    passages: Mapping[str, str]  # question → what its answer is checked against
    answers: Mapping[tuple[str, str], str]  # (question, arm) → answer
    refusal: str

    @classmethod
    def of(
        cls, questions: Sequence[Question], chunks: Sequence[Chunk], answers: Sequence[Answer], refusal: str
    ) -> AnsweredExam:
        """Return the exam with the passages that its chunks hold; ``refusal`` is the recipe's refusal sentence."""
        passages = {question.id: _passage(question, chunks) for question in questions}
        texts = {(answer.question, answer.arm): text_to_score(answer.text) for answer in answers}
        return cls(questions, passages, texts, refusal)

    @property
    def arms(self) -> list[str]:
        """The arms in the order of their answers."""
        return list(dict.fromkeys(arm for _, arm in self.answers))

    def checkable(self) -> list[Question]:
        """Return the questions whose answers a passage must support; a JSON answer makes no claims."""
        return [q for q in self.questions if q.answerable and self.passages[q.id] and not has_labels(q)]

    def declines(self, question: Question, arm: str) -> bool:
        """Return whether an arm's answer to a question declines to answer."""
        return is_refusal(self.answers.get((question.id, arm), ""), self.refusal)

    def num_declined(self) -> dict[str, int]:
        """Return arm → the number of checkable questions that it declines to answer."""
        checkable = self.checkable()
        return {arm: sum(self.declines(question, arm) for question in checkable) for arm in self.arms}

    def judged(self, question: Question, arm: str, with_gold: bool) -> JudgedAnswer:
        """Return an answer as the judge reads it."""
        passage = self.passages[question.id]
        if with_gold:
            passage = f"{passage}\n\nReference answer: {question.shown_gold}".strip()
        return JudgedAnswer(question.question, self.answers[question.id, arm], passage)


def _passage(question: Question, chunks: Sequence[Chunk]) -> str:
    """Return the text that an answer is checked against: the passage shown, else the chunk around the evidence."""
    if question.passage or not question.evidence:
        return question.passage or ""
    span = question.evidence
    around = (c for c in chunks if c.document == span.document and c.start <= span.start and span.end <= c.end)
    chunk = next(around, None)
    return f"{chunk.title}\n{chunk.text}".strip() if chunk else span.quote


def judge_answers(exam: AnsweredExam, teacher: TeacherLike, seed: int) -> list[Judgment]:
    """Return the judgments of single answers, then those of pairs of answers.

    Claims: of every arm's answer to an answerable question that has a passage to be checked against; an answer that
    declines claims nothing. Preferences: the tuned arm against each of its rivals, on every question, in both orders.

    Args:
        exam: with the answers of all arms.
        teacher: the judge.
        seed: of the requests.
    """
    return [*_claims(exam, teacher, seed), *_preferences(exam, teacher, seed)]


def _claims(exam: AnsweredExam, teacher: TeacherLike, seed: int) -> list[Judgment]:
    """Return the worst finding on any claim of each answer that claims something."""
    claiming = [
        (question, arm)
        for arm in exam.arms
        for question in exam.checkable()
        if exam.answers.get((question.id, arm), "").strip() and not exam.declines(question, arm)
    ]
    findings = judge_support([exam.judged(question, arm, with_gold=False) for question, arm in claiming], teacher, seed)
    return [
        Judgment(question=question.id, document=question.document, arms=(arm,), outcome=finding)
        for (question, arm), finding in zip(claiming, findings, strict=True)
    ]


def _preferences(exam: AnsweredExam, teacher: TeacherLike, seed: int) -> list[Judgment]:
    """Return which arm's answer is better, of each question and pair of arms."""
    compared = [
        (question, first, second)
        for first, second in PREFERENCES
        if {first, second} <= set(exam.arms)
        for question in exam.questions
    ]
    pairs = [(exam.judged(q, first, True), exam.judged(q, second, True)) for q, first, second in compared]
    judgments = []
    for (question, first, second), choice in zip(compared, compare_answers(pairs, teacher, seed), strict=True):
        outcomes = {"first": first, "second": second, "tie": "tie"}
        judgments.append(
            Judgment(
                question=question.id,
                document=question.document,
                arms=(first, second),
                outcome=outcomes[choice.better] if choice else None,
                flipped=choice.flipped if choice else False,
                choices=choice.choices if choice else 0,
                first_shown=choice.first_shown if choice else 0,
            )
        )
    return judgments
