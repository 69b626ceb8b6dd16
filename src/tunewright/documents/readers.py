"""The table of readers by file extension, and the reader of plain text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunewright.documents.markdown import read_markdown
from tunewright.documents.markup import Failure, ReadItems, assemble, decode_text, in_encoding, without_base64
from tunewright.documents.pdf import read_pdf
from tunewright.documents.rows import read_csv, read_json_lines
from tunewright.documents.web import read_html
from tunewright.documents.word import read_docx


def read_plain(path: Path) -> ReadItems:
    """Read plain text in UTF-8, UTF-16 or an older encoding."""
    decoded = decode_text(path.read_bytes())
    if isinstance(decoded, Failure):
        return [decoded]
    text, left_out = without_base64(decoded.text)
    return [in_encoding(assemble([(0, text)], path.stem, left_out=left_out), decoded)]


READERS: dict[str, Callable[[Path], ReadItems]] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_plain,
    ".text": read_plain,
    ".pdf": read_pdf,
    ".html": read_html,
    ".htm": read_html,
    ".docx": read_docx,
    ".jsonl": read_json_lines,
    ".csv": read_csv,
}
