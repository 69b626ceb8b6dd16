"""The table of readers by file extension, and the readers of plain text and code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunewright.documents.mail import read_eml, read_mbox
from tunewright.documents.markdown import read_markdown
from tunewright.documents.markup import Failure, ReadItems, assemble, decode_text, in_encoding, without_base64
from tunewright.documents.open_documents import read_epub, read_odt
from tunewright.documents.pdf import read_pdf
from tunewright.documents.rich_text import read_rtf
from tunewright.documents.rows import read_csv, read_json, read_json_lines, read_notebook
from tunewright.documents.slides import read_pptx
from tunewright.documents.typeset import read_tex
from tunewright.documents.web import read_html
from tunewright.documents.word import read_docx
from tunewright.documents.workbooks import read_xlsx


def read_plain(path: Path) -> ReadItems:
    """Read plain text in UTF-8, UTF-16 or an older encoding."""
    decoded = decode_text(path.read_bytes())
    if isinstance(decoded, Failure):
        return [decoded]
    text, left_out = without_base64(decoded.text)
    return [in_encoding(assemble([(0, text)], path.stem, left_out=left_out), decoded)]


def read_code(path: Path) -> ReadItems:
    """Read source code as text, line by line, with its indents; its title is the file's name."""
    decoded = decode_text(path.read_bytes())
    if isinstance(decoded, Failure):
        return [decoded]
    text, left_out = without_base64(decoded.text)
    return [in_encoding(assemble([(0, text)], path.name, left_out=left_out), decoded)]


CODE = (
    *(".c", ".cc", ".clj", ".cpp", ".cs", ".dart", ".ex", ".go", ".h", ".hpp", ".hs", ".java", ".jl", ".js"),
    *(".kt", ".lua", ".m", ".pl", ".php", ".proto", ".ps1", ".py", ".r", ".rb", ".rs", ".scala", ".sh", ".sql"),
    *(".swift", ".ts", ".tsx", ".vue", ".zig"),
)
READERS: dict[str, Callable[[Path], ReadItems]] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_plain,
    ".text": read_plain,
    ".rst": read_plain,
    ".pdf": read_pdf,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".docx": read_docx,
    ".pptx": read_pptx,
    ".xlsx": read_xlsx,
    ".odt": read_odt,
    ".rtf": read_rtf,
    ".epub": read_epub,
    ".eml": read_eml,
    ".mbox": read_mbox,
    ".tex": read_tex,
    ".ipynb": read_notebook,
    ".jsonl": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    **dict.fromkeys(CODE, read_code),
}
