"""CSV tables that are safe to open in a spreadsheet and read back unchanged."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tunewright.text.encoding import damaged_byte

# The start of a text that a spreadsheet runs as a formula, full-width forms included. Leading apostrophes count as part
# of it, so that a text that starts with our escape is escaped once more: unescape is the exact inverse of escape.
_FORMULA = re.compile(r"[\s']*[=+\-@＝＋－＠]|'*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?%?")
TABLES = frozenset({".csv", ".tsv"})  # suffixes
_BOM = "\ufeff"
_SEPARATOR_LINE = re.compile(r"\s*\"?sep=([,;\t|])\"?[,;\t]*\r?\n", re.IGNORECASE)


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


class TableRow(NamedTuple):
    """A row as a spreadsheet numbers it (the header is row 1): its cells by column, or why it cannot be read."""

    number: int
    cells: dict[str, str]
    fault: str = ""


def _delimiter(text: str) -> tuple[str, str]:
    """Return the table's delimiter and the table: by Excel's line ``sep=;``, else by which the header has most cells.

    Some countries' spreadsheets save semicolons or tabs.
    """
    named = _SEPARATOR_LINE.match(text)
    if named:
        return named[1], text[named.end() :]
    counts = {mark: len(next(csv.reader(io.StringIO(text, newline=""), delimiter=mark), [])) for mark in ",;\t"}
    return max(counts, key=lambda mark: counts[mark]), text


def _numbered(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str], str]]:
    """Yield the number, the cells and the fault of each row that holds text, or that cannot be read."""
    for number in itertools.count(1):
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, [], f"{error}: write quotes inside of quoted text twice"
            continue
        if any(cell.strip() for cell in cells):
            yield number, cells, damaged_byte("".join(cells))


def parse_table(text: str) -> tuple[list[str], list[TableRow]]:
    """Return the columns of a CSV table and its rows; rows without any text are left out, missing cells are empty.

    A row that is no row of the table is returned with its fault, so that all faults can be listed.

    Raises:
        csv.Error: the header cannot be read.
    """
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # one limit for the whole process
    delimiter, text = _delimiter(text.removeprefix(_BOM).lstrip("\r\n"))
    numbered = _numbered(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    _, columns, fault = next(numbered, (0, [], ""))
    if fault:
        raise csv.Error(f"the header: {fault}")
    rows = []
    for number, cells, row_fault in numbered:
        if any(cell.strip() for cell in cells[len(columns) :]):
            row_fault = row_fault or f"more cells than columns: put text with a {delimiter!r} in quotes"
        named = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
        other = next((name for name, cell in zip(columns, cells, strict=False) if name and named[name] != cell), None)
        if other is not None:
            row_fault = row_fault or f"two columns are named {other!r}"
        rows.append(TableRow(number, {} if row_fault else named, row_fault))
    return columns, rows


def read_table(text: str) -> tuple[list[str], list[TableRow]]:
    """Return the columns and the rows of a CSV table as ``parse_table`` does; what ``escape`` escaped is restored.

    Raises:
        csv.Error: see ``parse_table``.
    """
    columns, rows = parse_table(text)
    restored = [row._replace(cells={name: unescape(cell) for name, cell in row.cells.items()}) for row in rows]
    return columns, restored
