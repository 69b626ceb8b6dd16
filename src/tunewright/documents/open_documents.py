"""OpenDocument texts (.odt) and books (.epub)."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

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
from tunewright.documents.package import Package, check_package, local_name
from tunewright.documents.web import decode_page, page_blocks
from tunewright.errors import DocumentError

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_NOT_SHOWN = frozenset(
    ("tracked-changes", "annotation", "annotation-end", "sequence-decls", "forms", "scripts", "title", "desc")
)
_MAX_REPEATED = 100  # cells and blanks that a file may repeat by a number


def read_odt(path: Path) -> ReadItems:
    """Read an OpenDocument text: headings start sections, table rows are lines, notes follow their paragraph."""
    if failure := check_package(path):
        return [failure]
    with parse_errors(".odt"), zipfile.ZipFile(path) as opened:
        package = Package(opened)
        manifest = "META-INF/manifest.xml"
        if manifest in package.names and b"encryption-data" in package.read(manifest):
            return [Failure(reason="encrypted", detail="protected by a password")]
        body = package.xml("content.xml").find("{*}body/{*}text")
        if body is None:
            raise DocumentError("damaged .odt", "it has no text")
        reading = _OpenReading(package)
        blocks = list(reading.blocks(body))
        meta = package.xml("meta.xml") if "meta.xml" in package.names else None
    declared = {local_name(item): item.text or "" for item in meta.iter()} if meta is not None else {}
    author = single_line(declared.get("creator") or declared.get("initial-creator") or "")
    left_out = (
        [Failure(part="embedded objects", reason="not read", detail=f"{reading.num_unread} object(s)")]
        if reading.num_unread
        else []
    )
    return [
        assemble(
            blocks, path.stem, fallback_title=declared.get("title", ""), metadata={"author": author}, left_out=left_out
        )
    ]


def _value(element: Element, name: str) -> str:
    return next((str(v) for k, v in element.attrib.items() if str(k).rpartition("}")[2] == name), "")


def _number(element: Element, name: str) -> int:
    text = _value(element, name)
    return min(_MAX_REPEATED, int(text)) if re.fullmatch("[0-9]{1,9}", text) else 1


class _OpenReading:
    """The reading of one text: its notes so far, and the embedded objects that were not read."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._pending: list[tuple[int, Element]] = []  # notes and text boxes of the current paragraph
        self._num_notes = 0
        self.num_unread = 0
        self._raised: set[str] = set()  # the names of styles
        self._struck: set[str] = set()
        for part in ("content.xml", "styles.xml"):
            for style in package.xml(part).iter("{*}style") if part in package.names else ():
                properties = style.find("{*}text-properties")
                position = _value(properties, "text-position") if properties is not None else ""
                if position.startswith("super") or position[:1] in "123456789" and position:
                    self._raised.add(_value(style, "name"))
                if properties is not None and _value(properties, "text-line-through-style") not in ("", "none"):
                    self._struck.add(_value(style, "name"))

    def blocks(self, container: Element) -> Iterator[Block]:
        """Yield the paragraphs, headings and tables in a body, cell, box or note, whatever wraps them."""
        for item in container:
            name = local_name(item)
            if name in ("p", "h"):
                level = min(9, _number(item, "outline-level")) if name == "h" else 0
                yield level, self._inline(item)
                pending, self._pending = self._pending, []
                for number, box in pending:
                    texts = list(self.blocks(box))
                    if number and texts:
                        texts[0] = (0, f"[^{number}]: {texts[0][1].strip()}")
                    yield from texts
            elif name == "table":
                yield 0, self._table(item)
            elif name == "table-of-content":
                continue  # the headings once more
            elif name not in _NOT_SHOWN and _value(item, "display") != "none":
                yield from self.blocks(item)

    def _inline(self, element: Element) -> str:
        pieces = [element.text or ""]
        for item in element:
            name = local_name(item)
            if name == "s":
                pieces.append(" " * _number(item, "c"))
            elif name == "tab":
                pieces.append("\t")
            elif name == "line-break":
                pieces.append("\n")
            elif name == "note":
                pieces.append(self._note(item))
            elif name == "text-box":
                self._pending.append((0, item))
            elif name == "object":
                pieces.append(self._object(item))
            elif name in ("hidden-text", "hidden-paragraph", "object-ole"):
                self.num_unread += name == "object-ole"
            elif name and name not in _NOT_SHOWN:
                text, style = self._inline(item), _value(item, "style-name")
                text = raised(text) if style in self._raised else text
                pieces.append(struck(text) if style in self._struck else text)
            pieces.append(item.tail or "")
        # White space of the markup is one blank; blanks of the text are elements.
        return "".join(pieces) if len(element) else re.sub(r"\s+", " ", pieces[0])

    def _note(self, note: Element) -> str:
        body = note.find("{*}note-body")
        if body is None:
            return ""
        self._num_notes += 1
        self._pending.append((self._num_notes, body))
        return f"[^{self._num_notes}]"

    def _object(self, item: Element) -> str:
        """Return a formula; other embedded objects are counted."""
        math = next((child for child in item if local_name(child) == "math"), None)
        name = posixpath.normpath(posixpath.join(_value(item, "href"), "content.xml"))
        if math is None and name in self._package.names:
            root = self._package.xml(name)
            math = root if local_name(root) == "math" else None
        if math is None:
            self.num_unread += 1
            return ""
        note = math.find(".//{*}annotation")
        return (note.text or "").strip() if note is not None and "TeX" in (note.get("encoding") or "") else latex(math)

    def _table(self, table: Element) -> str:
        rows = []
        spans: dict[int, tuple[int, str]] = {}  # by column: how many rows below have a cell's text, and the text
        for row in table.iter("{*}table-row"):
            if next(row.iterancestors("{*}table"), None) is not table:
                continue  # of a table inside of a cell
            cells: list[str] = []
            for cell in row:
                if local_name(cell) not in ("table-cell", "covered-table-cell"):
                    continue
                text = " ".join(" ".join(text for _, text in self.blocks(cell)).split())
                num_rows = _number(cell, "number-rows-spanned")
                for _ in range(_number(cell, "number-columns-repeated")):
                    left, above = spans.get(len(cells), (0, ""))
                    is_below = left > 0 and local_name(cell) == "covered-table-cell"
                    if is_below or num_rows > 1:
                        spans[len(cells)] = (left - 1, above) if is_below else (num_rows - 1, text)
                    cells.append(above if is_below else text)
            rows.append(" | ".join(cells).rstrip(" |"))
        return "\n".join(row for row in rows if row.strip(" |"))


