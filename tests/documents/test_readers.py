"""The readers: what each format gives, with offsets that hold."""

from __future__ import annotations

import json
from pathlib import Path

import docx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.document_files import write_package, write_pdf
from tunewright.documents import package
from tunewright.documents.markup import Failure, ReadDocument, assemble, clean_text
from tunewright.documents.readers import READERS


def read_document(path: Path) -> ReadDocument:
    (item,) = READERS[path.suffix](path)
    assert isinstance(item, ReadDocument), item
    return item


def read_failure(path: Path) -> Failure:
    (item,) = READERS[path.suffix](path)
    assert isinstance(item, Failure), item
    return item


def bodies(document: ReadDocument) -> dict[tuple[str, ...], str]:
    return {section.path: document.text[section.start : section.end] for section in document.sections}


def test_markdown_front_matter_is_metadata_and_headings_are_sections(tmp_path: Path) -> None:
    path = tmp_path / "note.md"
    path.write_text(
        "---\ntitle: \"A: \\\"quoted\\\" title\"\nyear: 2021\nauthors:\n  - Ada\n  - 'O''Hara'\nurl: http://a.b/c\n"
        "# a comment\nempty:\n---\n\nBefore.\n\n# Methods\n\nWe did.\nAnd did.\n\n## Data #\n\n"
        "Many.\n\n# Results\n\nGood.\n"
    )
    document = read_document(path)
    assert document.title == 'A: "quoted" title'
    assert document.metadata == {"year": "2021", "authors": "Ada, O'Hara", "url": "http://a.b/c"}
    assert bodies(document) == {
        (): "Before.",
        ("Methods",): "We did.\nAnd did.",
        ("Methods", "Data"): "Many.",
        ("Results",): "Good.",
    }
    assert "year" not in document.text


def test_markdown_title_is_the_first_heading_and_no_section(tmp_path: Path) -> None:
    path = tmp_path / "note.md"
    path.write_text("Great Title\n===========\n\nIntro.\n\nPart\n----\n\nBody.\n")
    document = read_document(path)
    assert document.title == "Great Title"
    assert bodies(document) == {(): "Intro.", ("Part",): "Body."}


def test_markdown_code_comments_and_rules_are_no_headings(tmp_path: Path) -> None:
    path = tmp_path / "code.md"
    path.write_text("---\nplain prose, no key\n---\n\n```sh\n# not a heading\n```\n\n#hashtag\n\n<!-- unseen -->End.\n")
    document = read_document(path)
    assert document.title == "code"
    assert [section.path for section in document.sections] == [()]
    assert "# not a heading" in document.text
    assert "#hashtag" in document.text
    assert "plain prose" in document.text
    assert "unseen" not in document.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"])
def test_plain_text_encodings(tmp_path: Path, encoding: str) -> None:
    text = "Les élèves mangent des crêpes à l'école. " + ("It’s “quoted”." if encoding != "latin-1" else "")
    path = tmp_path / "page.txt"
    path.write_bytes(text.encode(encoding))
    assert read_document(path).text == text.strip()


def test_binary_content_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "page.txt"
    path.write_bytes(bytes(range(256)) * 20)
    assert read_failure(path).reason == "not text"


def test_nul_bytes_line_ends_and_unseen_characters_are_cleaned(tmp_path: Path) -> None:
    path = tmp_path / "page.txt"
    path.write_bytes("one\x00 two\r\nthree\rcafe\u0301 \U000e0041hid\u00adden\ufeff  \n\n\n\n\nend".encode())
    assert read_document(path).text == "one two\nthree\ncafé hidden\n\nend"


@given(st.lists(st.tuples(st.integers(0, 6), st.text(max_size=40)), max_size=12))
def test_assembled_sections_are_the_clean_blocks_in_order(blocks: list[tuple[int, str]]) -> None:
    document = assemble(blocks, "name")
    assert document.text == clean_text(document.text)
    runs: list[list[str]] = [[]]  # the body text between headings, worked out another way
    for level, text in blocks:
        if level and clean_text(text):
            runs.append([])
        elif not level and clean_text(text):
            runs[-1].append(clean_text(text))
    assert [document.text[s.start : s.end] for s in document.sections] == ["\n\n".join(run) for run in runs if run]


