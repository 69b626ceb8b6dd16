"""Workbooks (.xlsx): each sheet a section, each row a line of ``header: value``."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.documents.cell_values import shown_value
from tunewright.documents.markup import (
    Block,
    Failure,
    ReadItems,
    assemble,
    parse_errors,
    raised,
    single_line,
    struck,
    without_text,
)
from tunewright.documents.package import check_package

if TYPE_CHECKING:
    from openpyxl.cell.read_only import EmptyCell, ReadOnlyCell
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

MAX_CELLS = 2_000_000  # of one workbook
_MAX_COLUMNS = 2_000
_MAX_MERGED = 20_000  # ranges of a worksheet


def read_xlsx(path: Path) -> ReadItems:
    """Read the values that a workbook shows; hidden sheets, sheets without text and values never computed are named.

    The first row of a worksheet's first table is its header, where each column has a text there; of a table of two
    columns, and of tables after an empty row, only where that row is bold: else its values would name others falsely.
    """
    import openpyxl

    if failure := check_package(path):
        return [failure]
    blocks: list[Block] = []
    empty: list[int] = []
    hidden: list[str] = []
    with parse_errors(".xlsx"):
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False, rich_text=True)
        worksheets = list(workbook.worksheets)
        num_cells = 0
        for number, worksheet in enumerate(worksheets, 1):
            if worksheet.sheet_state != "visible":
                hidden.append(single_line(worksheet.title))
                continue
            rows = []
            for row in _rows(worksheet):
                num_cells += len(row.cells)
                if num_cells > MAX_CELLS:
                    return [Failure(reason="too large", detail=f"more than {MAX_CELLS:,} cells")]
                rows.append(row)
            if not any(row.cells for row in rows):
                empty.append(number)
            else:
                _fill_merged(rows, _merged(path, worksheet))
                blocks += [(1, worksheet.title), (0, "\n".join(_lines(rows)))]
        title = workbook.properties.title or ""
        author = single_line(workbook.properties.creator or "")
        workbook.close()
    if len(empty) + len(hidden) == len(worksheets):
        return [Failure(reason="no text", detail=f"{len(worksheets)} sheet(s) without values that are shown")]
    left_out = without_text("sheet", empty, len(worksheets))
    if hidden:
        left_out.append(Failure(part="hidden sheets", reason="hidden", detail=", ".join(hidden)))
    if uncomputed := _num_uncomputed(path):
        detail = f"{uncomputed} formula(s) have no value: open the file in a spreadsheet and save it"
        left_out.append(Failure(part="formulas", reason="not computed", detail=detail))
    return [assemble(blocks, path.stem, title or path.stem, metadata={"author": author}, left_out=left_out)]


@dataclass
class _Row:
    """The texts of a row's cells, whether all are bold, and the ranges of columns that one cell spans."""

    cells: list[str]
    is_bold: bool = False
    spans: list[tuple[int, int]] = field(default_factory=list)


def _rows(worksheet: ReadOnlyWorksheet) -> Iterator[_Row]:
    """Yield the rows, without empty cells at the end."""
    worksheet.reset_dimensions()  # what the file declares may be wrong, or a million rows
    for row in worksheet.iter_rows(max_col=_MAX_COLUMNS):
        texts = [_shown(cell) for cell in row]
        while texts and not texts[-1]:
            texts.pop()
        yield _Row(texts, bool(texts) and all(cell.font.b for cell in row if cell.value is not None))


def _shown(cell: ReadOnlyCell | EmptyCell) -> str:
    """Return a cell's text; superscripts and struck-out text are marked."""
    from openpyxl.cell.rich_text import CellRichText, TextBlock

    value = cell.value
    if isinstance(value, CellRichText):
        pieces = []
        for part in value:
            text, font = (part.text, part.font) if isinstance(part, TextBlock) else (str(part), None)
            text = raised(text) if font and font.vertAlign == "superscript" else text
            pieces.append(struck(text) if font and font.strike else text)
        value = "".join(pieces)
    text = shown_value(value, getattr(cell, "number_format", "") or "")
    return struck(text) if text and value is not None and cell.font.strike else text


