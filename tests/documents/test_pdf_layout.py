"""Pages whose parts are drawn in another order than they are read: columns row by row, tables cell by cell, footers first."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.document_files import Drawn, write_pdf
from tunewright.documents.markup import ReadDocument
from tunewright.documents.pdf import read_pdf

TABLE = [
    ("Region", "Sites", "Patients", "Share"),
    ("North Bay", "14", "1,204", "25.9%"),
    ("Coast", "21", "2,310", "21.6%"),
]
ROWS = "Region | Sites | Patients | Share\nNorth Bay | 14 | 1,204 | 25.9%\nCoast | 21 | 2,310 | 21.6%"
LEFT = [
    "The harbor was built in",
    "the year 1868 by masons",
    "who came from the north",
    "and stayed for ten years.",
    "Their houses still stand.",
]
RIGHT = [
    "Today it serves ferries",
    "and a few fishing boats",
    "which leave before dawn",
    "and return in the evening",
    "with mackerel and cod.",
]


def read(path: Path, *pages: list[Drawn]) -> ReadDocument:
    (document,) = read_pdf(write_pdf(path, pages))
    assert isinstance(document, ReadDocument)
    return document


def test_two_columns_that_are_drawn_row_by_row_are_read_one_after_the_other(tmp_path: Path) -> None:
    sides = [
        [(50, 700 - 14 * n, text) for n, text in enumerate(LEFT)],
        [(330, 700 - 14 * n, text) for n, text in enumerate(RIGHT)],
    ]
    by_row = [text for pair in zip(*sides, strict=True) for text in pair]
    expected = " ".join(LEFT + RIGHT)
    assert " ".join(read(tmp_path / "rows.pdf", by_row).text.split()) == expected
    assert " ".join(read(tmp_path / "columns.pdf", sides[0] + sides[1]).text.split()) == expected


@pytest.mark.parametrize("order", ["by row", "by column", "backwards"])
def test_a_table_is_rows_in_whatever_order_its_cells_are_drawn(tmp_path: Path, order: str) -> None:
    cells = [(row, column) for row in range(len(TABLE)) for column in range(4)]
    if order != "by row":
        cells = sorted(cells, key=lambda at: at[::-1]) if order == "by column" else cells[::-1]
    drawn = [(50 + 120 * column, 600 - 16 * row, TABLE[row][column]) for row, column in cells]
    before: list[Drawn] = [
        (50, 660, "The table shows all sites that took part in the first year of it."),
        (50, 646, "It is complete."),
    ]
    text = read(tmp_path / "table.pdf", [*before, *drawn, (50, 500, "Two sites joined later.")]).text
    assert text.endswith(f"It is complete.\n\n{ROWS}\n\nTwo sites joined later.")


def test_headers_and_footers_that_are_drawn_first_are_left_out(tmp_path: Path) -> None:
    body = ["Every page has text of its own", "that is as long as this line", "and one more about number"]
    pages: list[list[Drawn]] = [
        [
            (50, 780, "Harbor Report"),
            (50, 30, f"Page {n}"),
            *((50, 700 - 14 * k, f"{text} {n}{k}.") for k, text in enumerate(body)),
        ]
        for n in range(1, 5)
    ]
    document = read(tmp_path / "report.pdf", *pages)
    assert "Harbor" not in document.text and "Page" not in document.text and "number 42." in document.text
    assert [part.part for part in document.left_out] == ["running header", "running footer"]


def test_the_longer_of_two_short_columns_is_not_taken_for_a_footer(tmp_path: Path) -> None:
    left: list[Drawn] = [(50, 700 - 14 * n, text) for n, text in enumerate(LEFT)]
    right: list[Drawn] = [(330, 700 - 14 * n, text) for n, text in enumerate(RIGHT[:3])]
    assert " ".join(read(tmp_path / "short.pdf", left + right).text.split()) == " ".join(LEFT + RIGHT[:3])