def test_html_drops_what_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        "<!doctype html><html><head><title>Site - Page</title><style>p{}</style></head><body><nav>menu</nav>"
        "<script>alert(1)</script><!-- comment --><p>Lead <b>bold</b>\n text.<br>Next line.</p>"
        "<h2>Part <i>one</i></h2><div>In div<p>in p</p>tail</div><p hidden>secret</p>"
        "<p style='display: none'>secret</p><pre>a\n  b</pre>"
        "<h3>Table</h3><table><tr><th>k</th><th>v</th></tr><tr><td>a</td><td>1</td></tr></table></body></html>"
    )
    document = read_document(path)
    assert document.title == "Part one"
    assert [(section.path, document.text[section.start : section.end]) for section in document.sections] == [
        ((), "Lead bold text.\nNext line."),
        ((), "In div\n\nin p\n\ntail\n\na\n  b"),  # under the heading that is the title
        (("Table",), "k | v\n\na | 1"),
    ]
    for unseen in ("menu", "alert", "comment", "secret", "p{}", "Site"):
        assert unseen not in document.text


HIDING = [
    "color:white",
    "color: #ffffff",
    "color:rgb(255, 255, 255)",
    "color:red; background:red",
    "color:transparent",
    "font-size:0",
    "font-size: 0px;",
    "font-size:1px",
    "opacity: 0.0;",
    "position:absolute; left:-9999px",
    "text-indent:-5000px",
    "transform:translateX(-9999px)",
    "clip:rect(0,0,0,0)",
    "height:0;overflow:hidden",
    "visibility:hidden",
]
SHOWING = [
    "color:#333",
    "background-color:navy;color:white",
    "font-size:1em",
    "font-size:1.5rem;",
    "font-size:10px",
    "opacity:0.8",
    "margin-left:-10px",
    "height:100px;overflow:hidden",
    "background-color:white",
    "border-color:white",
]


def page_text(folder: Path, body: str, sheet: str = "") -> str:
    path = folder / "page.html"
    path.write_text(f"<html><head><style>{sheet}</style></head><body><p>Seen.</p>{body}<p>Seen too.</p></body></html>")
    return read_document(path).text


@pytest.mark.parametrize("style", HIDING)
def test_text_that_a_page_makes_invisible_is_not_read(tmp_path: Path, style: str) -> None:
    assert page_text(tmp_path, f"<div style='{style}'><p>secret</p></div>") == "Seen.\n\nSeen too."
    if "height" not in style and "visibility" not in style and "opacity" not in style:
        assert page_text(tmp_path, "<p class='x'>secret</p>", f"/* c */ .y, .x {{ {style} }}") == "Seen.\n\nSeen too."


@pytest.mark.parametrize(
    "body",
    [
        "<div aria-hidden='true'>secret</div>",
        "<font color='white'>secret</font>",
        "<font size='0'>secret</font>",
        "<p hidden>secret</p>",
    ],
)
def test_text_that_an_attribute_makes_invisible_is_not_read(tmp_path: Path, body: str) -> None:
    assert page_text(tmp_path, body) == "Seen.\n\nSeen too."


@pytest.mark.parametrize("style", SHOWING)
def test_text_that_a_page_shows_is_read(tmp_path: Path, style: str) -> None:
    assert "shown" in page_text(tmp_path, f"<p style='{style}'>shown</p>")
    assert "shown" in page_text(tmp_path, "<p class='x'>shown</p>", f".x {{ {style} }}")


def test_white_on_a_dark_ground_and_what_a_reader_may_open_is_read(tmp_path: Path) -> None:
    assert "shown" in page_text(tmp_path, "<div style='background:#000'><p style='color:white'>shown</p></div>")
    for sheet in (
        ".x{display:none}",
        "@media print{.x{font-size:0}}",
        "@media (max-width:9px){.y{a:b}.x{color:white}}",
    ):
        assert "shown" in page_text(tmp_path, "<p class='x'>shown</p>", sheet)


def test_html_title_and_declared_encoding(tmp_path: Path) -> None:
    path = tmp_path / "page.htm"
    path.write_bytes("<meta charset='iso-8859-2'><title>Łódź</title><p>Zażółć gęślą jaźń".encode("iso-8859-2"))
    document = read_document(path)
    assert document.title == "Łódź"
    assert document.text == "Zażółć gęślą jaźń"


