"""Superscripts and struck-out text in every format: 10⁶ is never read as 106, nor an old price as the price."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.document_files import Drawn, write_pdf
from support.office_files import book, open_text, packed, presentation
from tunewright.documents.markup import ReadDocument
from tunewright.documents.readers import READERS

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OPEN_STYLES = (
    '<office:document-styles xmlns:office="o" xmlns:style="s" xmlns:fo="f"><office:styles>'
    '<style:style style:name="T1"><style:text-properties style:text-position="super 58%"/></style:style>'
    '<style:style style:name="T2"><style:text-properties style:text-line-through-style="solid"/></style:style>'
    "</office:styles></office:document-styles>"
)


def word(*runs: tuple[str, str]) -> bytes:
    body = "".join(f'<w:r><w:rPr>{how}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>' for text, how in runs)
    main = f'<w:document xmlns:w="{WORD}"><w:body><w:p>{body}</w:p></w:body></w:document>'
    return packed({"word/document.xml": main})


def slides(*runs: tuple[str, str]) -> bytes:
    body = "".join(f"<a:r><a:rPr {how}/><a:t>{text}</a:t></a:r>" for text, how in runs)
    return packed(presentation(f"<p:sp><p:nvSpPr><p:nvPr/></p:nvSpPr><p:txBody><a:p>{body}</a:p></p:txBody></p:sp>"))


def of_runs(raised: str, struck: str) -> list[tuple[str, str]]:
    return [
        ("About 10", ""), ("6", raised), (" cells in 2019", ""), ("3", raised), (" on 12 m", ""), ("2", raised),
        (" at 10", ""), ("-7", raised), (", the 1", ""), ("st", raised), (" for ", ""), ("40", struck), (" 35 crowns.", ""),
    ]  # fmt: skip


def tagged(opening: str, closing: str, struck: str, unstruck: str) -> str:
    pieces = of_runs(opening, struck)
    ends = {opening: closing, struck: unstruck, "": ""}
    return "".join(f"{how}{text}{ends[how]}" for text, how in pieces)


PAGE = f"<p>{tagged('<sup>', '</sup>', '<del>', '</del>')}</p>"
FILES = {
    "a.docx": word(*of_runs('<w:vertAlign w:val="superscript"/>', "<w:strike/>")),
    "a.pptx": slides(*of_runs('baseline="30000"', 'strike="sngStrike"')),
    "a.html": PAGE.encode(),
    "a.epub": packed(book(PAGE)),
    "a.odt": packed(
        open_text(
            "<text:p>"
            + tagged(
                '<text:span text:style-name="T1">', "</text:span>", '<text:span text:style-name="T2">', "</text:span>"
            )
            + "</text:p>",
            **{"styles.xml": OPEN_STYLES},
        )
    ),
    "a.rtf": (r"{\rtf1\ansi " + tagged(r"{\super ", "}", r"{\strike ", "}") + r"\par}").encode(),
    "a.md": tagged("<sup>", "</sup>", "~~", "~~").encode(),
    "a.tex": tagged(r"\textsuperscript{", "}", r"\sout{", "}").encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_superscripts_and_struck_out_text_are_marked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    (document,) = READERS[Path(name).suffix](tmp_path / name)
    assert isinstance(document, ReadDocument)
    text = " ".join(document.text.removeprefix("Slide 1").split())
    assert text == "About 10⁶ cells in 2019³ on 12 m² at 10⁻⁷, the 1st for ~~40~~ 35 crowns."


def test_superscripts_of_a_pdf_by_font_and_height(tmp_path: Path) -> None:
    def small(x: int, y: int, text: str) -> Drawn:
        return (x, y, f") Tj /F1 7 Tf 1 0 0 1 {x} {y} Tm ({text}")

    # One with a font of its own inside of a text object, one by rise, and a footnote's mark at a line's start.
    drawn: list[Drawn] = [
        (50, 700, "Cells 10"),
        small(108, 704, "6"),
        (115, 700, " in 2019"),
        (50, 680, "On 12 m) Tj /F1 7 Tf 4 Ts (2) Tj 0 Ts ("),
        small(50, 660, "1"),
        (58, 656, "Counted by eye"),
    ]
    (document,) = READERS[".pdf"](write_pdf(tmp_path / "a.pdf", [drawn]))
    assert isinstance(document, ReadDocument)
    text = " ".join(document.text.split())
    assert text.startswith("Cells 10⁶ in 2019 On 12 m²") and text.endswith("Counted by eye")


def test_superscripts_stay_in_the_cells_of_a_pdfs_table(tmp_path: Path) -> None:
    rows = [("Region", "Cells", "Share"), ("North Bay", "10", "25%"), ("Lower Coast", "300", "13%")]
    drawn: list[Drawn] = [
        (50 + 160 * i, 700 - 20 * j, cell) for j, row in enumerate(rows) for i, cell in enumerate(row)
    ]
    drawn.insert(5, (210, 680, "10) Tj ET BT /F1 7 Tf 1 0 0 1 225 684 Tm (6"))
    del drawn[4]
    (document,) = READERS[".pdf"](write_pdf(tmp_path / "a.pdf", [[(50, 740, "All sites of the year."), *drawn]]))
    assert isinstance(document, ReadDocument)
    assert "North Bay | 10⁶ | 25%\nLower Coast | 300 | 13%" in document.text
