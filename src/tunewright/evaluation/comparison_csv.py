"""The comparison table for marking by hand: a CSV that spreadsheets open safely and that reads back unchanged."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Literal

from tunewright.errors import UserError
from tunewright.records import Answer, Question
from tunewright.text.encoding import decode_text
from tunewright.text.tables import read_table, write_table

WINNER = "winner"
_MOST_FAULTS = 30  # that one message lists
_START = "start from the comparison.csv of a run and fill in only its winner column"


def comparison_csv(questions: Sequence[Question], answers: Sequence[Answer], arms: Sequence[str]) -> str:
    """Return the table: question, gold, one column per arm, and an empty ``winner`` to fill in by hand.

    An arm without an answer to a question has an empty cell.
    """
    texts = {(answer.question, answer.arm): answer.text for answer in answers}
    rows = [[q.question, q.shown_gold, *(texts.get((q.id, arm), "") for arm in arms), ""] for q in questions]
    return write_table(["question", "gold", *arms, WINNER], rows)


def marks_in(existing: bytes, table: str) -> Literal["none", "on these answers", "on other answers"]:
    """Return whether a person has marked the existing table, and whether its answers are those of the new one.

    A table that cannot be read may hold marks: it counts as marked, on other answers.
    """
    try:
        rows = read_comparison(decode_text(existing).replace("\r\n", "\n").replace("\r", "\n"))
    except (UserError, ValueError):
        return "on other answers"
    if not any(row[WINNER].strip() for _, row in rows):
        return "none"
    same = [_unmarked(row) for _, row in rows] == [_unmarked(row) for _, row in read_comparison(table)]
    return "on these answers" if same else "on other answers"


def _unmarked(row: Mapping[str, str]) -> dict[str, str]:
    return {name: plain_cell(cell) for name, cell in row.items() if name != WINNER}


def plain_cell(text: str) -> str:
    """Return the text as every spreadsheet leaves it: some rewrite line ends, some strip blanks."""
    return "\n".join(text.splitlines()).strip()


def read_comparison(text: str, name: str = "this") -> list[tuple[int, Mapping[str, str]]]:
    """Return the rows of a comparison table with their numbers, column name to original text, marks in ``winner``.

    Args:
        text: the table.
        name: of its file, for messages.

    Raises:
        UserError: a column of question, gold and winner is missing, or the text or a row of it is no table.
    """
    try:
        columns, rows = read_table(text)
    except csv.Error as error:
        raise UserError(f"{name} is not a comparison table", str(error), _START) from error
    missing = {"question", "gold", WINNER} - set(columns)
    if missing:
        raise UserError(
            f"{name} is not a comparison table",
            f"missing column(s): {', '.join(sorted(missing))}",
            _START,
        )
    faults = [f"row {row.number}: {row.fault}" for row in rows if row.fault]
    if faults:
        raise UserError(f"{name} is not a comparison table", "\n  ".join(faults[:_MOST_FAULTS]), _START)
    return [(row.number, row.cells) for row in rows]
