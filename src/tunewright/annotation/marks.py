"""Readers of marks: files downloaded from the page, unsealed by the key, and comparison tables filled in by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from pydantic import ValidationError

from tunewright.annotation.plan import MarkingKey
from tunewright.errors import UserError, reading
from tunewright.evaluation.comparison_csv import WINNER, plain_cell, read_comparison
from tunewright.records import Answer, Mark, Question, Record
from tunewright.text.rows import file_text

FORMAT = "tunewright marks 1"
_MOST_FAULTS = 30  # that one message lists
UNDECIDED = ("tie", "both bad", "cannot tell")
Undecided = Literal["tie", "both bad", "cannot tell"]


class PageMark(Record):
    """A mark as the page stores it, with salted names only."""

    item: str
    choice: str
    at: str
    seconds: float


class PageMarks(Record):
    """The file that a marker downloads from the page."""

    format: Literal["tunewright marks 1"]
    page: str
    marker: str
    marks: tuple[PageMark, ...]


def _refused(path: Path, cause: str) -> UserError:
    return UserError(
        f"{path} holds no marks of this run", cause, "name a file downloaded from the page, or comparison.csv"
    )


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        UserError: the file is missing, or is not text.
    """
    with reading("marks", path, "check the path; in a spreadsheet, save as CSV UTF-8"):
        return file_text(path)


def page_marks(path: Path, text: str, key: MarkingKey, documents: dict[str, str]) -> list[Mark]:
    """Return the unsealed marks of a downloaded file.

    Raises:
        UserError: the file is no download, belongs to another page, or was edited.
    """
    try:
        download = PageMarks.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise _refused(path, f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}") from error
    if download.page != key.page:
        raise _refused(path, "its marks were made on another page than the one that marking.key.json belongs to")
    items = {item.item: item for item in key.items}
    marks = []
    for number, mark in enumerate(download.marks, 1):
        item = items.get(mark.item)
        sides = {item.left_name: item.left, item.right_name: item.right} if item else {}
        if item is None or mark.choice not in (*sides, *UNDECIDED):
            raise _refused(path, f"mark {number} names a question or an answer that is not in its page")
        marks.append(
            Mark(
                question=item.question,
                document=documents[item.question],
                marker=download.marker.strip(),
                choice=cast("Undecided", mark.choice) if mark.choice in UNDECIDED else "better",
                winner=sides.get(mark.choice),
                left=item.left,
                repeat=item.repeat,
                at=mark.at,
                seconds=mark.seconds,
            )
        )
    return marks


def _folded(text: str) -> str:
    """Return the name of an arm or a choice in one spelling, however it was typed."""
    return " ".join(text.replace("_", " ").split()).lower()


def _take(same: list[Question], row: Mapping[str, str], texts: Mapping[tuple[str, str], str]) -> Question:
    """Remove the row's question from those with its text and gold and return it: by its answers, else the first."""
    arms = {arm for _, arm in texts} & row.keys()

    def fits(question: Question) -> bool:
        return all(plain_cell(texts.get((question.id, arm), "")) == plain_cell(row[arm]) for arm in arms)

    question = next(filter(fits, same), same[0])
    same.remove(question)
    return question


def table_marks(
    path: Path, text: str, questions: Sequence[Question], answers: Sequence[Answer], arms: tuple[str, str]
) -> tuple[list[Mark], int]:
    """Return the marks of a comparison table, and how many rows name a winner other than the two arms.

    The marker is named after the file. Rows are matched by question and gold, and by the answers where these are not
    unique: a spreadsheet may have sorted the rows.

    Raises:
        UserError: a winner is not a column of the table, or a marked row is not of this exam; all such rows are listed.
    """
    waiting: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for question in questions:
        waiting[plain_cell(question.question), plain_cell(question.shown_gold)].append(question)
    texts = {(answer.question, answer.arm): answer.text for answer in answers}
    marks, num_others, faults = [], 0, []
    for number, row in read_comparison(text, str(path)):
        winner = _folded(row[WINNER])
        same = waiting.get((plain_cell(row["question"]), plain_cell(row["gold"])))
        if not winner:
            continue
        if not same:
            faults.append(f"row {number} has a question that is not in the exam: {row['question']:.60}")
            continue
        columns = {_folded(name): name for name in row if name not in ("question", "gold", WINNER)}
        if winner not in columns and winner not in UNDECIDED:
            choices = ", ".join([*columns.values(), *UNDECIDED])
            faults.append(f"row {number}: winner {winner[:60]!r} is unknown; write one of: {choices}")
            continue
        question = _take(same, row, texts)
        if winner in columns and columns[winner] not in arms:
            num_others += 1
            continue
        marks.append(
            Mark(
                question=question.id,
                document=question.document,
                marker=path.stem,
                choice="better" if winner in columns else cast("Undecided", winner),
                winner=columns.get(winner),
            )
        )
    if faults:
        more = f"\n  and {len(faults) - _MOST_FAULTS} more rows" if len(faults) > _MOST_FAULTS else ""
        raise _refused(path, "\n  ".join(faults[:_MOST_FAULTS]) + more)
    return marks, num_others


def latest_marks(marks: Iterable[Mark]) -> list[Mark]:
    """Return the last mark of each marker for each showing, in order of time.

    A marker who downloads twice hands in the same marks twice.
    """
    last: dict[tuple[str, str, bool], Mark] = {}
    for mark in sorted(marks, key=lambda mark: mark.at):
        last[mark.marker, mark.question, mark.repeat] = mark
    return sorted(last.values(), key=lambda mark: mark.at)


def is_download(text: str) -> bool:
    """Return whether a text is meant to be a download from the page rather than a table."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return text.lstrip().startswith("{")
