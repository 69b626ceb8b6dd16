"""PDFs: the text layer page by page, without running headers and footers, with words and columns put together again."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from tunewright.documents.markup import (
    BOILERPLATE,
    SCANNED,
    Block,
    Failure,
    ReadItems,
    assemble,
    clean_text,
    parse_errors,
    single_line,
    without_text,
)
from tunewright.documents.pdf_drawing import drawn_text
from tunewright.documents.pdf_layout import CELL, in_reading_order
from tunewright.documents.recognition import RecognizedPage
from tunewright.text.normalization import normalize
from tunewright.text.rows import ranges

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

_SURE = 0.8  # below this confidence, the text of a recognized page is doubted
_MAX_RUNNING = 3  # lines of a header or footer
_CUT_WORD = re.compile(r"([^\W_]+(?:-[^\W_]+)*)-\n([^\W_]+)")
_ELLIPTIC = frozenset(("and", "or", "und", "oder", "bzw", "et", "ou", "y", "o", "e", "og", "och", "en", "of", "to"))
_MOST_UNKNOWN = 0.2  # of a page's characters: with more of them in fonts without a meaning, only recognition reads it
_LEAST_LINES = 4  # of a page whose layout can matter


@dataclass
class _Page:
    """The lines of a page, the heights at which text is, from the top, and how many characters have no meaning."""

    lines: list[str]
    heights: list[float]
    num_unknown: int = 0


def read_pdf(path: Path, recognized: Mapping[int, RecognizedPage] = MappingProxyType({})) -> ReadItems:
    """Read a PDF's text layer and its form's values; the metadata ``pages`` holds the start offset of each page.

    Args:
        path: of the file.
        recognized: the text of scanned pages by their numbers, from 1.
    """
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
    read = {number: recognized[number] for number in empty if number in recognized and recognized[number].lines}
    for number, page in read.items():
        pages[number - 1] = _Page(clean_text("\n".join(page.lines)).split("\n"), [])
    empty = [number for number in empty if number not in read]
    if len(empty) == len(pages) and not form:
        if recognized:
            return [Failure(reason="no text", detail=_recognized_nothing(recognized))]
        detail = f"{len(pages)} page(s): {SCANNED}"
        return [Failure(reason="no text", detail=detail, scanned=tuple(empty))]
    first = "\n".join(pages[0].lines)
    left_out = [*_without_text(empty, len(pages), recognized), *_remove_running_lines(pages)]
    text, starts = _joined(pages)
    if normalize(title) not in normalize(first):  # then it is often the name of a template or a file
        title = ""
    metadata = {"pages": " ".join(map(str, starts)), **_confidence(read)}
    blocks: list[Block] = [(0, text), (0, form)]
    document = assemble(blocks, path.stem, title, metadata=metadata, left_out=left_out)
    weak = [number for number, page in read.items() if page.confidence < _SURE]
    doubts = [*document.doubts, *_doubts_of_fonts(pages)]
    doubt = f"text recognition is not sure of page(s) {', '.join(ranges(weak))}: confidence below {_SURE:g}"
    return [document.model_copy(update={"doubts": (*doubts, doubt) if weak else tuple(doubts)})]


def _doubts_of_fonts(pages: list[_Page]) -> Iterator[str]:
    """Yield how many characters are in fonts that do not say which they show: they copy as other letters."""
    marked = {number: page.num_unknown for number, page in enumerate(pages, 1) if page.num_unknown and any(page.lines)}
    if marked:
        where = f"{sum(marked.values())} character(s) of page(s) {', '.join(ranges(list(marked)))}"
        yield f"{where} are in fonts that do not say which they show, and are read as \ufffd"


def _confidence(read: Mapping[int, RecognizedPage]) -> dict[str, str]:
    """Return the metadata of recognized pages: which they are, and the confidence of each."""
    if not read:
        return {}
    confidences = " ".join(f"{page.confidence:.3f}" for page in read.values())
    return {"recognized_pages": " ".join(map(str, read)), "recognition_confidence": confidences}


def _recognized_nothing(recognized: Mapping[int, RecognizedPage]) -> str:
    faults = Counter(page.fault or "shows no text" for page in recognized.values())
    return ", ".join(f"{count} page(s): {fault}" for fault, count in faults.items())


def _without_text(empty: list[int], total: int, recognized: Mapping[int, RecognizedPage]) -> list[Failure]:
    """Return the failure of the pages without text: what recognition says of them, or that it could read them."""
    failures = without_text("page", empty, total)
    detail = _recognized_nothing({number: recognized[number] for number in empty if number in recognized})
    return [f.model_copy(update={"detail": detail, "scanned": ()}) for f in failures] if detail else failures


def _read_page(page: PageObject) -> _Page:
    drawn = drawn_text(page)
    if drawn.num_unknown > _MOST_UNKNOWN * (drawn.num_known + drawn.num_unknown):
        return _Page([""], [], drawn.num_unknown)
    lines = clean_text(drawn.text).split("\n")
    if len(lines) >= _LEAST_LINES:
        lines = in_reading_order(lines, page.extract_text(extraction_mode="layout").split("\n"))
    return _Page(lines, drawn.heights, drawn.num_unknown)


def _remove_running_lines(pages: list[_Page]) -> Iterator[Failure]:
    """Empty the first and last lines that most pages repeat, apart from page numbers; yield what they were.

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
            if not _count_pages([" ".join(page.lines[::edge][:count]) for page in sharing], numbers):
                continue
            lines = " / ".join(sharing[0].lines[::edge][:count][::edge])
            detail = f"on {num_pages} pages ({', '.join(ranges(numbers))}): {lines}"
            for page in sharing:
                for index in range(count):
                    page.lines[index if edge == 1 else -1 - index] = ""
            yield Failure(part=name, reason=BOILERPLATE, detail=detail)
            break


