"""Damaged and hostile content: each reader answers soon, and says what is wrong in a way that a user can read."""

from __future__ import annotations

import json
from pathlib import Path

import docx
import pytest

from support.document_files import docx_members, write_package, write_pdf
from support.fuzzed_files import damaged
from tunewright.documents.markdown import markdown_blocks, parse_front_matter, without_comments
from tunewright.documents.markup import Failure, Reading, clean_text
from tunewright.documents.sandbox import read_files
from tunewright.documents.sandbox_worker import CRASHED, read_file

FIRST = (".md", ".txt", ".html", ".docx", ".pdf", ".jsonl", ".csv")
LATER = (".pptx", ".xlsx", ".odt", ".rtf", ".epub", ".eml", ".mbox", ".ipynb", ".tex", ".json", ".py")


def read_content(path: Path, content: str | bytes) -> Reading:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    reading = read_file(path)
    assert Reading.model_validate_json(reading.model_dump_json()) == reading
    return reading


def test_damaged_files_of_every_format_are_read_or_refused(tmp_path: Path) -> None:
    files = []
    for extension in FIRST + LATER:
        for number in range(1000, 1030 if extension in FIRST else 1012):
            files.append(tmp_path / f"{number}{extension}")
            files[-1].write_bytes(damaged(extension, 1, number))
    outcomes = dict(read_files(files, 60, 1024))
    assert list(outcomes) == files
    for file, reading in outcomes.items():
        assert reading.documents or reading.failures, file
        assert CRASHED not in {failure.reason for failure in reading.failures}, (file, reading.failures)
        assert all(document.text == clean_text(document.text) for document in reading.documents), file
    undamaged = [reading for file, reading in outcomes.items() if file.stem == "1000"]  # every 50th is undamaged
    assert all(reading.documents and not reading.failures for reading in undamaged)


def test_damaged_files_are_the_same_for_the_same_seed() -> None:
    assert [damaged(".csv", 3, n) for n in range(9)] == [damaged(".csv", 3, n) for n in range(9)]
    assert damaged(".csv", 3, 1) != damaged(".csv", 4, 1)


# Each took time with the square of its length: minutes for a file of a megabyte.
@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a" + "\t" * 1_000_000 + "b", "a" + "\t" * 1_000_000 + "b"),
        ("# a" + " " * 1_000_000 + "b", "a b"),
        ("<!--" * 250_000, "<!--" * 250_000),
    ],
    ids=["blanks", "heading", "comments"],
)
def test_long_runs_take_no_time(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "run.md").write_text(content)
    ((_, reading),) = read_files([tmp_path / "run.md"], timeout_s=20, memory_mb=512)
    assert reading.failures == ()
    assert reading.documents[0].text == text


def test_marks_on_one_letter_are_limited() -> None:
    piled = clean_text("x" + "\u0301\u0316" * 200_000 + "y")
    assert piled.startswith("x") and piled.endswith("y")
    assert len(piled) == 32
    # Marks that only their decomposition shows to be ones, and those of everyday text.
    assert len(clean_text("\u0f40" + "\u0f73" * 1000)) <= 1 + 2 * 30
    everyday = "Việt Nam, é, שָׁלוֹם, ครั้ง, हिन्दी"
    assert clean_text(everyday) == clean_text(clean_text(everyday))
    assert len(clean_text(everyday)) >= len("Viet Nam, e") and "ครั้ง" in clean_text(everyday)


def test_comments_end_where_they_end() -> None:
    assert without_comments("a<!-- b -->c<!---->d<!-- e") == "acd<!-- e"
    assert without_comments("a-->b<!-->c-->d") == "a-->bd"


@pytest.mark.parametrize(
    ("line", "heading"),
    [("# One #", "One"), ("## C# ##  ", "C#"), ("# C#", "C#"), ("# a  # b", "a  # b"), ("#\tTab \t##\t", "Tab")],
)
def test_signs_that_close_a_heading_are_no_text(line: str, heading: str) -> None:
    assert [text for level, text in markdown_blocks(line) if level] == [heading]


def test_front_matter_lists_and_continued_texts() -> None:
    matter, text = parse_front_matter("---\na: |\n  one\n  two\nb:\n- x\n- 'y'\n-\nc: d\n  e\n---\nbody")
    assert matter == {"a": "one two", "b": "x, y -", "c": "d e"}
    assert text == "body"


def test_column_names_with_lone_surrogates_are_reported(tmp_path: Path) -> None:
    reading = read_content(tmp_path / "rows.jsonl", '{"a\\ud800": 1, "b": 2}\n{"text": "kept", "\\udfff": "\\ud800"}')
    assert [(failure.reason, failure.part) for failure in reading.failures] == [("no text column", "1")]
    assert "columns: a, b;" in reading.failures[0].detail
    assert [document.text for document in reading.documents] == ["kept"]


@pytest.mark.parametrize("key", ["tags", "title"])
def test_row_that_nests_too_deep_does_not_take_the_others_with_it(tmp_path: Path, key: str) -> None:
    rows = [json.dumps({"text": "kept"})]
    rows += [f'{{"text": "x", "{key}": {"[" * depth}{"]" * depth}}}' for depth in (300, 900, 970, 990, 1100, 200_000)]
    reading = read_content(tmp_path / "rows.jsonl", "\n".join([*rows, rows[0]]))
    assert CRASHED not in {failure.reason for failure in reading.failures}
    assert ("not JSON", "nested too deep") in {(failure.reason, failure.detail[:15]) for failure in reading.failures}
    assert len(reading.documents) + len(reading.failures) == len(rows) + 1
    assert [d.text for d in reading.documents][:1] + [d.text for d in reading.documents][-1:] == ["kept", "kept"]


@pytest.mark.parametrize("name, content", [("a.jsonl", "\n \n"), ("a.csv", "id,text\r\n")])
def test_a_table_without_rows_is_reported(tmp_path: Path, name: str, content: str) -> None:
    assert read_content(tmp_path / name, content).failures == (Failure(reason="no rows"),)


def test_damage_in_a_library_is_reported_as_damage(tmp_path: Path) -> None:
    docx.Document().save(str(tmp_path / "plain.docx"))
    members = docx_members(tmp_path / "plain.docx")
    del members["word/document.xml"]
    write_package(tmp_path / "no_body.docx", members)
    pdf = write_pdf(tmp_path / "cut.pdf", [["Some words."]])
    pdf.write_bytes(pdf.read_bytes()[:150])
    for path, detail in (("no_body.docx", "damaged .docx (it has no part"), ("cut.pdf", "damaged PDF (Pdf")):
        (failure,) = read_file(tmp_path / path).failures
        assert failure.reason == "unreadable"
        assert failure.detail.startswith(detail)


def test_an_error_in_our_own_code_is_not_reported_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docx.Document().save(str(tmp_path / "a.docx"))
    monkeypatch.setattr("tunewright.documents.word._heading_levels", lambda styles: _broken(styles))
    monkeypatch.setitem(globals(), "__name__", "tunewright.documents.broken")
    (failure,) = read_file(tmp_path / "a.docx").failures
    assert (failure.reason, failure.detail) == (CRASHED, "KeyError: 'gone'")


def _broken(document: object) -> dict[str, int]:
    return {}["gone"]


def test_an_error_of_a_reader_is_not_reported_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewright.documents import sandbox_worker

    monkeypatch.setitem(sandbox_worker.READERS, ".txt", lambda path: [{}["gone"]])
    (failure,) = read_content(tmp_path / "a.txt", "words").failures
    assert (failure.reason, failure.detail) == (CRASHED, "KeyError: 'gone'")
