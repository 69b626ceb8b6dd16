"""Text written into a file of each format comes back equal."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import docx
from hypothesis import given, settings
from hypothesis import strategies as st

from support.document_files import write_pdf
from tunewright.documents.markup import ReadDocument, clean_text
from tunewright.documents.readers import READERS

# Clean lines that no format takes for anything but words; what is not clean is the cleaner's own test.
_LETTERS = st.sampled_from("abcXYZ019 ,;:'\"()?!&<>%$/\\äßøéЖ中한ع\t\U0001f600")
LINES = st.text(_LETTERS, min_size=1, max_size=30).map(lambda line: clean_text(line)).filter(bool)
# Tags, entities and escapes of Markdown are what they show.
MARKDOWN_LINES = LINES.map(lambda line: re.sub(r"[<&\\]", "x", line))
MANY = settings(max_examples=50, deadline=None)  # a busy machine is no fault
PARAGRAPHS = st.lists(LINES, min_size=1, max_size=6)
MARKDOWN_PARAGRAPHS = st.lists(MARKDOWN_LINES, min_size=1, max_size=6)


def read_back(extension: str, write: Callable[[Path], object]) -> list[ReadDocument]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"page{extension}"
        write(path)
        items = READERS[extension](path)
    documents = [item for item in items if isinstance(item, ReadDocument)]
    assert len(documents) == len(items), items
    return documents


@MANY
@given(paragraphs=PARAGRAPHS)
def test_plain_text(paragraphs: list[str]) -> None:
    text = "\n\n".join(paragraphs)
    (document,) = read_back(".txt", lambda path: path.write_text(text, encoding="utf-8"))
    assert document.text == text


@MANY
@given(paragraphs=MARKDOWN_PARAGRAPHS)
def test_markdown(paragraphs: list[str]) -> None:
    text = "\n\n".join(paragraphs)
    (document,) = read_back(".md", lambda path: path.write_text(text, encoding="utf-8"))
    assert document.text == text


@MANY
@given(parts=st.lists(st.tuples(MARKDOWN_LINES, MARKDOWN_PARAGRAPHS), min_size=1, max_size=4))
def test_markdown_sections(parts: list[tuple[str, list[str]]]) -> None:
    text = "# Whole\n\n" + "\n\n".join(f"## {head}\n\n" + "\n\n".join(body) for head, body in parts)
    (document,) = read_back(".md", lambda path: path.write_text(text, encoding="utf-8"))
    bodies = [document.text[section.start : section.end] for section in document.sections]
    assert document.title == "Whole"
    assert bodies == ["\n\n".join(body) for _, body in parts]


@MANY
@given(paragraphs=PARAGRAPHS)
def test_html(paragraphs: list[str]) -> None:
    # White space runs together on a page, as in a browser.
    page = "".join(f"<p>{html.escape(text)}</p>\n" for text in paragraphs)
    (document,) = read_back(".html", lambda path: path.write_text(page, encoding="utf-8"))
    assert document.text == "\n\n".join(" ".join(text.split()) for text in paragraphs)


@settings(max_examples=15, deadline=None)
@given(paragraphs=PARAGRAPHS)
def test_docx(paragraphs: list[str]) -> None:
    written = docx.Document()
    for text in paragraphs:
        written.add_paragraph(text)
    (document,) = read_back(".docx", lambda path: written.save(str(path)))
    assert document.text == "\n\n".join(paragraphs)


@MANY
@given(
    lines=st.lists(
        st.text("abc XYZ019,;?!", min_size=40, max_size=60).map(clean_text).filter(bool), min_size=1, max_size=4
    )
)
def test_pdf(lines: list[str]) -> None:
    # A PDF knows no paragraphs and no runs of blanks: the words come back in their order.
    (document,) = read_back(".pdf", lambda path: write_pdf(path, [lines]))
    assert document.text.split() == " ".join(lines).split()


@MANY
@given(rows=st.lists(st.tuples(LINES, PARAGRAPHS), min_size=1, max_size=5), ascii_only=st.booleans())
def test_jsonl(rows: list[tuple[str, list[str]]], ascii_only: bool) -> None:
    lines = [
        json.dumps({"title": title, "text": "\n\n".join(body)}, ensure_ascii=ascii_only) + "\n" for title, body in rows
    ]
    documents = read_back(".jsonl", lambda path: path.write_text("".join(lines), encoding="utf-8"))
    assert [(d.title, d.text) for d in documents] == [(" ".join(title.split()), "\n\n".join(b)) for title, b in rows]


@MANY
@given(rows=st.lists(st.tuples(LINES, PARAGRAPHS), min_size=1, max_size=5), delimiter=st.sampled_from(",;\t"))
def test_csv(rows: list[tuple[str, list[str]]], delimiter: str) -> None:
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter=delimiter)
    writer.writerows([("title", "text"), *((title, "\n\n".join(body)) for title, body in rows)])
    documents = read_back(".csv", lambda path: path.write_bytes(table.getvalue().encode()))
    assert [(d.title, d.text) for d in documents] == [(" ".join(title.split()), "\n\n".join(b)) for title, b in rows]
