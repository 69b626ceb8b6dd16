"""PDFs: the text layer page by page, without running headers and footers, with words and columns put together again."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.documents.markup import (
    BOILERPLATE,
    Block,
    Failure,
    ReadItems,
    assemble,
    clean_text,
    parse_errors,
    single_line,
    without_text,
)
from tunewright.text.normalization import normalize
from tunewright.text.rows import ranges

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

_MAX_RUNNING = 3  # lines of a header or footer
_CUT_WORD = re.compile(r"([^\W_]+(?:-[^\W_]+)*)-\n([^\W_]+)")
_ELLIPTIC = frozenset(("and", "or", "und", "oder", "bzw", "et", "ou", "y", "o", "e", "og", "och", "en", "of", "to"))
_LEAST_COLUMN_LINES = 4
_LEAST_COLUMN_WORDS = 3  # a line on average; cells of a table have fewer


@dataclass
class _Page:
    """The lines of a page, and the heights at which text is, from the top."""

    lines: list[str]
    heights: list[float]


def read_pdf(path: Path) -> ReadItems:
    """Read a PDF's text layer and its form's values; the metadata ``pages`` holds the start offset of each page."""
    import pypdf

    with parse_errors("PDF"):
        try:
            reader = pypdf.PdfReader(path)
            if reader.is_encrypted and not reader.decrypt(""):
                return [Failure(reason="encrypted", detail="protected by a password")]
        except pypdf.errors.DependencyError as error:
            return [Failure(reason="encrypted", detail=str(error))]  # names the package to install
        pages = [_read_page(page) for page in reader.pages]
        title = single_line(str(reader.metadata.title or "")) if reader.metadata else ""
        form = _form_values(reader)
    empty = [number for number, page in enumerate(pages, 1) if not any(page.lines)]
    if len(empty) == len(pages) and not form:
        return [Failure(reason="no text", detail=f"{len(pages)} scanned page(s): run text recognition (OCR) first")]
    first = "\n".join(pages[0].lines)
    left_out = [*without_text("page", empty, len(pages)), *_remove_running_lines(pages)]
    text, starts = _joined(pages)
    if normalize(title) not in normalize(first):  # then it is often the name of a template or a file
        title = ""
    metadata = {"pages": " ".join(map(str, starts))}
    blocks: list[Block] = [(0, text), (0, form)]
    return [assemble(blocks, path.stem, title, metadata=metadata, left_out=left_out)]


def _read_page(page: PageObject) -> _Page:
    heights: set[int] = set()

    def note(text: str, transform: Any, matrix: Any, *_: Any) -> None:
        if text.strip():
            heights.add(round(matrix[4] * transform[1] + matrix[5] * transform[3] + transform[5]))

    lines = clean_text(page.extract_text(visitor_text=note)).split("\n")
    if len(lines) >= _LEAST_COLUMN_LINES and statistics.median(map(len, lines)) > 60:
        lines = _by_column(page, lines)
    return _Page(lines, sorted(map(float, heights), reverse=True))


def _by_column(page: PageObject, lines: list[str]) -> list[str]:
    """Return the lines of a page with two columns that were drawn row by row: the left column, then the right one."""
    laid_out = page.extract_text(extraction_mode="layout").split("\n")
    runs: list[list[tuple[str, str]]] = [[]]  # of rows with a gap at the same place; what lies between is one row each
    ordered: list[str] = []
    gutter: set[int] = set()

    def flush() -> None:
        rows = runs.pop()
        runs.append([])
        if _are_columns(rows):
            ordered.extend([*(left for left, _ in rows if left), *(right for _, right in rows if right)])
        else:
            ordered.extend(f"{left} {right}".strip() for left, right in rows)

    for line in filter(str.strip, laid_out):
        gap = _widest_gap(line)
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
    is_same = Counter("".join(cleaned).replace(" ", "")) == Counter("".join(lines).replace(" ", ""))
    return cleaned if is_same and len(list(filter(None, cleaned))) > len(list(filter(None, lines))) else lines


def _widest_gap(line: str) -> tuple[int, int] | None:
    """Return the widest gap of three blanks or more in the middle of a line."""
    gaps = [match.span() for match in re.finditer(r"(?<=\S) {3,}(?=\S)", line)]
    return max(gaps, key=lambda gap: gap[1] - gap[0]) if len(gaps) == 1 else None


def _are_columns(rows: list[tuple[str, str]]) -> bool:
    """Return whether rows with a gap are lines of two columns of prose, and not rows of a table."""
    if len(rows) < _LEAST_COLUMN_LINES:
        return False
    sides = [[row[side].split() for row in rows] for side in (0, 1)]
    words = [statistics.mean(map(len, side)) for side in sides]
    numbers = sum(any(c.isdigit() for c in word) for side in sides for line in side for word in line)
    return min(words) >= _LEAST_COLUMN_WORDS and numbers < 0.2 * sum(words) * len(rows)


def _remove_running_lines(pages: list[_Page]) -> Iterator[Failure]:
    """Empty the first and last lines that most pages repeat, apart from their numbers; yield what they were.

    One short line at each edge may lie close to the text. Several, and those of two pages, must lie apart from it.
    """
    with_text = [page for page in pages if any(page.lines)]
    for edge, name in ((1, "running header"), (-1, "running footer")):
        forms = [[re.sub(r"\d+", "#", line) for line in page.lines[::edge][:_MAX_RUNNING]] for page in with_text]
        for count in range(_MAX_RUNNING, 0, -1):
            common, num_pages = Counter(tuple(form[:count]) for form in forms).most_common(1)[0] if forms else ((), 0)
            enough = num_pages > len(with_text) / 2 if len(with_text) >= 3 else num_pages == len(with_text) == 2
            sharing = [page for page, form in zip(with_text, forms, strict=True) if tuple(form[:count]) == common]
            is_apart = all(len(page.lines) > count and _is_apart(page, edge, count) for page in sharing)
            is_short = count == 1 and len(with_text) >= 3 and all(_is_short(page, edge) for page in sharing)
            if not enough or not all(common) or not (is_apart or is_short):
                continue
            numbers = [number for number, page in enumerate(pages, 1) if any(page is other for other in sharing)]
            lines = " / ".join(sharing[0].lines[::edge][:count][::edge])
            detail = f"on {num_pages} pages ({', '.join(ranges(numbers))}): {lines}"
            for page in sharing:
                for index in range(count):
                    page.lines[index if edge == 1 else -1 - index] = ""
            yield Failure(part=name, reason=BOILERPLATE, detail=detail)
            break


def _is_short(page: _Page, edge: int) -> bool:
    """Return whether the first or last line is clearly shorter than the longest: a line of running text is not."""
    return len(page.lines) > 1 and len(page.lines[::edge][0]) < 0.8 * max(map(len, page.lines))


def _is_apart(page: _Page, edge: int, count: int) -> bool:
    """Return whether more space than between two usual lines parts the first or last lines from the others."""
    gaps = [above - below for above, below in zip(page.heights, page.heights[1:], strict=False)][::edge]
    return len(gaps) > count and gaps[count - 1] > 1.4 * statistics.median(gaps)


def _joined(pages: list[_Page]) -> tuple[str, list[int]]:
    """Return the running text of the pages and where each starts."""
    lengths = [len(line) for page in pages for line in page.lines if line]
    width = statistics.median(lengths) if lengths else 0
    whole = " ".join(line for page in pages for line in page.lines).lower()
    words = frozenset(re.findall(r"[^\W_]+(?:-[^\W_]+)*", whole))
    text, starts = "", []
    for page in pages:
        rejoined = _CUT_WORD.sub(lambda match: _rejoined(match, words), "\n".join(page.lines))
        piece = clean_text(_unwrap(rejoined.split("\n"), width))
        # A sentence that continues on the next page is not split.
        text += "" if not text or not piece else "\n\n" if text[-1] in ".!?:" else " "
        starts.append(len(text))
        text += piece
    return text, starts


def _rejoined(match: re.Match[str], words: frozenset[str]) -> str:
    """Return a word that a line end cuts: without its hyphen, unless the hyphen is its own.

    It is its own before a capital or a digit, after another hyphen, and where the document writes it so elsewhere.
    """
    left, right = match.groups()
    if right.lower() in _ELLIPTIC and left.lower() + right.lower() not in words:
        return f"{left}- {right}"
    last = left.rpartition("-")[2]
    is_own = (
        "-" in left
        or right[0].isupper()
        and not (last.isupper() and right.isupper())
        or right[0].isdigit()
        or last[-1].isdigit()
        or f"{left}-{right}".lower() in words
        and f"{left}{right}".lower() not in words
    )
    return f"{left}-{right}" if is_own else f"{left}{right}"


def _unwrap(lines: list[str], width: float) -> str:
    """Return the lines as running text; a line shorter than 0.7 times ``width`` ends its paragraph."""
    text = ""
    for line in lines:
        text += line + (" " if len(line) >= 0.7 * width else "\n\n")
    return text


def _form_values(reader: PdfReader) -> str:
    """Return the filled fields of a form, one a line, as ``name: value``."""
    lines = []
    for name, field in (reader.get_fields() or {}).items():
        value = field.get("/V")
        value = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
        kind = str(field.get("/FT") or "")
        if kind == "/Btn":
            value = {"/Yes": "yes", "/On": "yes", "/1": "yes", "/Off": ""}.get(value, value.removeprefix("/"))
        if kind in ("/Tx", "/Ch", "/Btn") and value.strip():
            lines.append(f"{single_line(str(field.get('/TU') or name))}: {single_line(value)}")
    return "\n".join(lines)
