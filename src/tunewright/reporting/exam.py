"""The exam of a run: its counts, ten of its questions and its seal; and a copy of it that people can edit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunewright import console
from tunewright.errors import RunFolderError, UserError, command
from tunewright.evaluation.seal import exam_faults
from tunewright.evaluation.stage import read_seal_state
from tunewright.records import Document, Question, RetentionItem
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import file_digest, write_atomic
from tunewright.text.tables import write_table

_NUM_SHOWN = 10
_WIDTH = 90  # characters of a question or an answer that are shown


def count_rows(questions: Sequence[Question]) -> list[list[str]]:
    """Return ring, questions, share that can be answered, with a passage, and documents; a row by ring and in all."""
    rings = sorted({question.ring for question in questions})
    groups: dict[str, list[Question]] = {ring: [q for q in questions if q.ring == ring] for ring in rings}
    groups["all"] = list(questions)
    return [
        [
            name,
            str(len(group)),
            f"{sum(q.answerable for q in group) / len(group):.0%}",
            str(sum(q.passage is not None for q in group)),
            str(len({q.document for q in group})),
        ]
        for name, group in groups.items()
        if group
    ]


def some(questions: Sequence[Question], number: int = _NUM_SHOWN) -> list[Question]:
    """Return up to so many questions, evenly spaced, so that all parts of the exam are seen."""
    if len(questions) <= number:
        return list(questions)
    return [questions[place * len(questions) // number] for place in range(number)]


def own_rows(questions: Sequence[Question], documents: Sequence[Document]) -> list[dict[str, str | bool]]:
    """Return the questions as rows of an own exam (``exam.file``), which reads them back as they are.

    ``evidence`` is the sentence that carries the answer; where it stands in the document is found again. A document
    is named by its source where that names it alone; a question that is its own cluster names none.
    """
    named: dict[str, str] = {name: d.id for d in documents for name in (d.title, d.source, d.id)}
    source = {d.id: d.source for d in documents if d.source and named[d.source] == d.id}
    return [
        {
            "question": question.question,
            "answer": question.gold,
            "answerable": question.answerable,
            "ring": question.ring,
            "document": "" if question.document == question.id else source.get(question.document, question.document),
            "passage": question.passage or "",
            "evidence": span.quote if (span := question.evidence) and span.document == question.document else "",
        }
        for question in questions
    ]


def _table(rows: Sequence[Mapping[str, str | bool]]) -> str:
    cells = [[v if isinstance(v, str) else str(v).lower() for v in row.values()] for row in rows]
    return write_table(list(rows[0]), cells)


def export_exam(run: RunFolder, path: Path) -> None:
    """Write the exam in the form that ``exam.file`` takes.

    Raises:
        UserError: the file exists, or ends in neither .csv nor .jsonl.
        RunFolderError: there is no exam yet.
    """
    questions = _questions(run)
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise UserError(f"{path} is neither .csv nor .jsonl", "", "tunewright exam DIR --export my-exam.csv")
    if path.exists():
        raise UserError(f"{path} exists", "it may hold your edits", "export to another name, or move it away")
    documents = run.records_if_any(RunFile.DOCUMENTS, Document)
    rows = own_rows(questions, documents)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(path, (_table(rows) if path.suffix.lower() == ".csv" else lines).encode())
    console.line(f"{len(rows)} questions written to {path}")
    named = json.dumps(str(path), ensure_ascii=False)  # TOML's strings are JSON's
    console.line(f"edit them, then name the file in the recipe, [exam] file = {named}: it is sealed by the next run")


def show_exam(run: RunFolder) -> None:
    """Print the exam: counts by ring, ten questions, and whether the seal holds.

    Raises:
        RunFolderError: there is no exam yet, or its seal is broken.
    """
    questions = _questions(run)
    columns = ("ring", "questions", "answerable", "with passage", "documents")
    console.table(str(run.path), columns, count_rows(questions))
    shown = some(questions)
    for number, question in enumerate(shown, 1):
        console.line(f"{number:2}. [{question.ring}] {_short(question.question)}")
        console.line(f"    {_short(question.gold)}", "dim")
    if len(shown) < len(questions):
        export = command("exam", run.path, "--export", "FILE.csv")
        console.line(f"    ({len(shown)} of {len(questions)}; all of them: {export})")
    if kept := run.records_if_any(RunFile.RETENTION, RetentionItem):
        console.table("the third ring: what the adapter must not forget", ("kind", "items", "topics"), kept_rows(kept))
    check_exam(run)


def kept_rows(items: Sequence[RetentionItem]) -> list[list[str]]:
    """Return kind, number and topics of the third ring, a row by kind."""
    groups: dict[str, Counter[str]] = {}
    for item in items:
        groups.setdefault(item.kind, Counter())[item.topic] += 1
    return [
        [kind, str(topics.total()), ", ".join(f"{topic.replace('_', ' ')} {num}" for topic, num in topics.items())]
        for kind, topics in groups.items()
    ]


def check_exam(run: RunFolder) -> None:
    """Print that the exam is the sealed one.

    Raises:
        RunFolderError: it is not, or was never sealed.
    """
    if faults := exam_faults(read_seal_state(run)) or (
        [] if run.file(RunFile.SEAL).is_file() else ["there is no seal.json"]
    ):
        raise RunFolderError(
            f"the exam of {run.path} is not the sealed one",
            "; ".join(faults),
            "undo the change, or run the recipe again, which writes and seals the exam anew; "
            "to change the exam, edit an export: tunewright exam DIR --export my-exam.csv",
        )
    console.line(f"the seal holds: exam.jsonl has the sealed SHA-256 {file_digest(run.file('exam.jsonl'))}")
    if "kept" in run.read_json(RunFile.SEAL):
        console.line(f"                kept.jsonl has the sealed SHA-256 {file_digest(run.file('kept.jsonl'))}")


def _questions(run: RunFolder) -> list[Question]:
    questions = run.records_if_any(RunFile.EXAM, Question)
    if not questions:
        raise RunFolderError(
            f"{run.path} has no exam yet",
            "exam.jsonl is missing or empty",
            f"write it: {command('run', 'RECIPE', '--dir', run.path, '--until', 'exam')}",
        )
    return questions


def _short(text: str) -> str:
    told = " ".join(text.split())
    return told if len(told) <= _WIDTH else told[: _WIDTH - 1] + "…"
