"""Parsed documents: clean plain text with its sections, assembled from headings and paragraphs."""

from __future__ import annotations

import json
import re
import traceback
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tunewright.errors import DocumentError
from tunewright.records import Record, Section
from tunewright.text import encoding
from tunewright.text.encoding import without_damage
from tunewright.text.normalization import normalize

_FENCE = re.compile(r" {0,3}(```|~~~)")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)$")
_KEY = re.compile(r"([\w-]+)[ \t]*:(?:[ \t]+(.*))?$")


def decode_text(raw: bytes) -> str | Failure:
    """Return the text of bytes in any common encoding, or why they are not text."""
    try:
        return without_damage(encoding.decode_text(raw))
    except ValueError as error:
        return Failure(reason="not text", detail=str(error))


def parse_front_matter(text: str) -> tuple[dict[str, str], str]:
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
        else:  # an item of a list, or a continued text
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
    """Return the text without ``<!-- comments -->``; an unclosed comment is text."""
    kept, at = [], 0
    while (start := text.find("<!--", at)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        kept.append(text[at:start])
        at = end + 3
    return "".join(kept) + text[at:]


def _without_closing(heading: str) -> str:
    """Return a heading's text without closing ``#`` signs."""
    heading = heading.rstrip(" \t")
    bare = heading.rstrip("#")
    return bare.rstrip(" \t") if bare.endswith((" ", "\t")) else heading


def markdown_blocks(text: str) -> Iterator[Block]:
    """Yield the headings (``#`` or underlined, not inside code fences) and the text between them."""
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


# A piece of a document in reading order: (heading level, text); level 0 is body text.
Block = tuple[int, str]

_LINE_END = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_BLANK_LINES = re.compile(r"\n{3,}")
_INVISIBLE_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Cn"))
_MEANINGFUL = frozenset("\n\t\u200c\u200d")  # the two joiners carry meaning in Persian, Indic scripts and emoji
_MAX_MARKS = 30  # on one letter; Unicode Standard Annex 15, section 13 (stream-safe text)


class ReadDocument(Record):
    """One document of a file; ``part`` names its row if the file holds several documents."""

    title: str
    text: str
    sections: tuple[Section, ...]
    metadata: dict[str, str] = {}
    part: str = ""


class Failure(Record):
    """Why a file, or one ``part`` of it, could not be read; ``reason`` is counted, ``detail`` is shown."""

    reason: str
    detail: str = ""
    part: str = ""


ReadItems = list[ReadDocument | Failure]


class Reading(Record):
    """The documents and the failures of one file, as the worker process sends them."""

    documents: tuple[ReadDocument, ...] = ()
    failures: tuple[Failure, ...] = ()


@contextmanager
def parse_errors(kind: str) -> Iterator[None]:
    """Turn the errors that a format's library raises on a damaged file into a DocumentError.

    MemoryError, OSError and errors raised in our own code pass unchanged.
    """
    try:
        yield
    except (MemoryError, OSError):
        raise
    except Exception as error:
        *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
        if innermost.f_globals.get("__name__", "").startswith("tunewright."):
            raise
        raise DocumentError(f"damaged {kind}", single_line(f"{type(error).__name__}: {error}")[:200]) from error


def _limit_marks(text: str) -> str:
    """Return the text with at most 30 marks per letter: the time to compose them grows with their number squared."""
    marks = [c for c in set(text) if unicodedata.combining(unicodedata.normalize("NFKD", c)[0])]
    if not marks:
        return text
    mark = f"[{''.join(map(re.escape, marks))}]"
    return re.sub(f"({mark}{{{_MAX_MARKS}}}){mark}+", r"\1", text)


def clean_text(text: str) -> str:
    r"""Return the text in composed form (NFC), with ``\n`` line ends and without invisible characters.

    Removed are control, surrogate, unassigned and invisible format characters (NUL, byte order marks, soft hyphens, the
    tag characters that can hide instructions), trailing blanks, and all but one of consecutive empty lines.
    """
    text = _LINE_END.sub("\n", text)
    invisible = {c for c in set(text) if unicodedata.category(c) in _INVISIBLE_CATEGORIES and c not in _MEANINGFUL}
    text = text.translate({ord(c): None for c in invisible})
    text = unicodedata.normalize("NFC", _limit_marks(text))
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()


def single_line(text: str) -> str:
    """Return clean text on a single line."""
    return " ".join(clean_text(text).split())


def assemble(
    blocks: Iterable[Block],
    name: str,
    title: str = "",
    fallback_title: str = "",
    metadata: dict[str, str] | None = None,
    part: str = "",
) -> ReadDocument:
    """Return the document that the blocks form; a section extends from one heading to the next.

    Args:
        blocks: headings and body text in reading order.
        name: the file's name without its extension; the title if there is no other.
        title: the title that the document declares.
        fallback_title: the title of a document without a declared title and without headings.
        metadata: other declared properties; empty values are dropped.
        part: the row of the file that this document is.
    """
    cleaned = [(level, single_line(text) if level else clean_text(text)) for level, text in blocks]
    cleaned = [(level, text) for level, text in cleaned if text]
    headings = (text for level, text in cleaned if level)
    title = single_line(title) or next(headings, "") or single_line(fallback_title) or single_line(name)
    sections: list[Section] = []
    above: list[Block] = []  # the headings of the current section, outermost first
    start, is_new = 0, True
    for level, text in cleaned:
        end = start + len(text)
        if level:
            above = [heading for heading in above if heading[0] < level] + [(level, text)]
            is_new = True
        elif is_new:
            # A heading that repeats the title is the title, not a section.
            path = tuple(heading for _, heading in above if normalize(heading) != normalize(title))
            sections.append(Section(path=path, start=start, end=end))
            is_new = False
        else:
            sections[-1] = sections[-1].model_copy(update={"end": end})
        start = end + 2
    return ReadDocument(
        title=title,
        text="\n\n".join(text for _, text in cleaned),
        sections=tuple(sections),
        metadata={key: value for key, value in (metadata or {}).items() if value},
        part=part,
    )