def test_docx_headings_tables_and_hidden_text(tmp_path: Path) -> None:
    written = docx.Document()
    written.add_heading("The Title", 0)
    written.add_paragraph("Opening.")
    written.add_heading("Methods", 1)
    written.add_paragraph("Seen").add_run(" unseen").font.hidden = True
    table = written.add_table(2, 3)
    for row, texts in zip(table.rows, (("a", "b", "c"), ("1", "2", "3")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    table.cell(0, 0).merge(table.cell(0, 1))
    written.add_heading("Deeper", 2)
    written.add_paragraph("Last.")
    written.core_properties.author = "Ada"
    written.save(str(tmp_path / "paper.docx"))
    document = read_document(tmp_path / "paper.docx")
    assert document.title == "The Title"
    assert document.metadata == {"author": "Ada"}
    assert bodies(document) == {
        (): "Opening.",
        ("Methods",): "Seen\n\na b | c\n1 | 2 | 3",
        ("Methods", "Deeper"): "Last.",
    }


def test_docx_that_would_unpack_too_far_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MAX_UNPACKED_BYTES", 2**20)
    path = write_package(tmp_path / "bomb.docx", {"word/document.xml": bytes(2**21)})
    assert path.stat().st_size < 10_000
    failure = read_failure(path)
    assert (failure.reason, failure.detail) == ("too large", "unpacks to 2 MB")


def test_pdf_rejoins_lines_and_keeps_page_offsets(tmp_path: Path) -> None:
    header = "Journal of Examples 12"
    pages = [
        [
            header,
            "A Study of Lines",
            "The first sentence of this page is hyphen-",
            "ated over two lines and it runs on",
        ],
        [header, "over the end of the page to this place."],
        [header, "Another paragraph stands on the third page."],
    ]
    document = read_document(write_pdf(tmp_path / "paper.pdf", pages, "A Study of Lines"))
    assert document.title == "A Study of Lines"
    sentence = "The first sentence of this page is hyphenated over two lines and it runs on over the end of the page"
    assert sentence in document.text
    assert header not in document.text
    starts = [int(start) for start in document.metadata["pages"].split()]
    assert [document.text[start : start + 7] for start in starts] == ["A Study", "over th", "Another"]


def test_pdf_title_that_the_page_does_not_show_is_not_taken(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "report.pdf", [["Some words stand here."]], "Microsoft Word - draft7.doc")
    assert read_document(path).title == "report"


def test_scanned_pdf_names_text_recognition(tmp_path: Path) -> None:
    failure = read_failure(write_pdf(tmp_path / "scan.pdf", [[], []]))
    assert failure.reason == "no text"
    assert failure.detail.startswith("2 page(s): text recognition reads scans") and "tunewright[ocr]" in failure.detail


def test_jsonl_gives_a_document_per_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"content": "First.", "title": "One", "year": 2020, "tags": ["a"], "none": None}, "Bare text."]
    rows.append({"id": "x7", "body": "Third."})
    lines = [*map(json.dumps, rows), "", "{broken", json.dumps({"label": 1}), json.dumps([1])]
    path.write_text("\n".join(lines), encoding="utf-8")
    items = READERS[".jsonl"](path)
    documents = [item for item in items if isinstance(item, ReadDocument)]
    failures = [item for item in items if isinstance(item, Failure)]
    assert [(d.title, d.text, d.part) for d in documents] == [
        ("One", "First.", "1"),
        ("rows 2", "Bare text.", "2"),
        ("rows x7", "Third.", "x7"),
    ]
    assert documents[0].metadata == {"year": "2020", "tags": '["a"]'}
    assert [(f.reason, f.part) for f in failures] == [
        ("not JSON", "5"),
        ("no text column", "6"),
        ("no text column", "7"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_gives_a_document_per_row(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "rows.csv"
    lines = [
        ("Title", "Text", "year"),
        ("One", '"First, with\nline end; and ""quotes""."', "2020"),
        ("Two", "Second.", ""),
    ]
    path.write_text("\ufeff" + "\r\n".join(map(delimiter.join, lines)), encoding="utf-8")
    items = READERS[".csv"](path)
    assert [(d.title, d.text, d.metadata) for d in items if isinstance(d, ReadDocument)] == [
        ("One", 'First, with\nline end; and "quotes".', {"year": "2020"}),
        ("Two", "Second.", {}),
    ]
    assert len(items) == 2


def test_csv_without_text_column_names_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("name,age\nAda,36\nBob,40\n")
    failure = read_failure(path)
    assert failure.reason == "no text column"
    assert "name, age" in failure.detail
