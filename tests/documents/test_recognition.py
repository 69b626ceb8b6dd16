"""Text recognition of scanned pages, by a stand-in for the engine; benchmarks/pdf_readers.py records the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.document_files import write_pdf
from tunewright.documents.markup import Reading
from tunewright.documents.recognition import is_available
from tunewright.documents.recognition_worker import Box, reading_order
from tunewright.documents.sandbox import read_files

STAND_IN = Path(__file__).parents[1] / "support" / "stand_in_ocr"
without_extra = pytest.mark.skipif(is_available(), reason="the extra is installed")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN), prepend=":")


def reading(file: Path, recognized: dict[int, list[list[object]]]) -> Reading:
    file.with_suffix(".json").write_text(json.dumps(recognized))
    return next(iter(read_files([file])))[1]


@pytest.mark.usefixtures("engine")
def test_scanned_pages_are_read_in_their_places_with_their_confidence(tmp_path: Path) -> None:
    pages = [["The first page has text of its own."], [], ["The third page has text, too."], [], []]
    file = write_pdf(tmp_path / "mixed.pdf", pages)
    lines = [["The second page is a scan of 4.7 liters.", 0.99, 50, 100], ["It has two lines.", 0.97, 50, 130]]
    result = reading(file, {2: lines, 4: [["Blurred w0rds.", 0.5, 50, 100]]})
    (document,) = result.documents
    assert not result.failures
    starts = list(map(int, document.metadata["pages"].split()))
    on_page = [document.text[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
    assert on_page[1] == "The second page is a scan of 4.7 liters. It has two lines." and on_page[3] == "Blurred w0rds."
    assert document.metadata["recognized_pages"] == "2 4"
    assert document.metadata["recognition_confidence"] == "0.984 0.500"
    assert document.doubts == ("text recognition is not sure of page(s) 4: confidence below 0.8",)
    (part,) = document.left_out
    assert (part.part, part.reason, part.detail) == ("page 5", "no text", "1 page(s): shows no text")


@pytest.mark.usefixtures("engine")
def test_a_page_that_breaks_the_engine_costs_only_itself(tmp_path: Path) -> None:
    file = write_pdf(tmp_path / "scan.pdf", [[], [], []])
    result = reading(file, {1: [["crash", 1, 0, 0]], 2: [["error", 1, 0, 0]], 3: [["Page three is fine.", 0.9, 0, 0]]})
    (document,) = result.documents
    assert document.text == "Page three is fine."
    (part,) = document.left_out
    assert part.part == "pages 1-2" and "ValueError: the picture is empty" in part.detail
    assert reading(file, {1: [["error", 1, 0, 0]]}).failures[0].reason == "no text"


@without_extra
def test_without_the_extra_the_pages_are_named_and_the_hint_says_what_reads_them(tmp_path: Path) -> None:
    mixed = reading(write_pdf(tmp_path / "mixed.pdf", [["Text of its own."], []]), {}).documents[0].left_out[0]
    scan = reading(write_pdf(tmp_path / "scan.pdf", [[], []]), {}).failures[0]
    assert (mixed.part, mixed.scanned, scan.scanned) == ("page 2", (2,), (1, 2))
    assert all("pip install 'tunewright[ocr]'" in failure.detail for failure in (mixed, scan))


def line(text: str, left: float, top: float) -> Box:
    return Box(text, 1.0, left, top, left + 10 * len(text), top + 20)


def test_columns_of_prose_are_read_one_after_the_other_and_tables_row_by_row() -> None:
    left = [f"left words in line {number}" for number in range(5)]
    right = [f"right words in line {number}" for number in range(5)]
    title = line("A title that crosses the middle of the whole page", 60, 10)
    boxes = [
        title,
        *(line(t, 50, 60 + 30 * n) for n, t in enumerate(left)),
        *(line(t, 400, 63 + 30 * n) for n, t in enumerate(right)),
    ]
    assert reading_order(boxes[::-1]) == [title.text, *left, *right]
    cells = [
        line(text, 50 + 350 * column, 60 + 30 * row)
        for row in range(5)
        for column, text in enumerate(("Oslo", str(row)))
    ]
    assert reading_order(cells[::-1]) == [f"Oslo {row}" for row in range(5)]
    assert reading_order([]) == []
