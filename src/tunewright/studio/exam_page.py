"""The exam page: before any training data exists, edited questions become the recipe's own exam; then the seal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tunewright.errors import UserError
from tunewright.records import Document, Question
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import write_atomic
from tunewright.studio import recipe_form
from tunewright.studio.jobs import devices
from tunewright.studio.runs import KnownRun, json_of, regular_file, stamp
from tunewright.studio.sample_index import json_lines
from tunewright.studio.web import Studio, page, redirect, text_of
from tunewright.text.choices import option_text

_PAGE = 20
_AFTER = (RunFile.SAMPLES, RunFile.TRAIN, RunFile.ADAPTER, RunFile.ANSWERS)  # the first of them ends the editing


def _recipe_of(studio: Studio, run: KnownRun) -> Path | None:
    """Return the recipe beside a run that the studio started; other runs keep theirs elsewhere."""
    path = studio.folder / f"{run.path.name}.toml"
    is_beside = run.path.parent == studio.folder / "runs"
    return path if is_beside and path.is_file() and not path.is_symlink() else None


def _draft_path(studio: Studio, run: KnownRun) -> Path:
    return studio.folder / f"{run.path.name}.exam.jsonl"


def _draft(studio: Studio, run: KnownRun) -> list[dict[str, Any]] | None:
    """Return the rows of the edited exam; None where nobody edited it."""
    path = _draft_path(studio, run)
    return list(json_lines(path)) if path.is_file() and not path.is_symlink() else None


def _why_closed(studio: Studio, run: KnownRun) -> str:
    """Return why the exam can no longer be edited; "" while it can."""
    if made := next((name for name in _AFTER if (run.path / name).exists()), None):
        return f"{made} exists: the exam was sealed before it was made, and stays as it is"
    if _recipe_of(studio, run) is None:
        return "its recipe is not beside this studio's runs: edit an export, and name it in exam.file"
    if any(job.is_open for job in studio.jobs.of(run.key)):
        return "the run is at work"
    return ""


def _sealed_rows(run: KnownRun) -> list[dict[str, Any]]:
    from tunewright.reporting.exam import exam_file_rows

    opened = RunFolder(run.path)
    questions = opened.records_if_any(RunFile.EXAM, Question)
    return [dict(row) for row in exam_file_rows(questions, opened.records_if_any(RunFile.DOCUMENTS, Document))]


def exam(studio: Studio, request: Request, form: FormData) -> Response:
    """Show the questions with passage and gold: as forms before the training data, read-only with the seal after."""
    run = studio.run(request)
    current = stamp(run.path / RunFile.EXAM, run.path / RunFile.DOCUMENTS)
    sealed = studio.cache.get(("exam rows", run.key), current, lambda: _sealed_rows(run))
    draft = _draft(studio, run)
    closed = _why_closed(studio, run)
    is_pending = draft is not None and not closed and not _is_sealed(draft, sealed)
    rows = draft if is_pending and draft is not None else sealed
    text = request.query_params.get("page", "1")
    num_pages = max(1, -(-len(rows) // _PAGE))
    number = min(num_pages, max(1, int(text))) if text.isdecimal() and len(text) < 9 else 1
    shown = list(enumerate(rows))[(number - 1) * _PAGE : number * _PAGE]
    return page(
        "exam-page.html",
        f"Exam of {run.name}",
        run=run,
        rows=shown,
        num=len(rows),
        closed=closed,
        is_pending=is_pending,
        seal=json_of(run, RunFile.SEAL),
        page_no=number,
        num_pages=num_pages,
        lanes=devices(),
        has_exam=regular_file(run, RunFile.EXAM) is not None,
    )


def _is_sealed(draft: list[dict[str, Any]], sealed: list[dict[str, Any]]) -> bool:
    """Return whether the edited exam is the one that was sealed last."""
    return [(r.get("question"), r.get("answer")) for r in draft] == [(r["question"], r["answer"]) for r in sealed]


def edit(studio: Studio, request: Request, form: FormData) -> Response:
    """Reword or drop a question: the exam so edited is written beside the recipe, which then names it."""
    run, number = studio.run(request), int(request.path_params["number"])
    if closed := _why_closed(studio, run):
        raise UserError("this exam can no longer be edited", closed, "")
    rows = _draft(studio, run) or _sealed_rows(run)
    old = text_of(form, "old")
    if number >= len(rows) or str(rows[number]["question"]).strip() != old:
        raise HTTPException(409, "the exam has changed in the meantime: open the page again")
    if text_of(form, "action") == "drop":
        if len(rows) == 1:
            raise UserError("an exam needs a question", "this is the last one", "")
        del rows[number]
    else:
        question, answer = text_of(form, "question"), text_of(form, "answer")
        if not question or not answer:
            raise UserError("a question needs a text and a right answer", "", "drop it instead")
        changed = {"question": question} | ({} if isinstance(rows[number]["answer"], list) else {"answer": answer})
        options = rows[number].get("options") or []
        names = [*options, *(option_text(options, index) for index in range(len(options)))]
        if "answer" in changed and options and answer not in names:
            raise UserError("the right answer is none of the options", answer, "write one of the options")
        evidence = {} if answer == str(rows[number]["answer"]) else {"evidence": ""}  # it showed the old answer
        rows[number] = {**rows[number], **changed, **evidence}
    _write(studio, run, rows)
    return redirect(f"/run/{run.key}/exam?page={number // _PAGE + 1}")


def _write(studio: Studio, run: KnownRun, rows: list[dict[str, Any]]) -> None:
    recipe = _recipe_of(studio, run)
    assert recipe is not None
    path = _draft_path(studio, run)
    text = recipe.read_text(encoding="utf-8")
    current = recipe_form.checked(text, studio.folder)
    if current.holds_out_data:
        cause = "its questions are chats that are held out of the training data"
        raise UserError("this exam cannot be edited", cause, "edit the chats, or bring an exam of your own")
    edited = recipe_form.with_values(text, {"exam.file": path.name}, studio.folder)
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    if edited != text:
        write_atomic(recipe, edited.encode())
