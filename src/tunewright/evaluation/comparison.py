"""The comparison table for hand marking: a CSV that spreadsheets open safely and that reads back unchanged."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from tunewright.errors import UserError
from tunewright.records import Answer, Question
from tunewright.spreadsheet import escape, unescape

WINNER = "winner"

_BOM = "\ufeff"


def comparison_csv(questions: Sequence[Question], answers: Sequence[Answer], arms: Sequence[str]) -> str:
    """Return the table: question, gold, one column per arm, and an empty ``winner`` to fill in by hand.

    It starts with a byte order mark, without which spreadsheets read UTF-8 as the machine's old code page. Every
    cell is quoted. An arm without an answer to a question has an empty cell.
    """
    told = {(answer.question, answer.arm): answer.text for answer in answers}
    table = io.StringIO()
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerow(["question", "gold", *arms, WINNER])
    for question in questions:
        texts = [question.question, question.gold, *(told.get((question.id, arm), "") for arm in arms)]
        writer.writerow([*map(escape, texts), ""])
    return _BOM + table.getvalue()


def read_comparison(text: str) -> list[Mapping[str, str]]:
    """Return the rows of a comparison table, column name to original text, marks in ``winner``.

    Spreadsheets of some countries save with semicolons or tabs; the header tells.

    Raises:
        UserError: the columns question, gold and winner are not all there.
    """
    text = text.removeprefix(_BOM)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
    missing = {"question", "gold", WINNER} - set(reader.fieldnames or ())
    if missing:
        raise UserError(
            "this is not a comparison table",
            f"missing column(s): {', '.join(sorted(missing))}",
            "start from the comparison.csv of a run and fill in only its winner column",
        )
    return [{name: unescape(cell) for name, cell in row.items() if name is not None} for row in reader]
