"""Slides (.pptx): titles, text, tables, charts and speakers' notes, slide by slide."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.documents.cell_values import shown_value
from tunewright.documents.formulas import latex
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
from tunewright.documents.package import Package, check_package, core_properties, local_name, main_part

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_TITLES = ("title", "ctrTitle")
_RUNNING = ("dt", "ftr", "sldNum", "hdr", "sldImg")  # placeholders of date, footer, number, header, picture


def read_pptx(path: Path) -> ReadItems:
    """Read the slides of a presentation: each is a section, a table row one line, and its notes follow it.

    Hidden slides are left out and named, as are slides without text.
    """
    if failure := check_package(path):
        return [failure]
    blocks: list[Block] = []
    empty: list[int] = []
    hidden: list[int] = []
    unread: Counter[str] = Counter()
    with parse_errors(".pptx"), zipfile.ZipFile(path) as opened:
        package = Package(opened)
        title, author = core_properties(package)
        names = list(_slide_names(package))
        for number, name in enumerate(names, 1):
            slide = package.xml(name)
            if slide.get("show") == "0":
                hidden.append(number)
                continue
            read = list(_slide_blocks(package, name, slide, unread))
            if any(text.strip() for _, text in read):
                blocks += [(1, f"Slide {number}"), *read] if read[0][0] == 0 else read
            else:
                empty.append(number)
    if len(empty) + len(hidden) == len(names):
        return [Failure(reason="no text", detail=f"{len(names)} slide(s) without text that is shown")]
    left_out = without_text("slide", empty, len(names))
    if hidden:
        left_out.append(Failure(part="hidden slides", reason="hidden", detail=", ".join(map(str, hidden))))
    left_out += [Failure(part=f"{kind}s", reason="not read", detail=f"{n} {kind}(s)") for kind, n in unread.items()]
    return [assemble(blocks, path.stem, fallback_title=title, metadata={"author": author}, left_out=left_out)]


def _slide_names(package: Package) -> Iterator[str]:
    """Yield the names of the slides' parts in the order in which they are shown."""
    main = main_part(package, "ppt/presentation.xml")
    targets = {identity: name for identity, kind, name in package.related(main) if kind == "slide"}
    for item in package.xml(main).iterfind("{*}sldIdLst/{*}sldId"):
        for key, value in item.attrib.items():
            if str(key).endswith("}id") and str(value) in targets:
                yield targets[str(value)]


def _slide_blocks(package: Package, name: str, slide: Element, unread: Counter[str]) -> Iterator[Block]:
    """Yield the slide's title as a heading, its shapes' text, and its notes."""
    related = {identity: (kind, part) for identity, kind, part in package.related(name)}
    shapes = _as_read(list(_shapes(slide)))
    titles = [_text(shape) for shape in shapes if _placeholder(shape) in _TITLES]
    title = single_line(" ".join(titles))
    if title:
        yield 1, title
    for shape in shapes:
        kind = local_name(shape)
        if kind == "graphicFrame":
            yield from _graphic(package, shape, related, unread)
        elif _placeholder(shape) not in (*_TITLES, *_RUNNING):
            yield 0, _text(shape)
    for kind, part in related.values():
        if kind == "notesSlide" and part in package.names:
            notes = [_text(s) for s in _shapes(package.xml(part)) if _placeholder(s) not in _RUNNING]
            yield 0, "\n".join(filter(str.strip, notes))


def _shapes(element: Element) -> Iterator[Element]:
    """Yield shapes and frames, also those in groups; of alternatives, the first."""
    for item in element:
        name = local_name(item)
        if name in ("sp", "graphicFrame", "cxnSp"):
            yield item
        elif name != "Fallback":
            yield from _shapes(item)


def _as_read(shapes: list[Element]) -> list[Element]:
    """Return the shapes in the order of the file, unless it goes up a column: then from top to bottom."""
    boxes = [_box(shape) for shape in shapes]
    placed = [box for box in boxes if box]
    goes_up = any(
        below[0] < right and left < below[2] and bottom <= below[1]
        for below, (left, _, right, bottom) in pairwise(placed)
    )
    if not goes_up:
        return shapes
    order = sorted(range(len(shapes)), key=lambda i: (boxes[i] or (0, 0))[1::-1])
    return [shapes[i] for i in order]


