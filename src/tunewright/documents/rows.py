"""Readers of tables that hold one document per row: JSON lines and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunewright.documents.assembly import Failure, Read, ReadDocument, assemble, one_line, parsing
from tunewright.documents.markdown import decode

_BODY_COLUMNS = ("text", "content", "body")


def _row(row: dict[str, Any], stem: str, number: int) -> ReadDocument | Failure:
    """Return the document of one row: text from text, content or body; the other columns are metadata."""
    columns = {key.strip().lower(): key for key in row if isinstance(key, str)}
    key = next((columns[name] for name in _BODY_COLUMNS if name in columns), None)
    if key is None or not isinstance(row[key], str):
        return _no_text_column(row, str(number))
    title = columns.get("title")
    others = {
        one_line(name): one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in row.items()
        if name not in (key, title, None) and value not in (None, "")
    }
    # A row with an id keeps its name when other rows come or go.
    part = others.get("id", "")[:80] or str(number)
    declared = str(row[title] or "") if title else ""
    return assemble([(0, row[key])], f"{stem} {part}", declared, metadata=others, part=part)


def _no_text_column(columns: Iterable[object], part: str) -> Failure:
    named = one_line(", ".join(map(str, columns))) or "none"
    wanted = " or ".join(_BODY_COLUMNS)
    return Failure(part=part, reason="no text column", detail=f"columns: {named[:120]}; wanted: {wanted}")


def read_jsonl(path: Path) -> Read:
    """Read one document per JSON line: an object with a text, content or body, or a bare string."""
    text = decode(path.read_bytes())
    if isinstance(text, Failure):
        return [text]
    found: Read = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            row = {"text": row} if isinstance(row, str) else row
            found.append(_row(row if isinstance(row, dict) else {}, path.stem, number))
        except ValueError as error:
            found.append(Failure(part=str(number), reason="not JSON", detail=str(error)))
        except RecursionError:
            found.append(Failure(part=str(number), reason="not JSON", detail="nested too deep"))
    return found


def read_csv(path: Path) -> Read:
    """Read one document per row of a table with a header line; the delimiter is a comma, semicolon or tab."""
    text = decode(path.read_bytes())
    if isinstance(text, Failure):
        return [text]
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # one limit for the whole process
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    with parsing("table"):
        columns = rows.fieldnames or []
        if not any(name.strip().lower() in _BODY_COLUMNS for name in columns):
            return [_no_text_column(columns, "")]
        return [_row(row, path.stem, number) for number, row in enumerate(rows, 1)]
