"""The exam: questions on both sides, written before any training data exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tunewright.models.prompts import passage_text
from tunewright.recipe import Recipe
from tunewright.records import Document, Question, Rejection, Ring, digest
from tunewright.synthesis.evidence import Evidence, ranked_evidence
from tunewright.synthesis.wording import clean_question, sentence_fault, stand_alone
from tunewright.synthesis.work import NO_SENTENCE, Work, ask_questions, reply_fault
from tunewright.teacher.protocol import Reply
from tunewright.text import normalize, question_fault

CALLS_PER_QUESTION = 3  # at most, per document: sentences tried for each question wanted
STAGE = "exam"


@dataclass
class _Progress:
    """How far the questions on one document have come."""

    document: Document
    ring: Ring
    wanted: int
    ranked: list[Evidence]
    num_asked: int = 0
    kept: list[Question] = field(default_factory=list)
    num_good: int = 0

    def next(self) -> list[Evidence]:
        """Return the sentences to ask about in this round, and count them as asked."""
        limit = min(len(self.ranked), CALLS_PER_QUESTION * self.wanted)
        chosen = self.ranked[self.num_asked : min(limit, self.num_asked + self.wanted - self.num_good)]
        self.num_asked += len(chosen)
        return chosen


def question_id(ring: str, document: str, question: str, with_passage: bool) -> str:
    """Return an exam question's identifier, from its content alone."""
    return digest(ring, document, question, with_passage)


def write_exam(work: Work, rings: dict[str, Ring]) -> tuple[list[Question], list[Rejection]]:
    """Ask for the exam's questions in rounds, until each document has enough or its sentences are used up.

    Args:
        work: all documents, of both sides.
        rings: learned for a training document, unseen for an exam document, by document.
    """
    settings = work.recipe.exam
    wanted = {"learned": settings.learned_per_document, "unseen": settings.unseen_per_document}
    states = [
        _Progress(
            document,
            rings[document.id],
            wanted[rings[document.id]],
            ranked_evidence(document, work.chunks.get(document.id, ()), work.recipe.seed),
        )
        for document in work.documents
    ]
    rejections = [
        Rejection(stage=STAGE, id=s.document.id, reason=NO_SENTENCE, detail=s.document.source)
        for s in states
        if s.wanted and not s.ranked
    ]
    seen: set[str] = set()
    while asked := [(state, evidence) for state in states for evidence in state.next()]:
        pairs = [(state.document, evidence) for state, evidence in asked]
        replies = ask_questions(work, "exam", pairs, "writing the exam")
        for (state, evidence), reply in zip(asked, replies, strict=True):
            rejection = _keep_or_reject(state, evidence, reply, seen, work.recipe)
            rejections += [rejection] if rejection else []
    return [question for state in states for question in state.kept], rejections


def _keep_or_reject(
    state: _Progress, evidence: Evidence, reply: Reply | None, seen: set[str], recipe: Recipe
) -> Rejection | None:
    """Add the reply's question to the exam, or return why not."""
    gold, title = evidence.sentence, state.document.title
    asked = clean_question(reply.text) if reply else ""
    fault = reply_fault(reply) or sentence_fault(asked, title, gold)
    question = stand_alone(asked, title, at_end=True)
    fault = fault or question_fault(question, gold)
    if not fault and normalize(question) in seen:
        fault = "duplicate question"
    if fault:
        identity = question_id(state.ring, state.document.id, question, False)
        return Rejection(stage=STAGE, id=identity, reason=fault, detail=f"{question} <- {gold}"[:500])
    seen.add(normalize(question))
    state.num_good += 1
    state.kept += _records(state, evidence, question, recipe)
    return None


def _records(state: _Progress, evidence: Evidence, question: str, recipe: Recipe) -> list[Question]:
    """Return a question's records: one for a learned fact; for an unseen one, without and with its passage."""
    variants: Sequence[tuple[bool, str, str | None]] = [(True, evidence.sentence, None)]
    if state.ring == "unseen":
        variants = [(False, recipe.refusal, None), (True, evidence.sentence, passage_text(evidence.chunk))]
    return [
        Question(
            id=question_id(state.ring, state.document.id, question, passage is not None),
            ring=state.ring,
            document=state.document.id,
            question=question,
            gold=gold,
            answerable=answerable,
            passage=passage,
            evidence=evidence.span,
        )
        for answerable, gold, passage in variants
    ]
