"""The user's own exam: a table or JSON rows of questions with their right answers, or with options to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from tunewright.errors import UserError, reading
from tunewright.models.data_sources import renamed
from tunewright.records import Document, Question, QuestionKind, Rejection, Ring, Span, digest
from tunewright.synthesis.context import EXAM_STAGE
from tunewright.text.choice_rows import RowFault, answer_of, first_index, options_of, right_option, sound, texts_of
from tunewright.text.choices import gold_of, listed
from tunewright.text.rows import Row, file_rows, folded, listed_faults

REPEATED, CONTRADICTED = "repeated question", "repeated question with another answer"
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_QUESTION = ("question", "prompt")
_ROW_HINT = (
    "each row needs question and answer (or gold); answerable, kind, options, document (or source), passage, evidence "
    "and ring are optional: docs/exam.md"
)


@dataclass(frozen=True)
class _Sources:
    """What a row is read with: the documents, their rings, and whether the file numbers options from 0 or 1."""

    refusal: str
    by_id: Mapping[str, Document]
    ids: Mapping[str, str]  # the identifier of each title, source and identifier
    rings: Mapping[str, Ring]
    first_index: int | None


@dataclass
class _Rows:
    """The questions of the rows read so far, and the rows that give none."""

    questions: dict[str, Question] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)
    faults: list[tuple[Row, str]] = field(default_factory=list)


def read_own_exam(
    path: Path,
    refusal: str,
    documents: Mapping[str, Document],
    rings: Mapping[str, Ring],
    columns: Mapping[str, str] | None = None,
    name: str = "",
) -> tuple[list[Question], list[Rejection]]:
    """Return the questions of a user's own exam, and a rejection of each row that repeats an earlier question.

    A row's document may be an identifier, a source path or a title; a row without a document is a cluster of its own.
    Its ring is the one in the row, else its document's, else learned.

    Args:
        path: a table with a header line, JSON lines or a JSON array.
        refusal: the gold answer of unanswerable questions that have none.
        documents: the run's documents by identifier.
        rings: learned or unseen, by document.
        columns: our name of a column → its name in the file, where the file has it.
        name: of the exam in messages; the path where it is empty.

    Raises:
        UserError: the file is missing or empty, or rows are wrong; all of them are named.
    """
    name = name or str(path)
    with reading("exam", name, "correct exam.file in the recipe; in a spreadsheet, save as CSV UTF-8"):
        rows = [folded(_renamed(row, columns or {})) for row in file_rows(path)]
    if not rows:
        raise UserError(f"the exam {name} is empty", "it holds no questions", _ROW_HINT)
    ids = {name: d.id for d in documents.values() for name in (d.title, d.source, d.id)}
    sources = _Sources(refusal, documents, ids, rings, first_index(rows))
    result = _Rows()
    for row in rows:
        try:
            _add(result, row, _question(row, sources))
        except RowFault as fault:
            result.faults.append((row, str(fault)))
    if result.faults:
        raise _rows_error(name, result.faults, rows)
    return list(result.questions.values()), result.rejections


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    return row._replace(content=renamed(row.content, columns)) if isinstance(row.content, dict) else row


def _add(result: _Rows, row: Row, question: Question) -> None:
    first = result.questions.setdefault(question.id, question)
    if first is not question:
        same = (first.golds, first.answerable) == (question.golds, question.answerable)
        detail = f"{row.unit} {row.number}: {question.question}"[:500]
        reason = REPEATED if same else CONTRADICTED
        result.rejections.append(Rejection(stage=EXAM_STAGE, id=question.id, reason=reason, detail=detail))


def _rows_error(path: str, faults: Sequence[tuple[Row, str]], rows: Sequence[Row]) -> UserError:
    """Return the error that lists every row with a fault, by cause."""
    row, cause = faults[0]
    keys = next((list(row.content) for row in rows if isinstance(row.content, dict)), [])
    columns = f"the columns are: {', '.join(keys)[:300]}" if keys and len(faults) == len(rows) else ""
    if len(faults) == 1:
        cause = "\n  ".join(filter(None, [cause, columns]))
        return UserError(f"{path} {row.unit} {row.number} is not an exam question", cause, _ROW_HINT)
    headline = f"{len(faults)} of {len(rows)} {row.unit}s of {path} are not exam questions"
    return UserError(headline, "\n  ".join(filter(None, [*listed_faults(faults), columns])), _ROW_HINT)


def _text(row: Mapping[str, Any], *keys: str) -> str:
    """Return the text of the first of the keys that has one."""
    for key in keys:
        value = row.get(key)
        if value is not None and not isinstance(value, str | int | float):
            raise RowFault(f"{key} is not text")
        if value is not None and str(value).strip():
            return sound(str(value).strip())
    return ""


def _boolean(row: Mapping[str, Any], key: str) -> bool:
    """Return whether a row says true under a key; true where it says nothing."""
    value = _BOOLEANS.get((_text(row, key) or "true").lower())
    if value is None:
        raise RowFault(f"{key} is {_text(row, key)!r}, not true or false")
    return value


def _golds(row: Mapping[str, Any], answerable: bool, refusal: str) -> list[str]:
    value = answer_of(row)
    given = list(dict.fromkeys(texts_of(value, "answer"))) if value is not None else []
    golds = given or ([] if answerable else [refusal])
    if not golds:
        raise RowFault("answer (or gold) is missing or empty")
    return golds


def _question(row: Row, sources: _Sources) -> Question:
    """Return the question of one row, or raise its fault."""
    if row.fault:
        raise RowFault(f"not JSON: {row.fault}" if row.unit == "line" else row.fault)
    content = row.content
    if not isinstance(content, dict):
        raise RowFault("not a JSON object")
    question = _text(content, *_QUESTION)
    if not question:
        raise RowFault("question is missing or empty")
    answerable = _boolean(content, "answerable")
    options, labels = options_of(content) if answerable else ([], [])
    if options:
        question = listed(question, options) if _boolean(content, "listed") else question
        golds = [gold_of(question, options, right_option(content, options, labels, sources.first_index))]
    else:
        golds = _golds(content, answerable, sources.refusal)
    return _record(content, question, golds, answerable, options, sources)


def _record(
    row: Mapping[str, Any],
    question: str,
    golds: Sequence[str],
    answerable: bool,
    options: Sequence[str],
    sources: _Sources,
) -> Question:
    name, passage = _text(row, "document", "source"), _text(row, "passage") or None
    document = sources.ids.get(name, name)
    ring = _text(row, "ring") or sources.rings.get(document, "learned")
    if ring not in get_args(Ring):
        raise RowFault(f"ring is {ring!r}, not one of {', '.join(get_args(Ring))}")
    kind = _text(row, "kind").lower() or ("choice" if options else "free")
    if kind not in get_args(QuestionKind) or (kind == "choice") != bool(options):
        raise RowFault(f"kind is {kind!r}: short, list and free go without options, choice with them")
    quote = _text(row, "evidence")
    evidence = _first_span(sources.by_id.get(document), quote)
    if quote and not evidence and sources.by_id:
        raise RowFault(f"its evidence does not occur word for word in the document {name!r}")
    identity = digest(ring, document, question, passage)
    content: dict[str, Any] = {"id": identity, "ring": ring, "document": document or identity, "question": question}
    content |= {"gold": golds[0], "further_golds": golds[1:], "answerable": answerable, "options": options}
    content["kind"] = kind if answerable else "free"
    return Question.model_validate(content | {"passage": passage, "evidence": evidence})


def _first_span(document: Document | None, quote: str) -> Span | None:
    """Return the span of a quote's first occurrence in a document, or None."""
    if document is None or not quote or (start := document.text.find(quote)) < 0:
        return None
    return Span(document=document.id, start=start, end=start + len(quote), quote=quote)
