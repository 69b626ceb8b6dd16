"""PDFs: running lines, cut words, columns, forms and pages without text."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.document_files import write_pdf
from tunewright.documents.markup import ReadDocument
from tunewright.documents.readers import READERS

BODY = [
    "On page {n} the keeper of the north light wrote that",
    "the oil lasted for nineteen nights and that the wick",
    "had to be cut twice in each of the long winter weeks.",
    "He asked the board for a second man before autumn.",
]


def read(path: Path) -> ReadDocument:
    (item,) = READERS[path.suffix](path)
    assert isinstance(item, ReadDocument), item
    return item


def placed_pdf(path: Path, pages: list[list[tuple[int, int, str]]]) -> Path:
    """Write a PDF whose lines are placed: (x, y, text)."""
    write_pdf(path, [["x" * 4000] for _ in pages])
    raw = path.read_bytes()
    for page in pages:
        shown = "".join(f"1 0 0 1 {x} {y} Tm ({text}) Tj " for x, y, text in page)
        start = raw.index(b"BT /F1 12 Tf 50 750 Td (xxx")
        end = raw.index(b"ET", start) + 2
        raw = raw[:start] + f"BT /F1 11 Tf {shown}ET".encode("latin-1").ljust(end - start) + raw[end:]
    path.write_bytes(raw)
    return path


def running_page(n: int, header: list[str], footer: list[str]) -> list[tuple[int, int, str]]:
    lines = [(60, 740 - 14 * i, line) for i, line in enumerate(header)]
    lines += [(60, 640 - 14 * i, line.format(n=n)) for i, line in enumerate(BODY)]
    return lines + [(60, 60 - 14 * i, line.format(n=n)) for i, line in enumerate(footer)]


@pytest.mark.parametrize("num_pages", [2, 4])
@pytest.mark.parametrize("header", [[], ["NORTH LIGHT BOARD"], ["NORTH LIGHT BOARD", "Confidential", "Draft"]])
@pytest.mark.parametrize("footer", [["Page {n} of 4"], ["Page {n} of 4", "Board 1999"]])
def test_running_headers_and_footers_are_left_out_and_counted(
    tmp_path: Path, num_pages: int, header: list[str], footer: list[str]
) -> None:
    pages = [running_page(n, header, footer) for n in range(1, num_pages + 1)]
    document = read(placed_pdf(tmp_path / "a.pdf", pages))
    assert document.text == "\n\n".join(" ".join(BODY).format(n=n) for n in range(1, num_pages + 1))
    assert [part.part for part in document.left_out] == ["running header"] * bool(header) + ["running footer"]
    assert all(
        part.reason == "boilerplate" and line in part.detail for part in document.left_out[:-1] for line in header
    )


def test_two_pages_that_begin_alike_keep_their_text(tmp_path: Path) -> None:
    pages = [[line.format(n=n) for line in BODY] for n in (1, 2)]
    document = read(write_pdf(tmp_path / "a.pdf", pages))
    assert document.text.count("On page") == 2
    assert not document.left_out


def test_pages_without_text_are_named(tmp_path: Path) -> None:
    document = read(write_pdf(tmp_path / "a.pdf", [["Words."], [], [], ["More."], []]))
    (part,) = document.left_out
    assert (part.part, part.reason) == ("pages 2-3, 5", "no text")
    assert "3 of 5 pages" in part.detail


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("hydro-\nelectric", "hydroelectric"),
        ("non-\nEuropean", "non-European"),
        ("state-of-\nthe-art", "state-of-the-art"),
        ("from 3-\n5 percent", "from 3-5 percent"),
        ("COVID-\n19", "COVID-19"),
        ("US-\nAmerican", "US-American"),
        ("pre-\nand postwar", "pre- and postwar"),
        ("is well-known, and well-\nknown", "is well-known, and well-known"),
        ("a CON-\nTRACT", "a CONTRACT"),
    ],
)
def test_a_word_that_a_line_end_cuts(tmp_path: Path, cut: str, whole: str) -> None:
    assert read(write_pdf(tmp_path / "a.pdf", [cut.split("\n")])).text == whole


LEFT = [
    "The council of Norbury looked at the yearly",
    "report of the water works in early May and",
    "found that the losses had fallen by 12 percent",
    "since the new pipes were laid in the old town.",
]
RIGHT = [
    "The members then agreed to pay for the second",
    "part of the work, which costs 4.2 million and",
    "takes eleven months from the first day of June",
    "until the end of April in the following year.",
]


def test_columns_drawn_row_by_row_are_read_one_after_the_other(tmp_path: Path) -> None:
    rows = [
        (x, 700 - 14 * i, line)
        for i, pair in enumerate(zip(LEFT, RIGHT, strict=True))
        for x, line in zip((40, 400), pair, strict=True)
    ]
    text = read(placed_pdf(tmp_path / "a.pdf", [rows])).text
    assert text == " ".join(LEFT) + " " + " ".join(RIGHT)


def test_a_table_is_read_row_by_row(tmp_path: Path) -> None:
    cells = [
        (f"The long name of the river port number {i}", f"{i}00 tons in the year 19{i}0 of 12 {i}") for i in range(1, 7)
    ]
    rows = [(x, 700 - 14 * i, cell) for i, pair in enumerate(cells) for x, cell in zip((40, 400), pair, strict=True)]
    text = read(placed_pdf(tmp_path / "a.pdf", [rows])).text
    assert all(" ".join(pair) in " ".join(text.split()) for pair in cells)


def test_the_values_of_a_form_are_read(tmp_path: Path) -> None:
    import pypdf
    from pypdf.generic import ArrayObject, DictionaryObject, NameObject, TextStringObject

    writer = pypdf.PdfWriter(clone_from=write_pdf(tmp_path / "a.pdf", [["Request for a berth."]]))

    def field(name: str, kind: str, value: object) -> object:
        return writer._add_object(
            DictionaryObject(
                {
                    NameObject("/T"): TextStringObject(name),
                    NameObject("/FT"): NameObject(kind),
                    NameObject("/V"): value,
                    NameObject("/Subtype"): NameObject("/Widget"),
                }
            )
        )

    fields = [
        field("ship", "/Tx", TextStringObject("Brig Anna, 4.70 m")),
        field("paid", "/Btn", NameObject("/Yes")),
        field("night", "/Btn", NameObject("/Off")),
        field("empty", "/Tx", TextStringObject("")),
    ]
    form = DictionaryObject({NameObject("/Fields"): ArrayObject(fields)})
    writer._root_object[NameObject("/AcroForm")] = form
    writer.write(tmp_path / "b.pdf")
    assert read(tmp_path / "b.pdf").text == "Request for a berth.\n\nship: Brig Anna, 4.70 m\npaid: yes"


def test_lines_at_the_edge_that_differ_in_a_fact_are_no_running_lines(tmp_path: Path) -> None:
    pages = [running_page(n, [], [f"Total {total} crowns"]) for n, total in enumerate((4750, 310, 4890, 1200), 1)]
    document = read(placed_pdf(tmp_path / "a.pdf", pages))
    assert all(f"Total {total} crowns" in document.text for total in (4750, 310, 4890, 1200))
    assert not document.left_out


def test_lines_at_the_edge_may_hold_numbers_of_any_length(tmp_path: Path) -> None:
    numbers = ("1" * 18, "1" * 19, "1" * 20)
    pages = [running_page(n, [], [f"Reference {number}"]) for n, number in enumerate(numbers, 1)]
    assert read(placed_pdf(tmp_path / "a.pdf", pages)).text
