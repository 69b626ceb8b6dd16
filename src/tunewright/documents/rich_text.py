"""Rich text (.rtf): hidden and deleted text left out, notes in brackets, superscripts and struck-out text marked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tunewright.documents.markup import Failure, ReadItems, assemble, parse_errors, raised, struck

_TOKEN = re.compile(r"\\\*|\\([a-z]+)(-?[0-9]*)[ ]?|\\'[0-9a-fA-F]{2}|\\[^a-z]|[{}]|[^\\{}]+", re.DOTALL)
_ROW_START, _ROW_END = re.compile(r"\\trowd(?![a-z])"), re.compile(r"(\\row(?![a-z]))")
_LINE_END = re.compile(r"\\(?:par|line)(?![a-z])[ ]?")
_RAISED = re.compile(r"(\\super(?:\\[a-z]+-?[0-9]*)*[ ]?)([0-9+-]{1,12})(?=[\\}])")
_STRUCK = re.compile(r"(\\striked?(?:1|(?![0-9a-z]))(?:\\[a-z]+-?[0-9]*)*[ ]?)([^\\{}\n]{1,200})(?=[\\}])")


def read_rtf(path: Path) -> ReadItems:
    """Read rich text; the cells of a table row are one line with bars, pictures are left out and counted."""
    from striprtf.striprtf import rtf_to_text

    raw = path.read_bytes()
    if not raw.lstrip().startswith(b"{\\rtf"):
        return [Failure(reason="unreadable", detail=r"not rich text: it does not start with {\rtf")]
    source = raw.decode("latin-1")
    pictures = source.count("\\pict")
    source = "".join(_shown(source))
    source = _with_whole_cells(source)
    source = _RAISED.sub(lambda match: match[1] + "".join(f"\\u{ord(c)}?" for c in raised(match[2])), source)
    source = _STRUCK.sub(lambda match: match[1] + struck(match[2]), source)
    with parse_errors(".rtf"):
        text = rtf_to_text(source, errors="replace")
    text = "\n".join(line.strip().rstrip("|").replace("|", " | ") if "|" in line else line for line in text.split("\n"))
    text = text.replace("\ue000", "|")
    left_out = [Failure(part="pictures", reason="not read", detail=f"{pictures} picture(s)")] if pictures else []
    return [assemble([(0, text)], path.stem, left_out=left_out)]


def _with_whole_cells(source: str) -> str:
    """Return the source with the paragraphs of a cell on one line, from the start of each row to its end."""
    pieces = _ROW_END.split(source)
    for number in range(0, len(pieces) - 1, 2):
        if start := _ROW_START.search(pieces[number]):
            before, row = pieces[number][: start.end()], pieces[number][start.end() :]
            pieces[number] = before + _LINE_END.sub(" ", row)
    return "".join(pieces)


def _shown(source: str) -> Iterator[str]:
    """Yield the source without hidden and deleted text, with notes as text in brackets."""
    is_hidden, is_note = {"v": False, "deleted": False}, False
    outer: list[tuple[dict[str, bool], bool]] = []
    starred = ""
    for match in _TOKEN.finditer(source):
        token, word, number = match[0], match[1], match[2]
        if token == "\\*":
            starred = token
            continue
        if token == "{":
            outer.append((dict(is_hidden), is_note))
            is_note = False
        elif token == "}" and outer:
            token = ")}" if is_note else token
            is_hidden, is_note = outer.pop()
        elif word in is_hidden:
            is_hidden[word] = number != "0"
        elif word == "plain":
            is_hidden["v"] = False
        elif word == "footnote":
            starred, token, is_note = "", " (", True
        elif any(is_hidden.values()) and (not word or word == "u"):
            token = ""
        elif not word and "|" in token:
            token = token.replace("|", r"\u-8192?")  # a bar of the text, not of a table
        yield starred + token
        starred = ""
