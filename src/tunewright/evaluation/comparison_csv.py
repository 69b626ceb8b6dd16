"""The comparison table for hand marking: a CSV that spreadsheets open safely and that reads back unchanged."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunewright import console
from tunewright.errors import UserError
from tunewright.records import Answer, Question
from tunewright.run_folder import RunFile, RunFolder
from tunewright.text.tables import read_table, write_table

TABLE, WINNER = RunFile.COMPARISON, "winner"
_START = "start from the comparison.csv of a run and fill in only its winner column"


def comparison_csv(questions: Sequence[Question], answers: Sequence[Answer], arms: Sequence[str]) -> str:
    """Return the table: question, gold, one column per arm, and an empty ``winner`` to fill in by hand.

    An arm without an answer to a question has an empty cell.
    """
    told = {(answer.question, answer.arm): answer.text for answer in answers}
    rows = [[q.question, q.gold, *(told.get((q.id, arm), "") for arm in arms), ""] for q in questions]
    return write_table(["question", "gold", *arms, WINNER], rows)


def write_comparison(run: RunFolder, table: str) -> None:
    """Write comparison.csv; marks that somebody typed into the one that stands are never lost.

    Where the answers are the same, the marked table stays; else it is put aside, and where is told.
    """
    path = run.file(TABLE)
    if path.is_file():
        marked = _rows(path)
        if marked is None or any(row[WINNER].strip() for row in marked):
            if marked is not None and [_unmarked(row) for row in marked] == [
                _unmarked(row) for row in read_comparison(table)
            ]:
                return
            names = (path.with_name(f"comparison.marked-{number}.csv") for number in itertools.count(1))
            aside = next(name for name in names if not name.exists())
            path.rename(aside)
            console.warning(f"{TABLE} holds marks on other answers; it is kept as {aside.name}")
    run.write(TABLE, table)


def _rows(path: Path) -> list[Mapping[str, str]] | None:
    """Return a table's rows; None where it cannot be read, so that nobody can say that it holds no marks."""
    try:
        return read_comparison(path.read_text(encoding="utf-8"))
    except (UserError, UnicodeDecodeError):
        return None


def _unmarked(row: Mapping[str, str]) -> dict[str, str]:
    return {name: plain_cell(cell) for name, cell in row.items() if name != WINNER}


def plain_cell(text: str) -> str:
    """Return the text as every spreadsheet leaves it: some rewrite line ends, some drop the blanks around."""
    return "\n".join(text.splitlines()).strip()


def read_comparison(text: str) -> list[Mapping[str, str]]:
    """Return the rows of a comparison table, column name to original text, marks in ``winner``.

    Raises:
        UserError: the columns question, gold and winner are not all there, or it is no table.
    """
    try:
        columns, rows = read_table(text)
    except csv.Error as error:
        raise UserError("this is not a comparison table", str(error), _START) from error
    missing = {"question", "gold", WINNER} - set(columns)
    if missing:
        raise UserError(
            "this is not a comparison table",
            f"missing column(s): {', '.join(sorted(missing))}",
            _START,
        )
    return [row for _, row in rows]
