"""CSV tables that are safe to open in a spreadsheet and read back unchanged."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

# The start of a text that a spreadsheet runs as a formula, full-width forms included. Leading apostrophes count as part
# of it, so that a text that starts with our escape is escaped once more: unescape is the exact inverse of escape.
_FORMULA = re.compile(r"[\s']*[=+\-@＝＋－＠]|'*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?%?")
TABLES = frozenset({".csv", ".tsv"})  # suffixes
_BOM = "\ufeff"


def _is_formula(text: str) -> bool:
    return _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None


def escape(text: str) -> str:
    """Return the text, with a leading apostrophe if a spreadsheet would run it; plain numbers are unchanged."""
    return f"'{text}" if _is_formula(text) else text


def unescape(text: str) -> str:
    """Return the text that ``escape`` escaped."""
    return text[1:] if text.startswith("'") and _is_formula(text[1:]) else text


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a CSV table with every cell quoted.

    It starts with a byte order mark; without one, spreadsheets read UTF-8 as the machine's legacy code page.
    """
    table = io.StringIO()
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    writer.writerows([escape(cell) for cell in row] for row in rows)
    return _BOM + table.getvalue()


def delimiter_of(text: str) -> str:
    """Return the delimiter of a CSV table, by its header; some countries' spreadsheets save semicolons or tabs."""
    return max(",;\t", key=text.partition("\n")[0].count)


def table_rows(path: Path) -> list[tuple[int, dict[str, str | None]]]:
    """Return the rows of a .csv or .tsv file of data, each with the number of its last line; empty cells are None.

    Raises:
        ValueError: the file is not UTF-8 text or not a table.
    """
    try:
        _, rows = read_table(path.read_text(encoding="utf-8-sig"))
    except csv.Error as error:
        raise ValueError(f"not a table: {error}") from error
    return [(line, {name.strip(): cell or None for name, cell in row.items()}) for line, row in rows]


def read_table(text: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns of a CSV table, and its rows, each with the number of its last line; missing cells are empty.

    Raises:
        csv.Error: the text is not a CSV table, or a row has more cells than the header.
    """
    text = text.removeprefix(_BOM)
    delimiter = delimiter_of(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        columns = next(reader, [])
        for cells in reader:
            if len(cells) > len(columns):
                raise csv.Error(f"more cells than columns: put text with a {delimiter!r} in quotes")
            if cells:
                row = dict.fromkeys(columns, "") | dict(zip(columns, map(unescape, cells), strict=False))
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num}: {error}") from error
    return columns, rows
