"""Parsed documents: clean plain text with its sections, assembled from headings and paragraphs."""

from __future__ import annotations

import re
import traceback
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from tunewright.errors import DocumentError
from tunewright.records import Record, Section
from tunewright.text import encoding
from tunewright.text.encoding import DecodedText, without_damage
from tunewright.text.normalization import normalize
from tunewright.text.rows import ranges

ENCODING = "encoding"  # the metadata of a file that is not UTF-8


def decode_text(raw: bytes) -> DecodedText | Failure:
    """Return the text of bytes in any common encoding, or why they are not text."""
    try:
        decoded = encoding.decode(raw)
    except ValueError as error:
        return Failure(reason="not text", detail=str(error))
    return replace(decoded, text=without_damage(decoded.text))


def in_encoding(document: ReadDocument, decoded: DecodedText) -> ReadDocument:
    """Return a document with the encoding of its file, unless it is UTF-8, and with what is not sure about it."""
    if decoded.encoding == "UTF-8" and not decoded.doubt:
        return document
    metadata = document.metadata if decoded.encoding == "UTF-8" else document.metadata | {ENCODING: decoded.encoding}
    doubts = (decoded.doubt, *document.doubts) if decoded.doubt else document.doubts
    return document.model_copy(update={"metadata": metadata, "doubts": doubts})


# A piece of a document in reading order: (heading level, text); level 0 is body text.
Block = tuple[int, str]

_LINE_END = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_BLANK_LINES = re.compile(r"\n{3,}")
_INVISIBLE_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Cn"))
_MEANINGFUL = frozenset("\n\t\u200c\u200d")  # the two joiners carry meaning in Persian, Indic scripts and emoji
_LIGATURES = {  # letters that a font joins; Unicode Standard, Alphabetic Presentation Forms
    ord(ligature): letters
    for ligature, letters in zip("ﬀﬁﬂﬃﬄﬅﬆĳĲ", ("ff", "fi", "fl", "ffi", "ffl", "st", "st", "ij", "IJ"), strict=True)
}
BOILERPLATE = "boilerplate"  # the reason of text that many pages or files share
SCANNED = "text recognition reads scans, and fonts that do not say what they show: pip install 'tunewright[ocr]'"
NO_TEXT = "no text"  # the reason of pages, slides and sheets without any
_RAISED = str.maketrans("0123456789+-−–", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻")
_LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻−–", "0123456789+---")
_MAX_RAISED = 12
_MAX_MARKS = 30  # on one letter; Unicode Standard Annex 15, section 13 (stream-safe text)


class Failure(Record):
    """Why a file, or one ``part`` of it, could not be read; ``reason`` is counted, ``detail`` is shown.

    ``scanned`` numbers the pages, from 1, whose text recognition may read.
    """

    reason: str
    detail: str = ""
    part: str = ""
    scanned: tuple[int, ...] = ()


class ReadDocument(Record):
    """One document of a file.

    Attributes:
        part: names its row if the file holds several documents.
        left_out: the parts of it that were not read, each with its reason.
        doubts: why its text may be wrong.
    """

    title: str
    text: str
    sections: tuple[Section, ...]
    metadata: dict[str, str] = {}
    part: str = ""
    left_out: tuple[Failure, ...] = ()
    doubts: tuple[str, ...] = ()


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

    Ligatures become their letters. Removed are control, surrogate, unassigned and invisible format characters (NUL,
    byte order marks, soft hyphens, the tag characters that can hide instructions), trailing blanks, and all but one of
    consecutive empty lines.
    """
    text = _LINE_END.sub("\n", text)
    invisible = {c for c in set(text) if unicodedata.category(c) in _INVISIBLE_CATEGORIES and c not in _MEANINGFUL}
    text = text.translate({**dict.fromkeys(map(ord, invisible)), **_LIGATURES})
    text = unicodedata.normalize("NFC", _limit_marks(text))
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()


def raised(text: str) -> str:
    """Return superscript text: its digits and signs as superscript characters, so that 10⁶ is not read as 106.

    What is in brackets is apart from the word before it, and a longer text is no exponent and no mark.
    """
    short = len(text.strip()) <= _MAX_RAISED and not text.lstrip().startswith(("[", "("))
    return text.translate(_RAISED) if short else text


def lowered(text: str) -> str:
    """Return text with its superscript digits and signs as plain ones."""
    return text.translate(_LOWERED)


def struck(text: str) -> str:
    """Return struck-out text with the marks of Markdown, so that it is not read as what holds now."""
    bare = text.strip()
    return text.replace(bare, f"~~{bare}~~", 1) if bare else text


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
    left_out: Iterable[Failure] = (),
) -> ReadDocument:
    """Return the document that the blocks form; a section extends from one heading to the next.

    Args:
        blocks: headings and body text in reading order.
        name: the file's name without its extension; the title if there is no other.
        title: the title that the document declares.
        fallback_title: the title of a document without a declared title and without headings.
        metadata: other declared properties; empty values are dropped.
        part: the row of the file that this document is.
        left_out: the parts that were not read.
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
    text = "\n\n".join(text for _, text in cleaned)
    return ReadDocument(
        title=title,
        text=text,
        sections=tuple(sections),
        metadata={key: value for key, value in (metadata or {}).items() if value},
        part=part,
        left_out=tuple(left_out),
        doubts=tuple(_doubts(text)),
    )


def _doubts(text: str) -> Iterator[str]:
    """Yield what is not sure about a text: characters that only one font gives a meaning."""
    private = [c for c in text if "\ue000" <= c <= "\uf8ff" or c > "\U000effff"]
    if private:
        codes = " ".join(f"U+{ord(c):04X}" for c in sorted(set(private))[:5])
        yield f"{len(private)} character(s) have a meaning in their own font alone, and are kept as they are: {codes}"


def without_text(unit: str, numbers: list[int], total: int) -> list[Failure]:
    """Return the failure of the pages, slides or sheets that hold no text, if there are any."""
    if not numbers:
        return []
    named = f"{unit}{'s' * (len(numbers) > 1)} {', '.join(ranges(numbers))}"
    hint = {"sheet": "", "page": f": {SCANNED}"}.get(unit, ": run text recognition (OCR) first if they show any")
    scanned = tuple(numbers) if unit == "page" else ()
    return [Failure(part=named, reason=NO_TEXT, detail=f"{len(numbers)} of {total} {unit}s{hint}", scanned=scanned)]


_DATA_URI = re.compile(
    r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,[A-Za-z0-9+/=]{16,}(?:\n[A-Za-z0-9+/=]{40,}(?=\n|[)\"'\s]))*"
)
_BASE64_RUN = re.compile(
    r"(?:^[ \t]*[A-Za-z0-9+/]{60,}={0,2}[ \t]*$\n?){4,}|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{400,}={0,2}", re.MULTILINE
)


def without_base64(text: str) -> tuple[str, list[Failure]]:
    """Return the text without embedded images and files, and what was left out."""
    text, num_uris = _DATA_URI.subn("", text)
    matches = [match for match in _BASE64_RUN.finditer(text) if _is_base64(match[0])]
    for match in reversed(matches):
        text = text[: match.start()] + text[match.end() :]
    count = num_uris + len(matches)
    return text, [Failure(reason="embedded data", detail=f"{count} image(s) or file(s) in base64")] if count else []


def _is_base64(run: str) -> bool:
    """Return whether a run is encoded bytes, not a long word or a line of one letter."""
    return len(set(run)) > 30 and any(c.isdigit() for c in run) and any(c.isupper() for c in run)
