"""The body of the command exam: it prints the exam, checks its seal, and exports it for editing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunewright import console
from tunewright.commands.json_documents import ExamDocument, RingCount
from tunewright.errors import RunFolderError, UserError, command
from tunewright.evaluation.seal import SEALED, exam_faults
from tunewright.evaluation.stage import read_seal_state
from tunewright.pipeline import warn_of_changes
from tunewright.records import Document, Question, RetentionItem
from tunewright.reporting.exam import ExamCell, by_ring, count_rows, evenly_spaced, exam_file_rows, retention_rows
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import file_digest, write_atomic
from tunewright.text.tables import write_table

_WIDTH = 90  # characters of a question or an answer that are printed


def export_exam(run: RunFolder, path: Path) -> None:
    """Write the exam in the form that ``exam.file`` takes.

    Raises:
        UserError: the file exists, or ends in neither .csv nor .jsonl.
        RunFolderError: there is no exam yet.
    """
    _require_unchanged(run)
    questions = _read_questions(run)
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise UserError(f"{path} is neither .csv nor .jsonl", "", "tunewright exam DIR --export my-exam.csv")
    if path.exists():
        raise UserError(f"{path} exists", "it may hold your edits", "export to another name, or move it away")
    rows = exam_file_rows(questions, run.records_if_any(RunFile.DOCUMENTS, Document))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(path, (_table(rows) if path.suffix.lower() == ".csv" else lines).encode())
    console.line(f"{len(rows)} questions written to {path}")
    quoted = json.dumps(str(path), ensure_ascii=False)  # TOML's strings are JSON's
    console.line(f"edit them, then name the file in the recipe, [exam] file = {quoted}: the next run seals it")


def _table(rows: Sequence[Mapping[str, ExamCell]]) -> str:
    return write_table(list(rows[0]), [list(map(_cell, row.values())) for row in rows])


def _cell(value: ExamCell) -> str:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return value if isinstance(value, str) else str(value).lower()


def show_exam(run: RunFolder) -> None:
    """Print the exam: counts by ring, ten questions, the retention items, and the seal.

    Raises:
        RunFolderError: there is no exam yet, or its seal is broken.
    """
    _require_unchanged(run)
    questions = _read_questions(run)
    columns = ("ring", "questions", "answerable", "with passage", "documents")
    console.table(str(run.path), columns, count_rows(questions))
    shown = evenly_spaced(questions)
    for number, question in enumerate(shown, 1):
        console.line(f"{number:2}. [{question.ring}] {_short(question.question)}")
        console.line(f"    {_short(question.shown_gold)}", "dim")
    if len(shown) < len(questions):
        export = command("exam", run.path, "--export", "FILE.csv")
        console.line(f"    ({len(shown)} of {len(questions)}; all of them: {export})")
    if items := run.records_if_any(RunFile.RETENTION, RetentionItem):
        title = "the retention suite: what the adapter must not forget"
        console.table(title, ("kind", "items", "topics"), retention_rows(items))
    check_exam(run)


def exam_document(run: RunFolder) -> ExamDocument:
    """Return the exam for programs.

    Raises:
        RunFolderError: there is no exam yet, or its seal is broken.
    """
    _require_unchanged(run)
    questions = _read_questions(run)
    _require_seal(run)
    is_sealed = "kept" in run.read_json(RunFile.SEAL)
    return ExamDocument(
        folder=str(run.path),
        digest=file_digest(run.file(RunFile.EXAM)),
        retention_digest=file_digest(run.file(RunFile.RETENTION)) if is_sealed else None,
        rings=tuple(
            RingCount(
                ring=ring,
                questions=len(group),
                answerable=sum(question.answerable for question in group),
                with_passage=sum(question.passage is not None for question in group),
                documents=len({question.document for question in group}),
            )
            for ring, group in by_ring(questions).items()
        ),
        questions=tuple(questions),
        num_retention_items=len(run.records_if_any(RunFile.RETENTION, RetentionItem)),
    )


def check_exam(run: RunFolder) -> None:
    """Print that the exam is the sealed one.

    Raises:
        RunFolderError: it is not, or was never sealed.
    """
    _require_seal(run)
    exam, retention = run.file(RunFile.EXAM), run.file(RunFile.RETENTION)
    console.line(f"the seal holds: {exam.name} has the sealed SHA-256 {file_digest(exam)}")
    if "kept" in run.read_json(RunFile.SEAL):
        console.line(f"                {retention.name} has the sealed SHA-256 {file_digest(retention)}")


def _require_seal(run: RunFolder) -> None:
    if faults := exam_faults(read_seal_state(run)) or (
        [] if run.file(RunFile.SEAL).is_file() else ["there is no seal.json"]
    ):
        raise RunFolderError(
            f"the exam of {run.path} is not the sealed one",
            "; ".join(faults),
            "undo the change, or run the recipe again, which writes and seals a new exam; "
            "to change the exam, edit an export: tunewright exam DIR --export my-exam.csv",
        )


def _require_unchanged(run: RunFolder) -> None:
    """Print what of the run is not as it was written; refuse a changed exam before it is read."""
    sealed = (*SEALED.values(), RunFile.SEAL)
    changes = [change for change in warn_of_changes(run) if change.file in sealed]
    if changes and run.file(RunFile.EXAM).is_file():
        check_exam(run)
        raise RunFolderError(
            f"the exam of {run.path} is not as it was written", "; ".join(map(str, changes)), run.again()
        )


def _read_questions(run: RunFolder) -> list[Question]:
    questions = run.records_if_any(RunFile.EXAM, Question)
    if not questions:
        raise RunFolderError(
            f"{run.path} has no exam yet",
            "exam.jsonl is missing or empty",
            f"write it: {command('run', 'RECIPE', '--dir', run.path, '--until', 'exam')}",
        )
    return questions


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
