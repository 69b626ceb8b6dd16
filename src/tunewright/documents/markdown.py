"""Markdown: front matter, headings, code fences and comments."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from tunewright.documents.markup import (
    Block,
    Failure,
    ReadItems,
    assemble,
    clean_text,
    decode_text,
    in_encoding,
    raised,
    single_line,
    struck,
    without_base64,
)
from tunewright.documents.web import read_page

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)$")
_KEY = re.compile(r"([\w-]+)[ \t]*:(?:[ \t]+(.*))?$")
_RAISED = re.compile(r"(?i)<sup>([^<>\n]{1,20})</sup>")
_STRUCK = re.compile(r"(?i)<(?:s|del|strike)>([^<>\n]{1,500})</(?:s|del|strike)>")
_TAG = re.compile(
    r"(?i)(?<!\\)</?(?:a|abbr|b|big|center|details|div|em|font|i|ins|kbd|mark|p|q|section|small|span|strong|sub|summary|sup|tt|u)"
    r"(?:\s[^<>]{0,500})?/?>"
)
_HTML_TABLE = re.compile(r"(?is)<table\b(?:(?!<table\b).)*?</table>")
# Inline code, formulas, and lines of indented code.
_LITERAL = re.compile(
    r"(`[^`\n]*`|(?<![\\$])\$\$[^$]+\$\$|(?<![\\$])\$(?![\s$])[^$\n]*(?<![\s\\])\$(?![0-9])|\\\([^\n]{0,500}?\\\)"
    r"|^(?: {4}|\t).*$)",
    re.MULTILINE,
)
_IMAGE = re.compile(r"!\[([^\]\n]*)\]\(\s*\)")  # whose data was left out


def read_markdown(path: Path) -> ReadItems:
    """Read Markdown; the front matter is metadata, and comments are dropped."""
    decoded = decode_text(path.read_bytes())
    if isinstance(decoded, Failure):
        return [decoded]
    metadata, text = parse_front_matter(clean_text(decoded.text))
    metadata = {key: single_line(value) for key, value in metadata.items()}
    title = metadata.pop("title", "")
    text, left_out = without_base64(text)
    blocks = markdown_blocks(without_comments(_IMAGE.sub(r"\1", text)))
    return [in_encoding(assemble(blocks, path.stem, title, metadata=metadata, left_out=left_out), decoded)]


def parse_front_matter(text: str) -> tuple[dict[str, str], str]:
    """Return the front matter (``key: value`` between ``---``, TOML between ``+++``), and the text after it."""
    if match := re.match(r"\+\+\+[ \t]*\n(.*?\n)?\+\+\+[ \t]*(?:\n|$)", text, re.DOTALL):
        try:
            values = tomllib.loads(match[1] or "")
        except (ValueError, RecursionError):  # then it is text
            return {}, text
        return {key: _plain(value) for key, value in values.items()}, text[match.end() :]
    match = re.match(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|$)", text, re.DOTALL)
    lines = [line for line in match[1].split("\n") if line.strip() and not line.startswith("#")] if match else []
    if not match or not lines or not _KEY.match(lines[0]):
        return {}, text
    metadata: dict[str, list[str]] = {}
    key = ""
    for line in lines:
        if pair := _KEY.match(line):
            key, value = pair[1], (pair[2] or "").strip()
            metadata[key] = ["" if value in ("|", ">", "|-", ">-") else _unquote(value)]
        else:  # an item of a list, or a continued text
            item = line.strip()
            more = _unquote(item.removeprefix("- "))
            separator = ", " if item.startswith("- ") else " "
            metadata[key].append((separator if any(metadata[key]) else "") + more if more else "")
    return {key: "".join(parts) for key, parts in metadata.items()}, text[match.end() :]


def _plain(value: object) -> str:
    """Return a TOML value as a line: a list with commas, a table as ``key: value`` pairs."""
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1].replace("''", "'")
    if len(value) >= 2 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value[1:-1]
    return value


def _shown(text: str) -> str:
    """Return the text with escapes and entities as their characters and tags as what they show, outside of code."""
    pieces, at = [], 0
    for start, end in [*_code_spans(text), (len(text), len(text))]:
        part = _HTML_TABLE.sub(lambda match: f"\n\n{read_page(match[0], '').text}\n\n", text[at:start])
        parts = _LITERAL.split(part)
        parts[::2] = [_plain_text(part) for part in parts[::2]]
        pieces += [*parts, text[start:end]]
        at = end
    return "".join(pieces)


def _plain_text(text: str) -> str:
    """Return text between code and formulas without its tags and escapes."""
    text = _RAISED.sub(lambda match: raised(match[1]), text)
    text = _STRUCK.sub(lambda match: struck(match[1]), text)
    text = _TAG.sub("", re.sub(r"(?i)<br\s*/?>", "\n", text))
    return unescape(re.sub(r"\\([.!#*_~<>$&+`-])", r"\1", text))


def without_comments(text: str) -> str:
    """Return the text without ``<!-- comments -->``; an unclosed comment, and one inside of code, is text."""
    kept, at = [], 0
    code = _code_spans(text) if "<!--" in text else []
    while (start := text.find("<!--", at)) >= 0:
        while code and code[0][1] <= start:
            code.pop(0)
        if code and code[0][0] <= start:
            kept.append(text[at : code[0][1]])
            at = code[0][1]
            continue
        if (end := text.find("-->", start + 4)) < 0:
            break
        kept.append(text[at:start])
        at = end + 3
    return "".join(kept) + text[at:]


def _code_spans(text: str) -> list[tuple[int, int]]:
    """Return the start and end of each fenced block of code."""
    spans, at, start, fence = [], 0, 0, ""
    for line in text.split("\n"):
        before, fence = fence, _fence_after(fence, line)
        if fence and not before:
            start = at
        at += len(line) + 1
        if before and not fence:
            spans.append((start, at))
    return [*spans, (start, len(text))] if fence else spans


def _fence_after(fence: str, line: str) -> str:
    """Return the fence that is open after a line; empty outside of code (CommonMark, section 4.5)."""
    mark = _FENCE.match(line)
    if not mark:
        return fence
    if fence:
        closes = mark[1][0] == fence[0] and len(mark[1]) >= len(fence) and not mark[2].strip()
        return "" if closes else fence
    return "" if "`" in mark[2] and mark[1][0] == "`" else mark[1]


def _without_closing(heading: str) -> str:
    """Return a heading's text without closing ``#`` signs."""
    heading = heading.rstrip(" \t")
    bare = heading.rstrip("#")
    return bare.rstrip(" \t") if bare.endswith((" ", "\t")) else heading


def markdown_blocks(text: str) -> Iterator[Block]:
    """Yield the headings (``#`` or underlined, not inside code fences) and the text between them, as they are shown."""
    for level, block in _blocks(text):
        yield level, _shown(block)


def _blocks(text: str) -> Iterator[Block]:
    body: list[str] = []
    fence = ""
    for line in text.split("\n"):
        fence = _fence_after(fence, line)
        heading = None if fence else _HEADING.match(line)
        underlined = not fence and re.fullmatch(r"={2,}|-{2,}", line.rstrip())
        if heading:
            yield 0, "\n".join(body)
            yield len(heading[1]), _without_closing(heading[2])
            body = []
        elif underlined and body and body[-1].strip() and (len(body) == 1 or not body[-2].strip()):
            yield 0, "\n".join(body[:-1])
            yield (1 if line.startswith("=") else 2), body[-1]
            body = []
        else:
            body.append(line)
    yield 0, "\n".join(body)