def _count_pages(lines: list[str], pages: list[int]) -> bool:
    """Return whether the numbers in lines stay, or rise with the pages, in three of four steps: others are facts."""
    values = [[int(number[-18:]) for number in re.findall(r"\d+", line)] for line in lines]
    steps = [
        all(after - before in (0, page - page_before) for before, after in zip(befores, afters, strict=True))
        for (page_before, befores), (page, afters) in pairwise(zip(pages, values, strict=True))
    ]
    return sum(steps) >= 0.75 * len(steps)


def _is_short(page: _Page, edge: int) -> bool:
    """Return whether the first or last line is clearly shorter than the longest: a line of running text is not."""
    return len(page.lines) > 1 and len(page.lines[::edge][0]) < 0.8 * max(map(len, page.lines))


def _is_apart(page: _Page, edge: int, count: int) -> bool:
    """Return whether more space than between two usual lines parts the first or last lines from the others."""
    gaps = [above - below for above, below in zip(page.heights, page.heights[1:], strict=False)][::edge]
    return len(gaps) > count and gaps[count - 1] > 1.4 * statistics.median(gaps)


def _joined(pages: list[_Page]) -> tuple[str, list[int]]:
    """Return the running text of the pages and where each starts."""
    lengths = [len(line) for page in pages for line in page.lines if line and CELL not in line]
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

    It is its own before a capital or a digit, shortly after a digit ("1H-pyrazole"), after another hyphen, and where
    the document writes it so elsewhere.
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
        or re.search(r"\d[^\W\d]{0,2}$", last)
        or f"{left}-{right}".lower() in words
        and f"{left}{right}".lower() not in words
    )
    return f"{left}-{right}" if is_own else f"{left}{right}"


def _unwrap(lines: list[str], width: float) -> str:
    """Return the lines as running text; a line shorter than 0.7 times ``width`` ends its paragraph, a row its line."""
    text = ""
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        if CELL in line:
            text += line + ("\n" if CELL in following else "\n\n")
        else:
            text += line + (" " if len(line) >= 0.7 * width and CELL not in following else "\n\n")
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