def _merged(path: Path, worksheet: ReadOnlyWorksheet) -> Iterator[tuple[int, int, int, int]]:
    """Yield the first column, first row, last column and last row of merged cells, from 0."""
    from openpyxl.utils.cell import range_boundaries

    with zipfile.ZipFile(path) as package:
        content = package.read(worksheet._worksheet_path)
    for match in islice(
        re.finditer(rb'<mergeCell\s[^>]*?ref="([A-Z]{1,3}[0-9]{1,7}:[A-Z]{1,3}[0-9]{1,7})"', content), _MAX_MERGED
    ):
        left, top, right, bottom = (int(number) - 1 for number in range_boundaries(match[1].decode()))
        yield left, top, right, bottom


def _fill_merged(rows: list[_Row], merged: Iterable[tuple[int, int, int, int]]) -> None:
    """Put the text of a cell that spans several rows into each, and note the columns that one spans."""
    for left, top, right, bottom in merged:
        text = rows[top].cells[left] if top < len(rows) and left < len(rows[top].cells) else ""
        if text and right > left:
            rows[top].spans.append((left, right))
        for row in rows[top + 1 : bottom + 1] if text else ():
            row.cells += [""] * (left + 1 - len(row.cells))
            row.cells[left] = text


def _lines(rows: Sequence[_Row]) -> Iterator[str]:
    """Yield rows as lines, ``header: value`` for each filled cell where a table has a header."""
    is_first = True
    for is_filled, group in groupby(rows, key=lambda row: any(row.cells)):
        if is_filled:
            table = list(group)
            start = next((i for i, row in enumerate(table) if sum(map(bool, row.cells)) > 1), 0)
            header, num_rows = _header(table[start:], is_first)
            for row in table[: start if header else None]:
                # An empty cell keeps its column, but for a title above the table.
                yield " | ".join(row.cells if sum(map(bool, row.cells)) > 1 else filter(None, row.cells))
            for row in table[start + num_rows :] if header else ():
                named = zip_longest(header, row.cells, fillvalue="")
                yield " | ".join(f"{name}: {value}" if name else value for name, value in named if value)
            is_first = is_first and len(table) < start + 2


def _header(table: Sequence[_Row], is_first: bool) -> tuple[list[str], int]:
    """Return the names of a table's columns and how many rows they take; none where its first row is no header."""
    names, num_rows = list(table[0].cells), 1
    spans = table[0].spans
    if len(table) > 2 and _goes_on(table):  # a header of two rows
        below = table[1].cells + [""] * max(0, max(right for _, right in spans) + 1 - len(table[1].cells))
        names += [""] * (len(below) - len(names))
        for left, right in spans:
            names[left : right + 1] = [names[left]] * (right + 1 - left)
        names = [
            name if below[i : i + 1] in ([], [""], [name]) else f"{name} {below[i]}".strip()
            for i, name in enumerate(names)
        ]
        num_rows = 2
    filled = [name for name in names if name]
    is_sure = table[0].is_bold and not table[-1].is_bold or is_first and max(len(row.cells) for row in table) > 2
    is_header = is_sure and len(table) > num_rows and len(filled) > 1 and len(set(filled)) == len(filled)
    return (names, num_rows) if is_header and not any(map(_is_number, filled)) else ([], 0)


def _goes_on(table: Sequence[_Row]) -> bool:
    """Return whether the second row names the columns that cells of the header span, and is no row of values itself.

    It is none where it leaves the other columns alone, or where only the values below it are numbers.
    """
    header, below = table[0], table[1].cells
    spanned = {column for left, right in header.spans for column in range(left, right + 1)}
    others = [pair for column, pair in enumerate(zip(header.cells, below, strict=False)) if column not in spanned]
    is_apart = all(not name or text in ("", name) for name, text in others)
    has_numbers, is_above_numbers = (any(map(_is_number, filter(None, cells))) for cells in (below, table[2].cells))
    return bool(spanned) and not has_numbers and (is_apart or is_above_numbers)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).rstrip("%").isdigit()


def _num_uncomputed(path: Path) -> int:
    """Return how many formulas have no stored value."""
    count = 0
    with zipfile.ZipFile(path) as package:
        for name in package.namelist():
            if name.startswith("xl/worksheets/") and name.endswith(".xml"):
                count += len(re.findall(rb"</f>\s*(?:<v\s*/>|<v></v>)?\s*</c>", package.read(name)))
    return count
