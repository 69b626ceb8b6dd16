"""The exam: questions on both sides, written before any training data exists."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from tunewright.errors import UserError
from tunewright.models.chat_template import passage_text
from tunewright.recipe import Recipe
from tunewright.records import Document, Question, Rejection, Ring, Span, digest
from tunewright.synthesis.context import NO_SENTENCE, Work, ask_questions, reply_fault
from tunewright.synthesis.questions import Evidence, clean_question, ranked_evidence, sentence_fault, stand_alone
from tunewright.teacher.protocol import Reply
from tunewright.text.normalization import normalize, question_fault
from tunewright.text.tables import read_table

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_FORM = (
    "each row needs question and answer (or gold); answerable, document (or source), passage, evidence "
    "and ring are optional"
)


@dataclass(frozen=True)
class _Documents:
    """What rows may be about: documents by identifier, which of them each name means, and the ring of each."""

    by_id: Mapping[str, Document]
    names: Mapping[str, str]
    rings: Mapping[str, Ring]


def read_own_exam(
    path: Path, recipe: Recipe, documents: Mapping[str, Document], rings: Mapping[str, Ring]
) -> list[Question]:
    """Return the questions of a user's exam.

    A row's document may be an identifier, a source path or a title; a row without one is a cluster of its own. Its
    ring is the one it states, else its document's, else learned.

    Args:
        path: .csv with a header line, or .jsonl.
        recipe: for the refusal, which is the gold answer of unanswerable questions without one.
        documents: by identifier.
        rings: learned or unseen, by document.

    Raises:
        UserError: the file is missing or empty, or a row is wrong; its line is named.
    """
    names = {name: d.id for d in documents.values() for name in (d.title, d.source, d.id)}
    known = _Documents(documents, names, rings)
    questions: dict[str, Question] = {}
    for number, row in _rows(path):
        question = _question(path, number, row, recipe, known)
        if question.id in questions:
            raise _fault(path, number, "the same question stands further up")
        questions[question.id] = question
    if not questions:
        raise UserError(f"the exam {path} is empty", "it holds no question", _FORM)
    return list(questions.values())


def _fault(path: Path, number: int, cause: str) -> UserError:
    return UserError(f"{path} line {number} is no exam question", cause, _FORM)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, row) of the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the exam {path}", str(error), "correct exam.file in the recipe") from error
    if path.suffix.lower() == ".csv":
        try:
            _, rows = read_table(text)
        except csv.Error as error:
            raise UserError(f"the exam {path} is no table", str(error), _FORM) from error
        yield from ((line, {name.strip().lower(): cell for name, cell in row.items()}) for line, row in rows)
        return
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        raise UserError(f"the exam {path} is neither .jsonl nor .csv", f"it ends in {path.suffix!r}", _FORM)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _fault(path, number, f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise _fault(path, number, "not a JSON object")
        yield number, row


def _question(path: Path, number: int, row: Mapping[str, Any], recipe: Recipe, known: _Documents) -> Question:
    """Return the question of one row."""

    def text(*keys: str) -> str:
        for key in keys:
            value = row.get(key)
            if value is not None and not isinstance(value, str | int | float):
                raise _fault(path, number, f"{key} is not text")
            if value is not None and str(value).strip():
                return str(value).strip()
        return ""

    question = text("question")
    if not question:
        raise _fault(path, number, "question is missing or empty")
    answerable = _BOOLEANS.get((text("answerable") or "true").lower())
    if answerable is None:
        raise _fault(path, number, f"answerable is {text('answerable')!r}, not true or false")
    gold = text("gold", "answer") or ("" if answerable else recipe.refusal)
    if not gold:
        raise _fault(path, number, "answer (or gold) is missing or empty")
    given, passage = text("document", "source"), text("passage") or None
    document = known.names.get(given, given)
    ring = text("ring") or known.rings.get(document, "learned")
    if ring not in get_args(Ring):
        raise _fault(path, number, f"ring is {ring!r}, not one of {', '.join(get_args(Ring))}")
    evidence = _span(known.by_id.get(document), text("evidence"))
    if text("evidence") and not evidence and known.by_id:
        raise _fault(path, number, f"its evidence does not stand word for word in the document {given!r}")
    identity = digest(ring, document, question, passage)
    content: dict[str, Any] = {"id": identity, "ring": ring, "document": document or identity, "question": question}
    content |= {"gold": gold, "answerable": answerable, "passage": passage, "evidence": evidence}
    return Question.model_validate(content)


def _span(document: Document | None, quote: str) -> Span | None:
    """Return where a quote first stands in a document; None where it does not, or there is neither."""
    start = document.text.find(quote) if document and quote else -1
    return (
        Span(document=document.id, start=start, end=start + len(quote), quote=quote)
        if document and start >= 0
        else None
    )


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
