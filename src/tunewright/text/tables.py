"""Tables that people open in a spreadsheet: safe to open, and read back unchanged."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

# What a spreadsheet runs as a formula, full-width forms too; apostrophes before it are counted in, so that a text
# which starts with our own escape is escaped once more and unescape is its exact inverse.
_FORMULA = re.compile(r"[\s']*[=+\-@＝＋－＠]|'*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?%?")
_BOM = "\ufeff"


def _runs(text: str) -> bool:
    return _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None


def escape(text: str) -> str:
    """Return the text with a leading apostrophe when a spreadsheet would run it; plain numbers stay as they are."""
    return f"'{text}" if _runs(text) else text


def unescape(text: str) -> str:
    """Return what ``escape`` was given."""
    return text[1:] if text.startswith("'") and _runs(text[1:]) else text


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a CSV, every cell quoted.

    It starts with a byte order mark, without which spreadsheets read UTF-8 as the machine's old code page.
    """
    table = io.StringIO()
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    writer.writerows([escape(cell) for cell in row] for row in rows)
    return _BOM + table.getvalue()


def read_table(text: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns of a CSV, and its rows by column with the line that each ends on; missing cells are empty.

    Spreadsheets of some countries save with semicolons or tabs; the header tells.

    Raises:
        csv.Error: it is no CSV, or a row has more cells than there are columns.
    """
    text = text.removeprefix(_BOM)
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        columns = next(reader, [])
        for cells in reader:
            if len(cells) > len(columns):
                raise csv.Error(f"more cells than columns: put text with a {delimiter!r} in quotes")
            if cells:
                found = dict.fromkeys(columns, "") | dict(zip(columns, map(unescape, cells), strict=False))
                rows.append((reader.line_num, found))
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num}: {error}") from error
    return columns, rows
