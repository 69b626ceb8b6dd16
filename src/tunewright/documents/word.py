"""Word documents (.docx): all text that a reader of the document sees, once."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.documents.formulas import latex
from tunewright.documents.markup import (
    BOILERPLATE,
    Block,
    Failure,
    ReadItems,
    assemble,
    parse_errors,
    raised,
    single_line,
    struck,
)
from tunewright.documents.package import Package, check_package, core_properties, local_name, main_part
from tunewright.errors import DocumentError

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_OFF = ("0", "false", "off")
_GONE = frozenset(("del", "moveFrom", "pPr", "rPr", "instrText", "delText", "delInstrText", "sdtPr", "tblPr", "rt"))
_PLAIN = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "softHyphen": ""}
_UNREAD = {"chart": "chart", "relIds": "diagram", "object": "embedded object", "altChunk": "embedded document"}
# Adobe's Symbol and Microsoft's Wingdings, at U+F000 and above, by what people insert from them.
_SYMBOLS = dict(zip(range(0x61, 0x7B), "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True)) | dict(
    zip(
        (0xA3, 0xA5, 0xB0, 0xB1, 0xB3, 0xB4, 0xB7, 0xB8, 0xB9, 0xBB, 0xAE, 0x44, 0x53, 0x57, 0xD6, 0xE5),
        "≤∞°±≥×•÷≠≈→ΔΣΩ√∑",
        strict=True,
    )
)
_WINGDINGS = {
    0xFE: "☑",
    0xFC: "✓",
    0xFB: "✗",
    0xFD: "☒",
    0xA8: "☐",
    0x6F: "☐",
    0xA7: "▪",
    0x6C: "●",
    0xE0: "→",
    0x4A: "☺",
}


def read_docx(path: Path) -> ReadItems:
    """Read a Word document: heading styles start sections, and each table row becomes one line.

    Changes that are tracked count as accepted. Notes follow the paragraph that refers to them.
    """
    if failure := check_package(path):
        return [failure]
    with parse_errors(".docx"), zipfile.ZipFile(path) as opened:
        package = Package(opened)
        main = main_part(package, "word/document.xml")
        reading = _WordReading(package, main)
        body = package.xml(main).find("{*}body")
        if body is None:
            raise DocumentError("damaged .docx", "it has no body")
        blocks = list(reading.blocks(body))
        title, author = core_properties(package)
        left_out = [*reading.left_out(), *_running(package, main)]
    return [assemble(blocks, path.stem, fallback_title=title, metadata={"author": author}, left_out=left_out)]


def _running(package: Package, main: str) -> list[Failure]:
    """Return the headers and footers of the pages, which are not read."""
    texts = []
    for _, kind, name in package.related(main):
        if kind in ("header", "footer") and name in package.names:
            texts.append(single_line("".join(text.text or "" for text in package.xml(name).iter("{*}t"))))
    shown = [text for text in texts if text]
    return [Failure(part="headers and footers", reason=BOILERPLATE, detail="; ".join(shown)[:200])] if shown else []


def _attribute(element: Element | None, name: str = "val") -> str:
    """Return an attribute by its name without namespace; empty if there is none."""
    for key, value in element.attrib.items() if element is not None else ():
        if str(key).rpartition("}")[2] == name:
            return str(value)
    return ""


def _is_on(properties: Element | None, name: str) -> bool:
    item = properties.find(f"{{*}}{name}") if properties is not None else None
    return item is not None and _attribute(item) not in _OFF


def _heading_levels(styles: Element | None) -> dict[str, int]:
    """Return the heading level by style identifier: by its name, its outline level, or the style below it."""
    levels: dict[str, int] = {}
    parents: dict[str, str] = {}
    for style in styles.iterfind("{*}style") if styles is not None else ():
        identity = _attribute(style, "styleId")
        named = re.fullmatch(r"(?i)heading ([1-9])|(title)", _attribute(style.find("{*}name")))
        outline = _attribute(style.find("{*}pPr/{*}outlineLvl"))
        if named:
            levels[identity] = int(named[1] or 1)
        elif re.fullmatch("[0-8]", outline):
            levels[identity] = int(outline) + 1
        else:
            parents[identity] = _attribute(style.find("{*}basedOn"))
    for identity in parents:
        above, seen = identity, {identity}
        while (above := parents.get(above, "")) and above not in seen and above not in levels:
            seen.add(above)
        if above in levels:
            levels[identity] = levels[above]
    return levels


class _WordReading:
    """The reading of one document: its styles and notes, and what was not read."""

    def __init__(self, package: Package, main: str) -> None:
        parts = {kind: name for _, kind, name in package.related(main) if name in package.names}
        styles = package.xml(parts["styles"]) if "styles" in parts else None
        self._levels = _heading_levels(styles)
        aligned = styles.iterfind("{*}style/{*}rPr/{*}vertAlign/../..") if styles is not None else ()
        self._raised = {
            _attribute(s, "styleId") for s in aligned if _attribute(s.find("{*}rPr/{*}vertAlign")) == "superscript"
        }
        self._notes: dict[str, Element] = {}
        for kind in ("footnotes", "endnotes"):
            for note in package.xml(parts[kind]) if kind in parts else ():
                self._notes[kind + _attribute(note, "id")] = note
        self._boxes: list[Element] = []  # text boxes and notes of the current paragraph, to be read after it
        self._num_notes = 0
        self._unread: Counter[str] = Counter()

    def left_out(self) -> list[Failure]:
        """Return what was not read."""
        return [
            Failure(part=f"{kind}s", reason="not read", detail=f"{count} {kind}(s): its content is no text")
            for kind, count in self._unread.items()
        ]

    def blocks(self, container: Element) -> Iterator[Block]:
        """Yield the paragraphs and tables in a body, cell, box or note, whatever wraps them."""
        for item in container:
            name = local_name(item)
            if name == "p":
                yield self._level(item), self._inline(item)
                boxes, self._boxes = self._boxes, []
                for box in boxes:
                    yield from self._numbered(box)
            elif name == "tbl":
                yield 0, self._table(item)
            elif name == "oMathPara":
                yield 0, latex(item)
            elif name == "sdt" and _is_on(item.find("{*}sdtPr"), "showingPlcHdr"):
                continue  # "Click here to enter text"
            elif name in _UNREAD:
                self._unread[_UNREAD[name]] += 1
            elif name not in _GONE and len(item):
                yield from self.blocks(item)

    def _numbered(self, box: Element) -> Iterator[Block]:
        """Yield a text box, or a note with its number before its first paragraph."""
        mark = box.get("tunewright-number")
        for level, text in self.blocks(box):
            yield (0, f"[^{mark}]: {text.strip()}") if mark else (level, text)
            mark = None

    def _level(self, paragraph: Element) -> int:
        style = _attribute(paragraph.find("{*}pPr/{*}pStyle"))
        outline = _attribute(paragraph.find("{*}pPr/{*}outlineLvl"))
        return self._levels.get(style, 0) or (int(outline) + 1 if re.fullmatch("[0-8]", outline) else 0)

    def _inline(self, element: Element) -> str:
        """Return the text of a paragraph or of a part of it."""
        return "".join(self._piece(item) for item in element)

    def _piece(self, item: Element) -> str:
        name = local_name(item)
        if name == "t":
            return item.text or ""
        if name in _PLAIN:
            return _PLAIN[name]
        if name in _GONE or name == "r" and _is_on(item.find("{*}rPr"), "vanish"):
            return ""
        if name == "r":
            return self._run(item)
        if name in ("oMath", "oMathPara"):
            return latex(item)
        if name == "sym":
            return _symbol(_attribute(item, "font"), _attribute(item, "char"))
        if name in ("footnoteReference", "endnoteReference"):
            return self._note(name.removesuffix("Reference") + "s" + _attribute(item, "id"))
        if name == "AlternateContent":
            choice = item.find("{*}Choice")
            chosen = choice if choice is not None else item.find("{*}Fallback")
            return "" if chosen is None else self._inline(chosen)
        if name == "txbxContent":
            self._boxes.append(item)
            return ""
        if name == "ffData":
            return _form_value(item)
        if name in _UNREAD:
            self._unread[_UNREAD[name]] += 1
        if name == "sdt" and _is_on(item.find("{*}sdtPr"), "showingPlcHdr"):
            return ""
        return self._inline(item)

    def _run(self, run: Element) -> str:
        """Return the text of a run; superscripts and struck-out text are marked."""
        text, properties = self._inline(run), run.find("{*}rPr")
        if properties is None or run.find("{*}footnoteReference") is not None:
            return text
        align = properties.find("{*}vertAlign")
        if (
            align is None
            and _attribute(properties.find("{*}rStyle")) in self._raised
            or _attribute(align) == "superscript"
        ):
            text = raised(text)
        return struck(text) if _is_on(properties, "strike") or _is_on(properties, "dstrike") else text

    def _note(self, key: str) -> str:
        note = self._notes.get(key)
        if note is None:
            return ""
        if not note.get("tunewright-number"):
            self._num_notes += 1
            note.set("tunewright-number", str(self._num_notes))
            self._boxes.append(note)
        return f"[^{note.get('tunewright-number')}]"

    def _table(self, table: Element) -> str:
        lines: list[str] = []
        above: dict[int, str] = {}  # the text by column, for cells that continue those above
        for row in _inside(table, "tr"):
            if row.find("{*}trPr/{*}del") is not None:
                continue
            texts, column = [], 0
            for cell in _inside(row, "tc"):
                merge = cell.find("{*}tcPr/{*}vMerge")
                continues = merge is not None and _attribute(merge) in ("", "continue")
                text = above.get(column, "") if continues else self._cell(cell)
                above[column] = text
                texts.append(text)
                span = _attribute(cell.find("{*}tcPr/{*}gridSpan"))
                column += int(span) if re.fullmatch("[1-9][0-9]?", span) else 1
            lines.append(" | ".join(texts))
        return "\n".join(line for line in lines if line.strip(" |"))

    def _cell(self, cell: Element) -> str:
        return " ".join(" ".join(text for _, text in self.blocks(cell)).split())


def _inside(element: Element, name: str) -> Iterator[Element]:
    """Yield the rows of a table or the cells of a row, also those in content controls; not those of tables inside."""
    for item in element:
        if local_name(item) == name:
            yield item
        elif local_name(item) in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag"):
            yield from _inside(item, name)


def _symbol(font: str, code: str) -> str:
    """Return a character of a symbol font; in the private-use area where it is not known."""
    if not re.fullmatch("[0-9A-Fa-f]{1,4}", code):
        return ""
    table = _SYMBOLS if font == "Symbol" else _WINGDINGS if font.startswith("Wingdings") else {}
    number = int(code, 16)
    return table.get(number & 0xFF if number >= 0xF000 else number) or (chr(number) if number else "")


def _form_value(data: Element) -> str:
    """Return the state of a check box or the choice of a list of a form; a text field's value is text of its own."""
    box = data.find("{*}checkBox")
    if box is not None:
        return "☑" if _is_on(box, "checked" if box.find("{*}checked") is not None else "default") else "☐"
    choices = data.find("{*}ddList")
    if choices is None:
        return ""
    entries = [_attribute(entry) for entry in choices.iterfind("{*}listEntry")]
    chosen = _attribute(choices.find("{*}result")) or "0"
    return entries[int(chosen)] if re.fullmatch("[0-9]{1,3}", chosen) and int(chosen) < len(entries) else ""
