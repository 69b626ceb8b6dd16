"""The exam's questions: read from the user's own file, or written by the teacher for both sides of the split."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from tunewright.errors import UserError
from tunewright.models.chat_template import passage_text
from tunewright.records import Document, Question, Rejection, Ring, Sample, Span, digest
from tunewright.synthesis.context import EXAM_STAGE, NO_SENTENCE, TaskContext, ask_questions, reply_fault
from tunewright.synthesis.questions import (
    EvidenceSentence,
    clean_question,
    ranked_evidence,
    sentence_fault,
    stand_alone,
)
from tunewright.teacher.protocol import Reply
from tunewright.text.normalization import normalize, question_fault
from tunewright.text.tables import read_table

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_ROW_HINT = (
    "each row needs question and answer (or gold); answerable, document (or source), passage, evidence "
    "and ring are optional"
)


@dataclass(frozen=True)
class _DocumentLookup:
    """The documents by identifier, the identifier of each title, source and identifier, and the ring of each."""

    by_id: Mapping[str, Document]
    ids: Mapping[str, str]
    rings: Mapping[str, Ring]


def read_own_exam(
    path: Path, refusal: str, documents: Mapping[str, Document], rings: Mapping[str, Ring]
) -> list[Question]:
    """Return the questions of a user's own exam.

    A row's document may be an identifier, a source path or a title; a row without a document is a cluster of its own.
    Its ring is the one in the row, else its document's, else learned.

    Args:
        path: a .csv file with a header line, or a .jsonl file.
        refusal: the gold answer of unanswerable questions that have none.
        documents: the run's documents by identifier.
        rings: learned or unseen, by document.

    Raises:
        UserError: the file is missing or empty, or a row is wrong; its line is named.
    """
    ids = {name: d.id for d in documents.values() for name in (d.title, d.source, d.id)}
    lookup = _DocumentLookup(documents, ids, rings)
    questions: dict[str, Question] = {}
    for number, row in _rows(path):
        question = _question(path, number, row, refusal, lookup)
        if question.id in questions:
            raise _row_error(path, number, "an earlier line holds the same question")
        questions[question.id] = question
    if not questions:
        raise UserError(f"the exam {path} is empty", "it holds no questions", _ROW_HINT)
    return list(questions.values())


def _row_error(path: Path, number: int, cause: str) -> UserError:
    return UserError(f"{path} line {number} is not an exam question", cause, _ROW_HINT)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row of the file with its line number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the exam {path}", str(error), "correct exam.file in the recipe") from error
    if path.suffix.lower() == ".csv":
        try:
            _, rows = read_table(text)
        except csv.Error as error:
            raise UserError(f"the exam {path} is not a table", str(error), _ROW_HINT) from error
        yield from ((line, {name.strip().lower(): cell for name, cell in row.items()}) for line, row in rows)
        return
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        raise UserError(f"the exam {path} is neither .jsonl nor .csv", f"its extension is {path.suffix!r}", _ROW_HINT)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _row_error(path, number, f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise _row_error(path, number, "not a JSON object")
        yield number, row


def _question(path: Path, number: int, row: Mapping[str, Any], refusal: str, lookup: _DocumentLookup) -> Question:
    """Return the question of one row."""

    def text(*keys: str) -> str:
        for key in keys:
            value = row.get(key)
            if value is not None and not isinstance(value, str | int | float):
                raise _row_error(path, number, f"{key} is not text")
            if value is not None and str(value).strip():
                return str(value).strip()
        return ""

    question = text("question")
    if not question:
        raise _row_error(path, number, "question is missing or empty")
    answerable = _BOOLEANS.get((text("answerable") or "true").lower())
    if answerable is None:
        raise _row_error(path, number, f"answerable is {text('answerable')!r}, not true or false")
    gold = text("gold", "answer") or ("" if answerable else refusal)
    if not gold:
        raise _row_error(path, number, "answer (or gold) is missing or empty")
    name, passage = text("document", "source"), text("passage") or None
    document = lookup.ids.get(name, name)
    ring = text("ring") or lookup.rings.get(document, "learned")
    if ring not in get_args(Ring):
        raise _row_error(path, number, f"ring is {ring!r}, not one of {', '.join(get_args(Ring))}")
    evidence = _first_span(lookup.by_id.get(document), text("evidence"))
    if text("evidence") and not evidence and lookup.by_id:
        raise _row_error(path, number, f"its evidence does not occur word for word in the document {name!r}")
    identity = digest(ring, document, question, passage)
    content: dict[str, Any] = {"id": identity, "ring": ring, "document": document or identity, "question": question}
    content |= {"gold": gold, "answerable": answerable, "passage": passage, "evidence": evidence}
    return Question.model_validate(content)


def _first_span(document: Document | None, quote: str) -> Span | None:
    """Return the span of a quote's first occurrence in a document, or None."""
    if document is None or not quote or (start := document.text.find(quote)) < 0:
        return None
    return Span(document=document.id, start=start, end=start + len(quote), quote=quote)


