"""Bytes to text, and Markdown's front matter and headings, without a library."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tunewright.documents.assembly import Block, Failure

_FENCE = re.compile(r" {0,3}(```|~~~)")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)$")
_KEY = re.compile(r"([\w-]+)[ \t]*:(?:[ \t]+(.*))?$")


def decode(raw: bytes) -> str | Failure:
    """Return the text of UTF-8, UTF-16 or Latin-1 (as Windows writes it) bytes."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    half = max(1, len(raw) // 2)
    for encoding, zeros in (("utf-16-le", raw[1::2]), ("utf-16-be", raw[::2])):
        if zeros.count(0) > 0.4 * half:  # Latin text in UTF-16 has a zero in every other byte
            return raw.decode(encoding, "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
    # Text in any encoding has next to no control characters; compressed or random bytes have one in ten.
    num_control = sum(ord(c) < 32 and c not in "\t\n\r\f" for c in text)
    return Failure(reason="not text", detail="binary content") if num_control > 0.05 * len(text) else text


def front_matter(text: str) -> tuple[dict[str, str], str]:
    """Return the ``key: value`` lines between two lines of three dashes, and the text after them."""
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
        else:  # a list or a text that goes on
            item = line.strip()
            more = _unquote(item.removeprefix("- "))
            separator = ", " if item.startswith("- ") else " "
            metadata[key].append((separator if any(metadata[key]) else "") + more if more else "")
    return {key: "".join(parts) for key, parts in metadata.items()}, text[match.end() :]


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1].replace("''", "'")
    if len(value) >= 2 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value[1:-1]
    return value


def without_comments(text: str) -> str:
    """Return the text without ``<!-- comments -->``; one that never ends is text."""
    kept, at = [], 0
    while (start := text.find("<!--", at)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        kept.append(text[at:start])
        at = end + 3
    return "".join(kept) + text[at:]


def _without_closing(heading: str) -> str:
    """Return a heading's text without the ``#`` signs that may close it."""
    heading = heading.rstrip(" \t")
    bare = heading.rstrip("#")
    return bare.rstrip(" \t") if bare.endswith((" ", "\t")) else heading


def markdown_blocks(text: str) -> Iterator[Block]:
    """Yield headings (``#`` or underlined, not inside code fences) and the text between them."""
    body: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1] == fence):
            fence = "" if fence else mark[1]
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
