"""A user's own exam, from a .jsonl or .csv file, in place of the written one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from tunewright.errors import UserError
from tunewright.recipe import Recipe
from tunewright.records import Document, Question, Ring, digest
from tunewright.spreadsheet import unescape

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_FORM = "each row needs question and answer (or gold); answerable, document (or source), passage and ring are optional"


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
    questions: dict[str, Question] = {}
    for number, row in _rows(path):
        question = _question(path, number, row, recipe, names, rings)
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
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            for row in reader:
                if None in row:
                    raise _fault(path, reader.line_num, "more cells than columns: put text with commas in quotes")
                yield reader.line_num, {str(k).strip().lower(): unescape(v or "") for k, v in row.items()}
        except csv.Error as error:
            raise _fault(path, reader.line_num, str(error)) from error
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


def _question(
    path: Path, number: int, row: Mapping[str, Any], recipe: Recipe, names: Mapping[str, str], rings: Mapping[str, Ring]
) -> Question:
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
    document = names.get(given, given)
    ring = text("ring") or rings.get(document, "learned")
    if ring not in get_args(Ring):
        raise _fault(path, number, f"ring is {ring!r}, not one of {', '.join(get_args(Ring))}")
    identity = digest(ring, document, question, passage)
    content = {"id": identity, "ring": ring, "document": document or identity, "question": question}
    return Question.model_validate({**content, "gold": gold, "answerable": answerable, "passage": passage})
