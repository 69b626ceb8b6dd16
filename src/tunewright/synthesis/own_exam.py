"""The user's own exam: a table or JSON rows of questions with their right answers, or with options to choose from."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase
from typing import Any, get_args

from tunewright.errors import UserError, reading
from tunewright.models.data_sources import renamed
from tunewright.records import Document, Question, Rejection, Ring, Span, digest
from tunewright.synthesis.context import EXAM_STAGE
from tunewright.text.choices import MOST_OPTIONS, SEVERAL, listed, option_text
from tunewright.text.rows import Row, file_rows

REPEATED, CONTRADICTED = "repeated question", "repeated question with another answer"
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_QUESTION, _ANSWER = ("question", "prompt"), ("gold", "answer", "answers", "answerkey", "answer_index", "completion")
_ROW_HINT = (
    "each row needs question and answer (or gold); answerable, options, document (or source), passage, evidence "
    "and ring are optional: docs/exam.md"
)
_MOST_CAUSES, _MOST_ROWS = 12, 30  # that one message lists


class _RowFault(ValueError):
    """Why a row is not an exam question."""


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

    Raises:
        UserError: the file is missing or empty, or rows are wrong; all of them are named.
    """
    with reading("exam", path, "correct exam.file in the recipe; in a spreadsheet, save as CSV UTF-8"):
        rows = [_folded(row, columns or {}) for row in file_rows(path)]
    if not rows:
        raise UserError(f"the exam {path} is empty", "it holds no questions", _ROW_HINT)
    ids = {name: d.id for d in documents.values() for name in (d.title, d.source, d.id)}
    sources = _Sources(refusal, documents, ids, rings, _first_index(rows))
    result = _Rows()
    for row in rows:
        try:
            _add(result, row, _question(row, sources))
        except _RowFault as fault:
            result.faults.append((row, str(fault)))
    if result.faults:
        raise _rows_error(path, result.faults, rows)
    return list(result.questions.values()), result.rejections


def _folded(row: Row, columns: Mapping[str, str]) -> Row:
    """Return a row with our names of its columns in lower case."""
    if not isinstance(row.content, dict):
        return row
    content = {str(key).strip().lower(): value for key, value in renamed(row.content, columns).items()}
    return row._replace(content=content)


def _add(result: _Rows, row: Row, question: Question) -> None:
    first = result.questions.setdefault(question.id, question)
    if first is not question:
        same = (first.golds, first.answerable) == (question.golds, question.answerable)
        detail = f"{row.unit} {row.number}: {question.question}"[:500]
        reason = REPEATED if same else CONTRADICTED
        result.rejections.append(Rejection(stage=EXAM_STAGE, id=question.id, reason=reason, detail=detail))


def _rows_error(path: Path, faults: Sequence[tuple[Row, str]], rows: Sequence[Row]) -> UserError:
    """Return the error that lists every row with a fault, by cause."""
    row, cause = faults[0]
    keys = next((list(row.content) for row in rows if isinstance(row.content, dict)), [])
    columns = f"the columns are: {', '.join(keys)[:300]}" if keys and len(faults) == len(rows) else ""
    if len(faults) == 1:
        cause = "\n  ".join(filter(None, [cause, columns]))
        return UserError(f"{path} {row.unit} {row.number} is not an exam question", cause, _ROW_HINT)
    numbers: dict[str, list[int]] = defaultdict(list)
    for row, cause in faults:
        numbers[cause].append(row.number)
    causes = [f"{cause}: {_listed_numbers(row.unit, at)}" for cause, at in list(numbers.items())[:_MOST_CAUSES]]
    left = sum(len(at) for at in list(numbers.values())[_MOST_CAUSES:])
    causes += [f"and {left} more with other causes"] if left else []
    headline = f"{len(faults)} of {len(rows)} {row.unit}s of {path} are not exam questions"
    return UserError(headline, "\n  ".join(filter(None, [*causes, columns])), _ROW_HINT)


