"""Documents of tables and JSON: one a row, or one a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunewright.documents.markup import (
    Failure,
    ReadDocument,
    ReadItems,
    assemble,
    decode_text,
    in_encoding,
    single_line,
    without_base64,
)
from tunewright.text.encoding import DecodedText
from tunewright.text.tables import parse_table

_BODY_COLUMNS = ("text", "content", "body")


def _row(row: dict[str, Any], stem: str, number: int) -> ReadDocument | Failure:
    """Return the document of a row: its text is the column text, content or body; other columns are metadata."""
    columns = {key.strip().lower(): key for key in row if isinstance(key, str)}
    key = next((columns[name] for name in _BODY_COLUMNS if name in columns), None)
    if key is None or not isinstance(row[key], str):
        return _no_text_column(row, str(number))
    title = columns.get("title")
    others = {
        single_line(name): single_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in row.items()
        if name not in (key, title, None) and value not in (None, "")
    }
    # A row with an id keeps its name when other rows come or go.
    part = others.get("id", "")[:80] or str(number)
    declared = str(row[title] or "") if title else ""
    text, left_out = without_base64(row[key])
    return assemble([(0, text)], f"{stem} {part}", declared, metadata=others, part=part, left_out=left_out)


def _no_text_column(columns: Iterable[object], part: str) -> Failure:
    names = single_line(", ".join(map(str, columns))) or "none"
    expected = " or ".join(_BODY_COLUMNS)
    return Failure(part=part, reason="no text column", detail=f"columns: {names[:120]}; wanted: {expected}")


def read_json_lines(path: Path) -> ReadItems:
    """Read one document per JSON line: an object with the key text, content or body, or a bare string."""
    decoded = decode_text(path.read_bytes())
    if isinstance(decoded, Failure):
        return [decoded]
    items: ReadItems = []
    for number, line in enumerate(decoded.text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            row = {"text": row} if isinstance(row, str) else row
            items.append(_row(row if isinstance(row, dict) else {}, path.stem, number))
        except ValueError as error:
            items.append(Failure(part=str(number), reason="not JSON", detail=str(error)))
        except RecursionError:
            items.append(Failure(part=str(number), reason="not JSON", detail="nested too deep"))
    return _in_encoding(items, decoded)


def _in_encoding(items: ReadItems, decoded: DecodedText) -> ReadItems:
    """Return the items with their encoding; its doubt is shown with the first document alone."""
    noted: ReadItems = []
    for item in items:
        if isinstance(item, ReadDocument):
            item = in_encoding(item, decoded)
            decoded = replace(decoded, doubt="")
        noted.append(item)
    return noted


def read_csv(path: Path) -> ReadItems:
    """Read one document per row of a CSV table with a header line; the delimiter is a comma, semicolon or tab."""
    decoded = decode_text(path.read_bytes())
    if isinstance(decoded, Failure):
        return [decoded]
    try:
        columns, rows = parse_table(decoded.text)
    except csv.Error as error:
        return [Failure(reason="not a table", detail=str(error))]
    if not any(name.strip().lower() in _BODY_COLUMNS for name in columns):
        return [_no_text_column(columns, "")]
    items: ReadItems = [
        Failure(part=str(number), reason="not a row of the table", detail=fault)
        if fault
        else _row(cells, path.stem, index)
        for index, (number, cells, fault) in enumerate(rows, 1)
    ]
    return _in_encoding(items, decoded)
