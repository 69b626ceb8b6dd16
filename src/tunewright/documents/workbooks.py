"""Workbooks (.xlsx): each sheet a section, each row a line of ``header: value``."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.documents.cell_values import shown_value
from tunewright.documents.markup import Block, Failure, ReadItems, assemble, parse_errors, single_line, without_text
from tunewright.documents.package import check_package

if TYPE_CHECKING:
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

MAX_CELLS = 2_000_000  # of one workbook
_MAX_COLUMNS = 2_000


def read_xlsx(path: Path) -> ReadItems:
    """Read the values that a workbook shows; hidden sheets, sheets without text and values never computed are named.

    A worksheet's first row with a text in each filled column is its header.
    """
    import openpyxl

    if failure := check_package(path):
        return [failure]
    blocks: list[Block] = []
    empty: list[int] = []
    hidden: list[str] = []
    with parse_errors(".xlsx"):
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        worksheets = list(workbook.worksheets)
        num_cells = 0
        for number, worksheet in enumerate(worksheets, 1):
            if worksheet.sheet_state != "visible":
                hidden.append(single_line(worksheet.title))
                continue
            rows = []
            for row in _rows(worksheet):
                num_cells += len(row)
                if num_cells > MAX_CELLS:
                    return [Failure(reason="too large", detail=f"more than {MAX_CELLS:,} cells")]
                rows.append(row)
            if not any(any(row) for row in rows):
                empty.append(number)
            else:
                blocks += [(1, worksheet.title), (0, _table(rows))]
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


def _rows(worksheet: ReadOnlyWorksheet) -> Iterator[list[str]]:
    """Yield the rows as the texts of their cells, without empty cells at the end."""
    worksheet.reset_dimensions()  # what the file declares may be wrong, or a million rows
    for row in worksheet.iter_rows(max_col=_MAX_COLUMNS):
        texts = [shown_value(cell.value, getattr(cell, "number_format", "") or "") for cell in row]
        while texts and not texts[-1]:
            texts.pop()
        yield texts


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines, ``header: value`` for each filled cell if the worksheet has a header."""
    filled = [row for row in rows if any(row)]
    start = next((i for i, row in enumerate(filled) if sum(map(bool, row)) > 1), 0)
    header = filled[start] if filled else []
    names = [name for name in header if name]
    is_header = len(filled) > start + 1 and len(names) > 1 and len(set(names)) == len(names)
    is_header = is_header and not any(_is_number(name) for name in names)
    lines = [" | ".join(filter(None, row)) for row in (filled[:start] if is_header else filled)]
    for row in filled[start + 1 :] if is_header else []:
        cells = [
            f"{header[i]}: {value}" if i < len(header) and header[i] else value for i, value in enumerate(row) if value
        ]
        lines.append(" | ".join(cells))
    return "\n".join(lines)


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
