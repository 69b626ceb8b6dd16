"""Documents of tables, JSON and notebooks: one a row, or one a file."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunewright.documents.markdown import markdown_blocks, without_comments
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
from tunewright.documents.web import read_page
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


def read_json(path: Path) -> ReadItems:
    """Read a JSON file: an array of rows with text as one document each, anything else as one document of lines.

    A line holds a value behind the names that lead to it, an array of alike objects the rows of a table.
    """
    decoded = decode_text(path.read_bytes())
    if isinstance(decoded, Failure):
        return [decoded]
    try:
        content = json.loads(decoded.text, parse_float=str, parse_int=str)  # numbers as they are written
    except ValueError as error:
        return [Failure(reason="not JSON", detail=str(error))]
    except RecursionError:
        return [Failure(reason="not JSON", detail="nested too deep")]
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        items = [_row(row, path.stem, number) for number, row in enumerate(content, 1)]
        if any(isinstance(item, ReadDocument) for item in items):
            return _in_encoding(items, decoded)
    text, left_out = without_base64("\n".join(_value_lines(content, "")))
    title = content.get("title") if isinstance(content, dict) else None
    declared = title if isinstance(title, str) else ""
    return [in_encoding(assemble([(0, text)], path.stem, declared, left_out=left_out), decoded)]


def _value_lines(value: object, path: str) -> Iterator[str]:
    """Yield the lines of a JSON value, each with the names that lead to it."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _value_lines(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for item in value:
            cells = (line for name, cell in item.items() for line in _value_lines(cell, str(name)))
            yield (f"{path}: " if path else "") + " | ".join(cells)
    elif isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        yield f"{path}: {', '.join(map(_scalar, value))}" if path else "\n".join(map(_scalar, value))
    elif isinstance(value, list):
        for item in value:
            yield from _value_lines(item, path)
    elif value not in (None, ""):
        yield f"{path}: {_scalar(value)}" if path else _scalar(value)


def _scalar(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def read_notebook(path: Path) -> ReadItems:
    """Read a notebook (.ipynb): its text as Markdown, its code and printed results as fenced blocks."""
    decoded = decode_text(path.read_bytes())
    if isinstance(decoded, Failure):
        return [decoded]
    try:
        content = json.loads(decoded.text)
    except ValueError as error:
        return [Failure(reason="not JSON", detail=str(error))]
    except RecursionError:
        return [Failure(reason="not JSON", detail="nested too deep")]
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        return [Failure(reason="unreadable", detail="not a notebook of version 4: it has no cells")]
    pieces: list[str] = []
    num_figures = 0
    for cell in (cell for cell in cells if isinstance(cell, dict)):
        source = _joined(cell.get("source"))
        pieces.append(_fenced(source) if cell.get("cell_type") == "code" else source)
        for output in cell.get("outputs") or () if isinstance(cell.get("outputs"), list) else ():
            data = output.get("data") if isinstance(output, dict) else None
            data = data if isinstance(data, dict) else {}
            has_figure = any(str(kind).startswith("image/") for kind in data)
            num_figures += has_figure
            if isinstance(output, dict) and not has_figure:
                shown = [_joined(data.get(kind)) for kind in ("text/markdown", "text/latex")]
                printed = _joined(output.get("text")) or _joined(data.get("text/plain"))
                pieces.append(next(filter(str.strip, shown), "") or _fenced(printed) or _page_text(data))
    text, left_out = without_base64("\n\n".join(filter(str.strip, pieces)))
    if num_figures:
        left_out.append(Failure(part="figures", reason="not read", detail=f"{num_figures} figure(s)"))
    blocks = markdown_blocks(without_comments(text))
    return [in_encoding(assemble(blocks, path.stem, left_out=left_out), decoded)]


def _page_text(data: dict[str, Any]) -> str:
    """Return the text of a result that is a page alone."""
    page = _joined(data.get("text/html"))
    return _fenced(read_page(page, "").text) if page.strip() else ""


def _joined(source: object) -> str:
    return "".join(map(str, source)) if isinstance(source, list) else source if isinstance(source, str) else ""


def _fenced(code: str) -> str:
    """Return code in a fence that is longer than any in it."""
    longest = max((len(match) for match in re.findall("`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{code.rstrip()}\n{fence}" if code.strip() else ""