def held_out_questions(samples: Sequence[Sample], refusal: str) -> list[Question]:
    """Return the questions of held-out chats of one exchange; the ``document`` of a chat is the question's cluster."""
    questions: dict[str, Question] = {}
    for sample in samples:
        turns = [message for message in sample.messages if message.role != "system"]
        if [turn.role for turn in turns] != ["user", "assistant"]:
            continue  # of a held-out group, but no question: it is not trained on either
        cluster = sample.document or sample.id
        identity = digest("learned", cluster, sample.question, None)
        question = Question(
            id=identity,
            ring="learned",
            document=cluster,
            question=sample.question,
            gold=sample.answer,
            answerable=sample.answer != refusal,
        )
        questions.setdefault(identity, question)
    return list(questions.values())


CALLS_PER_QUESTION = 3  # at most, per document


@dataclass
class _DocumentProgress:
    """The state of the questions on one document.

    Attributes:
        num_needed: questions that the recipe requires; an unseen question with and without passage counts once.
        num_used: sentences already used, in the order of ``ranked``.
        num_accepted: questions accepted so far.
    """

    document: Document
    ring: Ring
    num_needed: int
    ranked: list[EvidenceSentence]
    num_used: int = 0
    num_accepted: int = 0
    questions: list[Question] = field(default_factory=list)

    def next_sentences(self) -> list[EvidenceSentence]:
        """Return the sentences of the next round, and count them as used."""
        limit = min(len(self.ranked), CALLS_PER_QUESTION * self.num_needed)
        chosen = self.ranked[self.num_used : min(limit, self.num_used + self.num_needed - self.num_accepted)]
        self.num_used += len(chosen)
        return chosen


def question_id(ring: str, document: str, question: str, with_passage: bool) -> str:
    """Return an exam question's identifier, which depends only on its content."""
    return digest(ring, document, question, with_passage)


def write_exam(context: TaskContext, rings: dict[str, Ring]) -> tuple[list[Question], list[Rejection]]:
    """Ask for the exam's questions in rounds, until each document has enough or its sentences are used up.

    Args:
        context: the documents of both sides.
        rings: by document: learned for a training document, unseen for an exam document.
    """
    settings = context.recipe.exam
    num_needed = {"learned": settings.learned_per_document, "unseen": settings.unseen_per_document}
    states = [
        _DocumentProgress(
            document,
            rings[document.id],
            num_needed[rings[document.id]],
            ranked_evidence(document, context.chunks.get(document.id, ()), context.recipe.seed),
        )
        for document in context.documents
    ]
    rejections = [
        Rejection(stage=EXAM_STAGE, id=s.document.id, reason=NO_SENTENCE, detail=s.document.source)
        for s in states
        if s.num_needed and not s.ranked
    ]
    seen: set[str] = set()
    while round_ := [(state, evidence) for state in states for evidence in state.next_sentences()]:
        pairs = [(state.document, evidence) for state, evidence in round_]
        replies = ask_questions(context, "exam", pairs, "writing the exam")
        for (state, evidence), reply in zip(round_, replies, strict=True):
            rejection = _accept_or_reject(state, evidence, reply, seen, context.recipe.refusal)
            rejections += [rejection] if rejection else []
    return [question for state in states for question in state.questions], rejections


def _accept_or_reject(
    state: _DocumentProgress, evidence: EvidenceSentence, reply: Reply | None, seen: set[str], refusal: str
) -> Rejection | None:
    """Add the reply's question to the exam, or return its rejection; ``seen`` holds the accepted questions."""
    gold, title = evidence.sentence, state.document.title
    bare = clean_question(reply.text) if reply else ""
    fault = reply_fault(reply) or sentence_fault(bare, title, gold)
    question = stand_alone(bare, title, at_end=True)
    fault = fault or question_fault(question, gold)
    if not fault and normalize(question) in seen:
        fault = "duplicate question"
    if fault:
        identity = question_id(state.ring, state.document.id, question, False)
        return Rejection(stage=EXAM_STAGE, id=identity, reason=fault, detail=f"{question} <- {gold}"[:500])
    seen.add(normalize(question))
    state.num_accepted += 1
    state.questions += _variants(state, evidence, question, refusal)
    return None


def _variants(state: _DocumentProgress, evidence: EvidenceSentence, question: str, refusal: str) -> list[Question]:
    """Return a question's records: one for a learned question; two for an unseen one, without and with its passage."""
    variants: Sequence[tuple[bool, str, str | None]] = [(True, evidence.sentence, None)]
    if state.ring == "unseen":
        variants = [(False, refusal, None), (True, evidence.sentence, passage_text(evidence.chunk))]
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
