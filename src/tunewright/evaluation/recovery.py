"""Recovery: how much of what the right passage would bring, the adapter knows without it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunewright.records import Question, Record, Score
from tunewright.settings import Arm
from tunewright.statistics.intervals import number, percent
from tunewright.statistics.ratios import Ratio, ratio_of_means

_RIGHT = 0.5  # a score from which a short answer counts as right


class Recovery(Record):
    """What the adapter knows of the documents' facts: short questions on learned documents, without a passage.

    Attributes:
        share: (tuned - base) / (oracle - base), and its interval; see ``ratio_of_means``.
        num_questions: that base, oracle and tuned answered.
        num_documents: that they are about.
        base: mean score without a passage.
        tuned: mean score of the adapter.
        oracle: mean score of the base with the right passage.
        num_known: questions that the base had right.
        num_unlearned: of them, those that tuned has wrong.
        num_learned: of the others, those that tuned has right.
        num_readable: of the others, those that the oracle has right.
    """

    share: Ratio
    num_questions: int
    num_documents: int
    base: float
    tuned: float
    oracle: float
    num_known: int
    num_unlearned: int
    num_learned: int
    num_readable: int


def measure_recovery(questions: Sequence[Question], scores: Sequence[Score], level: float = 0.95) -> Recovery | None:
    """Return the recovery; None where no such question was answered by base, oracle and tuned."""
    document_of = {
        question.id: question.document
        for question in questions
        if question.ring == "learned" and question.kind == "short" and question.answerable and question.passage is None
    }
    by_arm: dict[str, dict[str, float]] = {arm: {} for arm in (Arm.BASE, Arm.TUNED, Arm.ORACLE)}
    for score in scores:
        if score.question in document_of and score.arm in by_arm:
            by_arm[score.arm][score.question] = score.primary
    ids = [identity for identity in document_of if all(identity in own for own in by_arm.values())]
    if not ids:
        return None
    documents = [document_of[identity] for identity in ids]
    base, tuned, oracle = ([by_arm[arm][identity] for identity in ids] for arm in (Arm.BASE, Arm.TUNED, Arm.ORACLE))
    gained = [t - b for t, b in zip(tuned, base, strict=True)]
    possible = [o - b for o, b in zip(oracle, base, strict=True)]
    known = [b >= _RIGHT for b in base]
    return Recovery(
        share=ratio_of_means(gained, possible, documents, level),
        num_questions=len(ids),
        num_documents=len(set(documents)),
        base=math.fsum(base) / len(ids),
        tuned=math.fsum(tuned) / len(ids),
        oracle=math.fsum(oracle) / len(ids),
        num_known=sum(known),
        num_unlearned=sum(k and t < _RIGHT for k, t in zip(known, tuned, strict=True)),
        num_learned=sum(not k and t >= _RIGHT for k, t in zip(known, tuned, strict=True)),
        num_readable=sum(not k and o >= _RIGHT for k, o in zip(known, oracle, strict=True)),
    )


def recovery_sentences(recovery: Recovery) -> list[str]:
    """Return the recovery in sentences, for the report and the card."""
    share, unknown = recovery.share, recovery.num_questions - recovery.num_known
    about = (
        f"{recovery.num_questions} short questions on {recovery.num_documents} learned documents, without a passage: "
        f"base {number(recovery.base)}, tuned {number(recovery.tuned)}, base with the right passage "
        f"{number(recovery.oracle)}."
    )
    if share.value is None:
        recovered = "The right passage is not shown to help the base, so there is no share to recover."
    else:
        recovered = (
            f"The adapter recovers {percent(share.value)} of what the passage brings (95% interval "
            f"{percent(share.low)} to {percent(share.high)})."
        )
    known = (
        f"The base knew {recovery.num_known} answers before; {recovery.num_unlearned} of them are wrong now "
        f"(unlearned). Of the {unknown} others, {recovery.num_learned} are right now; with the passage, the base has "
        f"{recovery.num_readable} right."
    )
    return [about, recovered, known]
