"""The rows of a user's file: a CSV table, JSON lines or a JSON array, in any common encoding."""

from __future__ import annotations

import codecs
import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tunewright import console
from tunewright.errors import cause_of, regular
from tunewright.text.encoding import damaged_byte, decode
from tunewright.text.tables import read_table


class Row(NamedTuple):
    """A row of a file: how it is numbered, its number, its JSON value or cells, and why it has none."""

    unit: Literal["row", "line", "item"]  # of a table as a spreadsheet counts, of JSON lines, of a JSON array
    number: int
    content: Any
    fault: str = ""


def file_text(path: Path) -> str:
    """Return a file's text; a warning names a file whose encoding is not sure.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not text; it says what it is.
    """
    decoded = decode(regular(path).read_bytes())
    if decoded.doubt and decoded.encoding != "UTF-8":  # damaged UTF-8 is named by its row
        console.warning(f"{path}: {decoded.doubt}")
    return decoded.text


_BLANK = b" \t\r\n\x0b\x0c" + codecs.BOM_UTF8
_PIECE_BYTES = 2**20
MOST_WHOLE_BYTES = 256 * 2**20  # of a file that is read as a whole: it takes up to ten times as much memory


def file_rows(path: Path) -> Iterable[Row]:
    """Return the rows of a file; whether it is a table is seen by its content, whatever its name ends with.

    An empty cell of a table is None. JSON lines in UTF-8 are read one by one, however many there are.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is neither text nor a table, or too large for anything but JSON lines; it says why.
    """
    if _is_json_lines(path):
        return _streamed(path)
    if (num_bytes := path.stat().st_size) > MOST_WHOLE_BYTES:
        raise ValueError(
            f"it has {num_bytes / 2**20:,.0f} MB, and more than {MOST_WHOLE_BYTES / 2**20:.0f} MB are read of JSON "
            "lines in UTF-8 alone: save it as those, or split it"
        )
    text = file_text(path).removeprefix("\ufeff").rstrip("\0")
    start = text.lstrip()[:1]
    if start and (start in "{[" or path.suffix.lower() not in (".csv", ".tsv", ".txt")):
        return _json_rows(text)
    try:
        _, rows = read_table(text)
    except csv.Error as error:
        raise ValueError(f"not a table: {error}") from error
    return (
        Row("row", number, {name.strip(): cell or None for name, cell in cells.items()}, fault)
        for number, cells, fault in rows
    )


def _is_json_lines(path: Path) -> bool:
    """Return whether a file is UTF-8 without damage whose first line is a JSON object, read in pieces."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    with regular(path).open("rb") as file:
        if not file.read(_PIECE_BYTES).lstrip(_BLANK).startswith(b"{"):
            return False
        file.seek(0)
        first = next(line for line in file if line.strip(_BLANK)).lstrip(_BLANK)
        if _decoded(first.decode("utf-8", "replace"))[1]:
            return False
        file.seek(0)
        while piece := file.read(_PIECE_BYTES):
            if b"\0" in piece or b"\x1b" in piece:  # of a wider encoding, or one of several alphabets
                return False
            try:
                decoder.decode(piece)
            except UnicodeDecodeError:
                return False
    return True


def _streamed(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            if line.strip():
                yield Row("line", number, *_decoded(line))


def _json_rows(text: str) -> Iterable[Row]:
    whole, fault = _decoded(text) if text.lstrip().startswith("[") else (None, "")
    if isinstance(whole, list):
        return [Row("item", number, item) for number, item in enumerate(whole, 1)]
    lines = text.split("\n")
    if _decoded(next((line for line in lines if line.strip()), "0"))[1]:  # these are no JSON lines
        if fault and len(lines) > 1:
            raise ValueError(f"a damaged JSON array: {fault}")
        whole, fault = _decoded(text)  # one object over several lines
        if not fault:
            return [Row("item", 1, whole)]
    return (Row("line", number, *_decoded(line)) for number, line in enumerate(lines, 1) if line.strip())


def _decoded(text: str) -> tuple[Any, str]:
    """Return the JSON value and no fault, or None and why it is not JSON."""
    if fault := damaged_byte(text):
        return None, fault
    try:
        return json.loads(text), ""
    except (ValueError, RecursionError) as error:
        return None, cause_of(error)


_MOST_CAUSES, _MOST_ROWS = 12, 30  # that one message lists


def folded(row: Row) -> Row:
    """Return a row with the names of its columns in lower case."""
    if not isinstance(row.content, dict):
        return row
    return row._replace(content={str(key).strip().lower(): value for key, value in row.content.items()})


def ranges(numbers: Iterable[int], to: str = "-") -> list[str]:
    """Return ascending numbers as "2-4" and "7", with ``to`` between the ends of a run."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(first) if first == last else f"{first}{to}{last}" for first, last in runs]


def listed_faults(faults: Sequence[tuple[Row, str]]) -> list[str]:
    """Return each cause of the faults with the rows that have it, in order."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, cause in faults:
        numbers[cause, row.unit].append(row.number)
    causes = [f"{cause}: {_listed_numbers(unit, at)}" for (cause, unit), at in list(numbers.items())[:_MOST_CAUSES]]
    left = sum(len(at) for at in list(numbers.values())[_MOST_CAUSES:])
    return [*causes, f"and {left} more with other causes"] if left else causes


def _listed_numbers(unit: str, numbers: Sequence[int]) -> str:
    """Return numbers in ascending order as "rows 2, 5 to 9"."""
    texts = ranges(numbers, " to ")
    more = f" and {len(texts) - _MOST_ROWS} more" if len(texts) > _MOST_ROWS else ""
    return f"{unit}{'s' if len(numbers) > 1 else ''} {', '.join(texts[:_MOST_ROWS])}{more}"