def read_epub(path: Path) -> ReadItems:
    """Read a book's pages in reading order; navigation pages are left out."""
    if failure := check_package(path):
        return [failure]
    blocks: list[Block] = []
    left_out: list[Failure] = []
    with parse_errors(".epub"), zipfile.ZipFile(path) as opened:
        package = Package(opened)
        if "META-INF/encryption.xml" in package.names and "META-INF/rights.xml" in package.names:
            return [Failure(reason="encrypted", detail="protected by digital rights management")]
        roots = [item.get("full-path") or "" for item in package.xml("META-INF/container.xml").iter("{*}rootfile")]
        if not roots:
            raise DocumentError("damaged .epub", "it names no content")
        book = package.xml(roots[0])
        pages = list(_spine(book, posixpath.dirname(roots[0])))
        empty = []
        for number, name in enumerate(pages, 1):
            decoded = decode_page(package.read(name))
            if isinstance(decoded, Failure):
                left_out.append(decoded.model_copy(update={"part": name}))
                continue
            _, read, lost = page_blocks(decoded.text)
            left_out += [part.model_copy(update={"part": f"{name} {part.part}"}) for part in lost]
            if not any(text.strip() for _, text in read):
                empty.append(number)
            blocks += read
    left_out += without_text("page", empty, len(pages))
    declared = {local_name(item): item.text or "" for item in book.iterfind("{*}metadata/*")}
    author = single_line(declared.get("creator", ""))
    return [assemble(blocks, path.stem, declared.get("title", ""), metadata={"author": author}, left_out=left_out)]


def _spine(book: Element, folder: str) -> Iterator[str]:
    """Yield the names of a book's pages in reading order, each once."""
    items = {item.get("id"): item for item in book.iterfind("{*}manifest/{*}item")}
    seen = set()
    for reference in book.iterfind("{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or "nav" in (item.get("properties") or "").split():
            continue
        name = posixpath.normpath(posixpath.join(folder, unquote((item.get("href") or "").partition("#")[0])))
        if name not in seen and "html" in (item.get("media-type") or ""):
            seen.add(name)
            yield name