def _listed_numbers(unit: str, numbers: Sequence[int]) -> str:
    """Return numbers in ascending order as "rows 2, 5 to 9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(a) if a == b else f"{a} to {b}" for a, b in runs]
    more = f" and {len(texts) - _MOST_ROWS} more" if len(texts) > _MOST_ROWS else ""
    return f"{unit}{'s' if len(numbers) > 1 else ''} {', '.join(texts[:_MOST_ROWS])}{more}"


def _text(row: Mapping[str, Any], *keys: str) -> str:
    """Return the text of the first of the keys that has one."""
    for key in keys:
        value = row.get(key)
        if value is not None and not isinstance(value, str | int | float):
            raise _RowFault(f"{key} is not text")
        if value is not None and str(value).strip():
            return _sound(str(value).strip())
    return ""


def _sound(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _RowFault("a text holds half a surrogate pair, such as a cut emoji")
    return text


def _values(value: object, name: str) -> list[str]:
    """Return the texts of a list, of a JSON list in a cell, of a cell with ``||``, or of {"text": [...]}."""
    if isinstance(value, dict):
        value = value.get("text", list(value.values()))
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = [value]
    values = value.split(SEVERAL) if isinstance(value, str) else value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | float) for item in values):
        raise _RowFault(f"{name} is not text, nor a list of texts")
    return [_sound(str(item).strip()) for item in values if str(item).strip()]


def _answer(row: Mapping[str, Any]) -> Any:
    return next((row[key] for key in _ANSWER if row.get(key) not in (None, "", [], {})), None)


def _bare(answer: object) -> str:
    """Return the letter of "(B)" or "b." in lower case."""
    return str(answer).strip().strip("().: ").lower()


def _options(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return a row's options and the labels that its answer may name them by; none where it is no choice."""
    value = row.get("options") or row.get("choices")
    letters = list(ascii_lowercase[:MOST_OPTIONS])
    if not value:
        named = [letter for letter in letters[: letters.index("k")] if row.get(letter) not in (None, "")]
        is_choice = len(named) > 1 and _bare(_answer(row)) in named
        return ([str(row[letter]).strip() for letter in named], named) if is_choice else ([], [])
    options = _values(value, "options")
    labels = letters[: len(options)]
    if isinstance(value, dict):
        labels = [
            str(label).strip().lower() for label in value.get("label", () if "text" in value else value)
        ] or labels
    if not 2 <= len(options) <= MOST_OPTIONS or len(labels) != len(options):
        raise _RowFault(f"options are {len(options)}: 2 to {MOST_OPTIONS} are needed, each with a text")
    return options, labels


def _first_index(rows: Sequence[Row]) -> int | None:
    """Return whether the file numbers its options from 0 or from 1; None where that cannot be known."""
    indexed: list[tuple[int, int]] = []
    for row in rows:
        try:
            options, labels = _options(row.content) if isinstance(row.content, dict) else ([], [])
        except _RowFault:
            continue
        answer = str(_answer(row.content)).strip() if options else ""
        if re.fullmatch(r"\d{1,2}", answer) and answer not in labels:
            indexed.append((int(answer), len(options)))
    if any(index == 0 for index, _ in indexed):
        return 0
    return 1 if any(index == num for index, num in indexed) else None


def _right_option(row: Mapping[str, Any], options: Sequence[str], labels: Sequence[str], first: int | None) -> int:
    answer = _answer(row)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, str | int):
        raise _RowFault("answer is missing or empty" if answer is None else "answer names no single option")
    plain = str(answer).strip()
    texts = [option.lower() for option in options]
    behind_letters = [option_text(options, index).lower() for index in range(len(options))]
    for names, name in ((labels, _bare(answer)), (texts, plain.lower()), (behind_letters, plain.lower())):
        if names.count(name) == 1:
            return names.index(name)
    if re.fullmatch(r"\d{1,2}", plain):
        if first is None:
            raise _RowFault("whether answer counts the options from 0 or from 1 is not clear: write letters")
        if 0 <= int(plain) - first < len(options):
            return int(plain) - first
    raise _RowFault(f"answer {plain[:40]!r} names none of its {len(options)} options")


def _golds(row: Mapping[str, Any], answerable: bool, refusal: str) -> list[str]:
    value = _answer(row)
    given = list(dict.fromkeys(_values(value, "answer"))) if value is not None else []
    golds = given or ([] if answerable else [refusal])
    if not golds:
        raise _RowFault("answer (or gold) is missing or empty")
    return golds


def _question(row: Row, sources: _Sources) -> Question:
    """Return the question of one row, or raise its fault."""
    if row.fault:
        raise _RowFault(f"not JSON: {row.fault}" if row.unit == "line" else row.fault)
    content = row.content
    if not isinstance(content, dict):
        raise _RowFault("not a JSON object")
    question = _text(content, *_QUESTION)
    if not question:
        raise _RowFault("question is missing or empty")
    answerable = _BOOLEANS.get((_text(content, "answerable") or "true").lower())
    if answerable is None:
        raise _RowFault(f"answerable is {_text(content, 'answerable')!r}, not true or false")
    options, labels = _options(content) if answerable else ([], [])
    if options:
        golds = [option_text(options, _right_option(content, options, labels, sources.first_index))]
        question = listed(question, options)
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
        raise _RowFault(f"ring is {ring!r}, not one of {', '.join(get_args(Ring))}")
    quote = _text(row, "evidence")
    evidence = _first_span(sources.by_id.get(document), quote)
    if quote and not evidence and sources.by_id:
        raise _RowFault(f"its evidence does not occur word for word in the document {name!r}")
    identity = digest(ring, document, question, passage)
    content: dict[str, Any] = {"id": identity, "ring": ring, "document": document or identity, "question": question}
    content |= {"gold": golds[0], "further_golds": golds[1:], "answerable": answerable, "options": options}
    return Question.model_validate(content | {"passage": passage, "evidence": evidence})


def _first_span(document: Document | None, quote: str) -> Span | None:
    """Return the span of a quote's first occurrence in a document, or None."""
    if document is None or not quote or (start := document.text.find(quote)) < 0:
        return None
    return Span(document=document.id, start=start, end=start + len(quote), quote=quote)