def _box(shape: Element) -> tuple[int, int, int, int] | None:
    """Return the left, top, right and bottom of a shape or of its group; None where the layout has them."""
    groups = [group for group in shape.iterancestors() if local_name(group) == "grpSp"]
    frame = next((groups[-1] if groups else shape).iterfind("{*}xfrm"), None)
    if frame is None:
        frame = next((groups[-1] if groups else shape).iterfind("*/{*}xfrm"), None)
    values = [
        (item.get(name) or "") if item is not None else ""
        for path, names in (("{*}off", ("x", "y")), ("{*}ext", ("cx", "cy")))
        for item in (frame.find(path) if frame is not None else None,)
        for name in names
    ]
    if not all(re.fullmatch("-?[0-9]{1,15}", value) for value in values):
        return None
    x, y, width, height = map(int, values)
    return x, y, x + width, y + height


def _placeholder(shape: Element) -> str:
    mark = shape.find("{*}nvSpPr/{*}nvPr/{*}ph")
    return "" if mark is None else mark.get("type") or "body"


def _text(element: Element) -> str:
    """Return the paragraphs of a shape or cell as lines."""
    return "\n".join(_paragraph(paragraph) for paragraph in element.iter("{*}p"))


def _paragraph(element: Element) -> str:
    pieces = []
    for item in element:
        name = local_name(item)
        if name == "t":
            pieces.append(item.text or "")
        elif name == "br":
            pieces.append("\n")
        elif name in ("oMath", "oMathPara"):
            pieces.append(latex(item))
        elif name not in ("pPr", "rPr", "endParaRPr", "Fallback"):
            text, properties = _paragraph(item), item.find("{*}rPr")
            if properties is not None and not (properties.get("baseline") or "0").startswith(("0", "-")):
                text = raised(text)
            is_struck = properties is not None and properties.get("strike") in ("sngStrike", "dblStrike")
            pieces.append(struck(text) if is_struck else text)
    return "".join(pieces)


def _graphic(
    package: Package, frame: Element, related: dict[str, tuple[str, str]], unread: Counter[str]
) -> Iterator[Block]:
    """Yield a table as rows, a chart as a table of its values, and the text of a diagram."""
    table = frame.find(".//{*}tbl")
    if table is not None:
        rows: list[list[str]] = []
        for row in table.iterfind("{*}tr"):
            cells = list(row.iterfind("{*}tc"))
            above = rows[-1] if rows else []
            rows.append(
                [
                    above[i] if cell.get("vMerge") in ("1", "true") and i < len(above) else single_line(_text(cell))
                    for i, cell in enumerate(cells)
                ]
            )
        yield 0, "\n".join(" | ".join(row) for row in rows)
        return
    links = [str(value) for item in frame.iter("{*}chart", "{*}relIds") for value in item.attrib.values()]
    parts = [related[link] for link in links if link in related]
    for kind, part in parts:
        if kind == "chart" and part in package.names:
            yield 0, _chart(package.xml(part))
            return
        if kind == "diagramData" and part in package.names:
            yield 0, _text(package.xml(part))
            return
    unread["embedded object"] += 1


def _chart(chart: Element) -> str:
    """Return a chart's title, and its categories and series as the rows of a table."""
    title = single_line("".join(t.text or "" for t in chart.iterfind(".//{*}title//{*}t")))
    columns: list[list[str]] = []
    for series in chart.iter("{*}ser"):
        category = series.find("{*}cat") if series.find("{*}cat") is not None else series.find("{*}xVal")
        values = series.find("{*}val") if series.find("{*}val") is not None else series.find("{*}yVal")
        if not columns:
            columns.append(["", *_points(category)])
        columns.append([single_line(" ".join(_points(series.find("{*}tx")))), *_points(values)])
    height = max(map(len, columns), default=0)
    rows = [[column[i] if i < len(column) else "" for column in columns] for i in range(height)]
    return "\n".join(filter(None, [title, *(" | ".join(row).strip() for row in rows)]))


def _points(element: Element | None) -> list[str]:
    """Return the points of a chart's axis or series as they are shown: shares in percent, dates in ISO form."""
    if element is None:
        return []
    code = next((item.text or "" for item in element.iter("{*}formatCode")), "")
    points = []
    for point in element.iter("{*}v"):
        own = next((str(v) for k, v in (point.getparent().attrib.items()) if str(k) == "formatCode"), code)
        points.append(_point(point.text or "", own))
    return points


def _point(text: str, number_format: str) -> str:
    from openpyxl.styles.numbers import is_date_format
    from openpyxl.utils.datetime import from_excel

    # Small and large numbers are stored with an exponent: 5 % is 5.0000000000000003E-2.
    if not number_format or not re.fullmatch(r"-?[0-9]{1,15}(?:\.[0-9]+)?(?:E[+-]?[0-9]{1,2})?", text):
        return text
    if is_date_format(number_format):
        try:
            return shown_value(from_excel(float(text)), number_format)
        except (ValueError, OverflowError):
            return text
    return shown_value(float(text) if re.search("[.E]", text) else int(text), number_format)
