"""JSON lines are read one by one, and give what reading the whole file gives; what cannot be is refused by its size."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from tunewright.text import rows
from tunewright.text.rows import Row, file_rows

LINES = '{"a": 1}\r\n\n{"b": "\u00fc \u2028 x"}\n[1]\nno json\n  \n{"c": ' + "[" * 3000 + "\n" + '"text"'
FILES = {
    "lines": LINES.encode(),
    "with a mark": b"\xef\xbb\xbf" + LINES.encode(),
    "a mark inside": b'{"a": 1}\n\xef\xbb\xbf{"b": 2}\n',
    "blank lines first": b"\n  \n" + LINES.encode(),
    "a line end last": LINES.encode() + b"\n\n",
    "one object over lines": json.dumps({"a": [1, 2]}, indent=1).encode(),
    "an array": b'[{"a": 1}, {"b": 2}]',
    "an array over lines": b'[\n{"a": 1},\n{"b": 2}\n]',
    "in UTF-16": LINES.encode("utf-16"),
    "in windows-1252": '{"a": "Gr\u00fc\u00dfe aus der gr\u00f6\u00dften Stadt, sch\u00f6n war es"}\n{"b": "\u00fc"}'.encode(
        "windows-1252"
    ),
    "a damaged byte": b'{"a": "\xc3\xbc\xc3\xbc\xc3\xbc"}\n{"b": "\xff"}\n{"c": 1}',
    "zero bytes last": b'{"a": 1}\n{"b": 2}\n\0\0\0',
    "a damaged first line": b'{"a": 1\n{"b": 2}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_streamed_rows_are_those_of_the_whole_text(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(FILES[name])
    monkeypatch.setattr(rows, "_PIECE_BYTES", 11)  # pieces end inside of characters

    def read() -> list[Row] | str:
        try:
            return list(file_rows(path))
        except ValueError as error:
            return str(error)

    streamed = read()
    monkeypatch.setattr(rows, "_is_json_lines", lambda path: False)
    assert read() == streamed
    assert streamed


def test_the_memory_does_not_grow_with_the_number_of_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    monkeypatch.setattr(rows, "_PIECE_BYTES", 2**16)
    path.write_bytes(b'{"prompt": "Which ship lies in the dock?", "completion": "The brig."}\n' * 20_000)
    tracemalloc.start()
    try:
        num_rows = sum(row.content["completion"] == "The brig." for row in file_rows(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_rows == 20_000
    assert peak < 2**19 < path.stat().st_size


def test_what_has_to_be_read_whole_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.write(b'[{"a": 1}')
        file.truncate(300 * 2**20)  # sparse: takes no disk
    with pytest.raises(ValueError, match="it has 300 MB, and more than 256 MB are read of JSON lines in UTF-8 alone"):
        file_rows(path)
