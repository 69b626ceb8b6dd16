"""The order of a PDF page's lines: running text as it is drawn; columns, tables and edges as they are laid out."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence

from tunewright.documents.markup import clean_text, lowered

_GAP = re.compile(r"(?<=\S) {3,}(?=\S)")
CELL = " | "  # between the cells of a table's row
_LEAST_COLUMN_LINES = 4
_LEAST_COLUMN_WORDS = 3  # a line on average; cells of a table have fewer
_LEAST_CELLS, _LEAST_ROWS = 3, 2
_MOST_CELL_WORDS = 3  # a cell on average; three columns of prose have more
_EDGE_LINES = 3  # of a header or footer


def in_reading_order(lines: list[str], laid_out: Sequence[str]) -> list[str]:
    """Return a page's lines in the order that a reader reads them.

    The order in which a page is drawn is right for running text. It is wrong for two columns drawn row by row, for
    tables drawn cell by cell, and for footers drawn first: there, the layout decides.

    Args:
        lines: as they are drawn.
        laid_out: the rows of the page from top to bottom, with blanks between them as wide as the page shows.
    """
    rows = [row for row in laid_out if row.strip()]
    return _with_tables(_with_edges(_by_column(lines, rows), rows), rows)


def _by_column(lines: list[str], laid_out: Sequence[str]) -> list[str]:
    """Return the lines of a page with two columns that were drawn row by row: the left column, then the right one."""
    runs: list[list[tuple[str, str]]] = [[]]  # of rows with a gap in the same columns; what lies between is a row each
    ordered: list[str] = []
    beside: list[str] = []  # what the columns have on one row
    gutter: set[int] = set()

    def flush() -> None:
        rows = runs.pop()
        runs.append([])
        if _are_columns(rows):
            beside.extend(left + right for left, right in rows if left and right)
            ordered.extend([*(left for left, _ in rows if left), *(right for _, right in rows if right)])
        else:
            ordered.extend(f"{left} {right}".strip() for left, right in rows)

    for line in laid_out:
        gap = _only_gap(line)
        columns = set(range(*gap)) if gap else set()
        if not gap or (gutter and not gutter & columns):
            flush()
            gutter = set()
        if gap:
            gutter = gutter & columns if gutter else columns
            runs[-1].append((line[: gap[0]].strip(), line[gap[1] :].strip()))
        else:
            ordered.append(line)
    flush()
    cleaned = clean_text("\n".join(" ".join(line.split()) for line in ordered)).split("\n")
    drawn = _bare("".join(lines))
    if Counter(_bare("".join(cleaned))) != Counter(drawn):
        return lines
    row_by_row = sum(_bare(clean_text(row)) in drawn for row in beside)
    return _with_marks(cleaned, lines) or lines if beside and row_by_row >= 0.8 * len(beside) else lines


def _only_gap(line: str) -> tuple[int, int] | None:
    """Return the gap of three blanks or more in the middle of a line, if there is exactly one."""
    gaps = [match.span() for match in _GAP.finditer(line)]
    return gaps[0] if len(gaps) == 1 else None


def _are_columns(rows: Sequence[tuple[str, str]]) -> bool:
    """Return whether rows with a gap are lines of two columns of prose, and not rows of a table."""
    if len(rows) < _LEAST_COLUMN_LINES:
        return False
    sides = [[row[side].split() for row in rows] for side in (0, 1)]
    words = [statistics.mean(map(len, side)) for side in sides]
    numbers = sum(any(c.isdigit() for c in word) for side in sides for line in side for word in line)
    return min(words) >= _LEAST_COLUMN_WORDS and numbers < 0.2 * sum(words) * len(rows)


def _with_edges(lines: list[str], rows: Sequence[str]) -> list[str]:
    """Return the lines with a footer last that is drawn first, and a header first that is drawn last.

    Other edge rows alone may be drawn before such a footer or after such a header: a column that ends lower than the
    one beside it is no footer, and neither are the last rows above a stamp that the layout does not show.
    """
    cleaned = [" ".join(clean_text(row).split()) for row in rows]
    once, edges = Counter(lines), {*cleaned[:_EDGE_LINES], *cleaned[-_EDGE_LINES:]}
    for is_last in (True, False):
        for count in range(min(_EDGE_LINES, len(cleaned) // 2), 0, -1):
            edge = cleaned[-count:] if is_last else cleaned[:count]
            if any(once[line] != 1 for line in edge):
                continue
            at = lines.index(edge[0])
            if lines[at : at + count] != edge:
                continue
            before, after = lines[:at], lines[at + count :]
            if is_last and after and after[0] in cleaned and edges.issuperset(before):
                lines = before + after + edge
            elif not is_last and before and before[-1] in cleaned and edges.issuperset(after):
                lines = edge + before + after
            break
    return lines


def _with_tables(lines: list[str], rows: Sequence[str]) -> list[str]:
    """Return the lines with the rows of tables in place of their cells, in whatever order these are drawn."""
    for table in _tables(rows):
        wanted = Counter(_bare("".join(cell for row in table for cell in row)))
        if span := _span(lines, wanted):
            marked = _with_marks([cell for row in table for cell in row], lines[slice(*span)])
            cells = iter(marked or ())
            marked_rows = [CELL.join(next(cells) for _ in row) for row in table] if marked else lines[slice(*span)]
            lines = [*lines[: span[0]], *marked_rows, *lines[span[1] :]]
    return lines


def _with_marks(texts: Sequence[str], drawn: Sequence[str]) -> list[str] | None:
    """Return texts of the layout with the superscripts of the same texts as they are drawn; None if these differ."""
    if not any(lowered(line) != line for line in drawn):
        return list(texts)
    plain = [lowered(line) for line in drawn]
    marked = []
    for text in texts:
        bare = lowered(text)
        forms = {
            line[m.start() : m.end()]
            for line, p in zip(drawn, plain, strict=True)
            for m in re.finditer(re.escape(bare), p)
        }
        raised_forms = {form for form in forms if lowered(form) != form}
        if raised_forms and len(forms) > 1 or not forms:
            return None
        marked.append(forms.pop() if raised_forms else text)
    return marked


def _tables(rows: Sequence[str]) -> list[list[list[str]]]:
    """Return the runs of rows that have three cells or more, of few words each."""
    runs: list[list[list[str]]] = [[]]
    for row in rows:
        cells = [" ".join(clean_text(cell).split()) for cell in _GAP.split(row.strip())]
        if len(cells) >= _LEAST_CELLS:
            runs[-1].append(cells)
        elif runs[-1]:
            runs.append([])
    return [
        run
        for run in runs
        if len(run) >= _LEAST_ROWS
        and statistics.mean(len(cell.split()) for row in run for cell in row) <= _MOST_CELL_WORDS
    ]


def _span(lines: Sequence[str], wanted: Counter[str]) -> tuple[int, int] | None:
    """Return the range of lines that together have these characters, blanks aside, if there is one."""
    texts = [_bare(line) for line in lines]
    total = wanted.total()
    end, length = 0, 0
    for start, text in enumerate(texts):
        while length < total and end < len(texts):
            length += len(texts[end])
            end += 1
        if length == total and text and Counter("".join(texts[start:end])) == wanted:
            return start, end
        length -= len(text)
    return None


def _bare(text: str) -> str:
    """Return text without blanks; the layout has no superscripts."""
    return "".join(lowered(text).split())
