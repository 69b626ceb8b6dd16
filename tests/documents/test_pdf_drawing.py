"""Text that is drawn elsewhere on the page than the text before it, or twice at one position."""

from __future__ import annotations

from pathlib import Path

import pypdf
import pytest
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, StreamObject, TextStringObject

from support.document_files import Drawn, write_pdf
from tunewright.documents.markup import Failure, ReadDocument
from tunewright.documents.pdf import read_pdf
from tunewright.documents.pdf_drawing import drawn_text

LINE = "The trial ended with 15 patients and 12 variants"


def lines(path: Path, page: list[Drawn]) -> list[str]:
    return drawn_text(pypdf.PdfReader(write_pdf(path, [page])).pages[0]).text.split("\n")


@pytest.mark.parametrize("x", [50, 20, 120])
def test_a_header_over_the_last_line_is_not_glued_to_its_word(tmp_path: Path, x: int) -> None:
    assert lines(tmp_path / "a.pdf", [(50, 300, LINE), (x, 302, "Coast Guard 7")]) == [LINE, "Coast Guard 7"]


def test_cells_that_are_drawn_from_right_to_left_stay_apart(tmp_path: Path) -> None:
    cells: list[Drawn] = [(300, 300, "1,204"), (200, 300, "14"), (50, 300, "North Bay")]
    assert lines(tmp_path / "a.pdf", cells) == ["1,204", "14", "North Bay"]


def test_text_that_continues_a_line_stays_on_it(tmp_path: Path) -> None:
    # An index set back by kerning, a word close to the one before it, and a cell far from it.
    drawn: list[Drawn] = [(50, 300, "CO"), (63, 298, "2"), (78, 300, "rose"), (300, 300, "12.5")]
    assert lines(tmp_path / "a.pdf", drawn) == ["CO2 rose 12.5"]


def test_text_drawn_twice_for_its_weight_is_there_once(tmp_path: Path) -> None:
    drawn: list[Drawn] = [(50, 300, "Total 4,750"), (51, 300, "Total 4,750"), (50, 280, "Total 4,750"), (50, 260, "7")]
    assert lines(tmp_path / "a.pdf", drawn) == ["Total 4,750", "Total 4,750", "7"]


def test_forms_with_the_same_text_are_all_read_each_on_its_line(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(clone_from=write_pdf(tmp_path / "a.pdf", [[(50, 300, "Berths")]]))
    page = writer.pages[0]
    form = StreamObject()
    form.set_data(b"BT /F1 12 Tf 1 0 0 1 0 0 Tm (17) Tj ET")
    form.update({NameObject("/Subtype"): NameObject("/Form"), NameObject("/Resources"): page["/Resources"]})
    resources = page["/Resources"]
    assert isinstance(resources, DictionaryObject)
    resources[NameObject("/XObject")] = DictionaryObject({NameObject("/X"): writer._add_object(form)})
    content = page.get_contents()
    assert content is not None
    drawn = b" q 1 0 0 1 200 300 cm /X Do Q q 1 0 0 1 300 300 cm /X Do Q BT /F1 12 Tf 1 0 0 1 92 300 Tm (free) Tj ET"
    content.set_data(content.get_data() + drawn)
    page[NameObject("/Contents")] = writer._add_object(content)
    writer.write(tmp_path / "b.pdf")
    text = drawn_text(pypdf.PdfReader(tmp_path / "b.pdf").pages[0]).text
    assert text.split("\n") == ["Berths", "17", "17", "free"]


def without_characters(path: Path, page: list[Drawn], glyphs: bytes) -> ReadDocument | Failure:
    """Read a PDF that also shows glyphs by their numbers, in a font without the characters that they are."""
    writer = pypdf.PdfWriter(clone_from=write_pdf(path, [page]))
    descendant = {"/Type": "/Font", "/Subtype": "/CIDFontType2", "/BaseFont": "/A"}
    system = DictionaryObject({NameObject("/Ordering"): TextStringObject("Identity")})
    items = DictionaryObject({NameObject(k): NameObject(v) for k, v in descendant.items()})
    items[NameObject("/CIDSystemInfo")] = system
    names = {"/Type": "/Font", "/Subtype": "/Type0", "/BaseFont": "/A", "/Encoding": "/Identity-H"}
    font = DictionaryObject({NameObject(k): NameObject(v) for k, v in names.items()})
    font[NameObject("/DescendantFonts")] = ArrayObject([writer._add_object(items)])
    fonts = writer.pages[0]["/Resources"]["/Font"]  # type: ignore[index]
    fonts[NameObject("/F2")] = writer._add_object(font)
    content = writer.pages[0].get_contents()
    assert content is not None
    content.set_data(content.get_data() + b" BT /F2 12 Tf 1 0 0 1 50 100 Tm <" + glyphs + b"> Tj ET")
    writer.pages[0][NameObject("/Contents")] = writer._add_object(content)
    writer.write(path)
    (item,) = read_pdf(path)
    return item


def test_a_page_whose_fonts_do_not_say_what_they_show_is_left_to_recognition(tmp_path: Path) -> None:
    item = without_characters(tmp_path / "a.pdf", [(50, 300, "1")], b"0036004C004F0048" * 9)
    assert isinstance(item, Failure) and item.reason == "no text" and item.scanned == (1,)


def test_a_sign_in_such_a_font_is_marked_and_doubted(tmp_path: Path) -> None:
    item = without_characters(tmp_path / "a.pdf", [(50, 300, LINE)], b"0036")
    assert isinstance(item, ReadDocument)
    assert item.text.split() == [*LINE.split(), "\ufffd"]
    assert item.doubts == (
        "1 character(s) of page(s) 1 are in fonts that do not say which they show, and are read as \ufffd",
    )
