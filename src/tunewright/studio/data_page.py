"""The data page: samples with their evidence, filters, edits by hand, and the coverage of the source."""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tunewright.curation.edits import ACTIONS, Decision, Edit, decisions, new_edit, read_edits
from tunewright.errors import UserError
from tunewright.html.render import mark_span, section_name
from tunewright.run_folder import RunFile, RunFolder
from tunewright.studio.runs import KnownRun, finished_stages, stamp
from tunewright.studio.sample_index import (
    REJECTED,
    SAMPLES,
    STATES,
    TRAIN,
    Entry,
    SampleIndex,
    build_index,
    line_at,
    record_of,
)
from tunewright.studio.web import Studio, page, redirect, text_of
from tunewright.text.prompts import split_prompt

PAGE = 20
_INDEX_S = 0.15  # that a page waits for the index of a large run; until then it shows the first samples
_MOST_DOCUMENTS = 200
_FILTERS = ("task", "state", "reason", "document")


def _index(studio: Studio, run: KnownRun, wait_s: float | None = None) -> SampleIndex | None:
    current = stamp(*(run.path / name for name in (SAMPLES, TRAIN, REJECTED)))
    index = studio.cache.get(("samples", run.key), current, lambda: build_index(run.path), wait_s)
    assert index is None or isinstance(index, SampleIndex)
    return index


def _edits(run: KnownRun) -> list[Edit]:
    return read_edits(RunFolder(run.path).journal_entries(RunFile.EDITS))


def _made(studio: Studio, run: KnownRun) -> dict[str, Decision]:
    current = stamp(run.path / RunFile.EDITS)
    made: dict[str, Decision] = studio.cache.get(("edits", run.key), current, lambda: decisions(_edits(run)))
    return made


def _record(studio: Studio, run: KnownRun, name: str, identifier: str | None) -> dict[str, Any]:
    return record_of(studio.cache, run, name, identifier)


def data(studio: Studio, request: Request, form: FormData) -> Response:
    """Show a page of samples; until the index of a large run is read, its first samples without a filter."""
    run = studio.run(request)
    chosen = {name: request.query_params.get(name, "")[:200] for name in _FILTERS}
    made = _made(studio, run)
    index = _index(studio, run, _INDEX_S)
    complete = index is not None
    index = index or SampleIndex(list(_first_entries(run)))
    entries = index.filtered(made, **chosen) if complete else index.entries
    num_pages = max(1, -(-len(entries) // PAGE))
    number = _page_number(request, num_pages)
    shown = [_sample(studio, run, entry, index, made) for entry in entries[(number - 1) * PAGE : number * PAGE]]
    return page(
        "data-page.html",
        f"Data of {run.name}",
        run=run,
        samples=shown,
        num=len(entries),
        complete=complete,
        tasks=index.tasks,
        reasons=index.reasons,
        documents=_named_documents(studio, run, index) if complete else [],
        states=STATES,
        chosen=chosen,
        query=urlencode(chosen),
        page_no=number,
        num_pages=num_pages,
        num_edits=len(made),
        pending=_pending(run),
        funnel=finished_stages(run).get("curate", {}).get("summary"),
        curated=index.kept is not None,
    )


def _page_number(request: Request, num_pages: int) -> int:
    text = request.query_params.get("page", "1")
    return min(num_pages, max(1, int(text))) if text.isdecimal() and len(text) < 9 else 1


def _first_entries(run: KnownRun) -> list[Entry]:
    """Return the first samples without an index."""
    name = SAMPLES if (run.path / SAMPLES).is_file() else TRAIN
    entries, start = [], 0
    path = run.path / name
    if not path.is_file() or path.is_symlink():
        return []
    with path.open("rb") as file:
        for line in file:
            record = line_at(run.path, name, start)
            if "id" in record:
                entries.append(Entry(str(record["id"]), name, start, str(record.get("task", "")), ""))
            start += len(line)
            if len(entries) == PAGE:
                break
    return entries


def _named_documents(studio: Studio, run: KnownRun, index: SampleIndex) -> list[tuple[str, str, int]]:
    """Return identifier, title and number of samples of the documents with the most samples."""
    most = index.documents.most_common(_MOST_DOCUMENTS)
    current = (stamp(run.path / RunFile.DOCUMENTS), len(index.entries))

    def titles() -> list[tuple[str, str, int]]:
        records = ((name, _record(studio, run, RunFile.DOCUMENTS, name), num) for name, num in most)
        return [
            (name, str(record.get("title") or record.get("source") or name)[:80], num) for name, record, num in records
        ]

    named: list[tuple[str, str, int]] = studio.cache.get(("titles", run.key), current, titles)
    return named


def _pending(run: KnownRun) -> bool:
    """Return whether there are edits that the training set does not have yet."""
    edits, curated = run.path / RunFile.EDITS, run.path / "stages" / "curate.json"
    if not edits.is_file():
        return False
    return not curated.is_file() or edits.stat().st_mtime > curated.stat().st_mtime


def _sample(
    studio: Studio, run: KnownRun, entry: Entry, index: SampleIndex, made: Mapping[str, Decision]
) -> dict[str, Any]:
    """Return a sample as its card shows it."""
    record = line_at(run.path, entry.file, entry.start) if entry.start >= 0 else {}
    messages = [m for m in record.get("messages", ()) if isinstance(m, dict)]
    user, answer = _last(messages, "user"), _last(messages, "assistant")
    context, question = split_prompt(user)
    decision = made.get(entry.id)
    reason, detail = index.rejections.get(entry.id, ("", ""))
    return {
        "id": entry.id,
        "task": entry.task,
        "kind": record.get("kind", ""),
        "context": context,
        "question": question,
        "answer": answer,
        "new_question": decision.question if decision and decision.question is not None else question,
        "new_answer": decision.answer if decision and decision.answer is not None else answer,
        "turns": [(m.get("role"), m.get("content")) for m in messages[:-2] if m.get("role") != "system"][:-1],
        "state": index.state(entry.id, made),
        "curated": index.curated(entry.id),
        "reason": reason,
        "detail": detail,
        "decision": decision,
        "source": _source(studio, run, record),
        "has_text": bool(messages),
    }


def _last(messages: Sequence[Mapping[str, Any]], role: str) -> str:
    return next((str(m.get("content", "")) for m in reversed(messages) if m.get("role") == role), "")


def _source(studio: Studio, run: KnownRun, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the passage of a sample with its evidence marked, and where it is in the document."""
    evidence = record.get("evidence")
    if not isinstance(evidence, dict):
        return None
    start, end, quote = int(evidence.get("start", 0)), int(evidence.get("end", 0)), str(evidence.get("quote", ""))
    chunk = _record(studio, run, RunFile.CHUNKS, record.get("chunk"))
    document = _record(studio, run, RunFile.DOCUMENTS, evidence.get("document"))
    inside = chunk and chunk.get("start", 0) <= start < chunk.get("end", 0)
    text = str(chunk["text"]) if inside else quote
    offset = int(chunk["start"]) if inside else start
    return {
        "marked": mark_span(text, start - offset, end - offset),
        "title": str(document.get("title", "")),
        "file": str(document.get("source", "")),
        "document": str(evidence.get("document", "")),
        "section": section_name(chunk.get("section") or ()) if chunk else "",
        "start": start,
        "end": end,
    }


def edit(studio: Studio, request: Request, form: FormData) -> Response:
    """Write an edit: reject, approve, reword or undo; the next run of the recipe applies it."""
    run, sample = studio.run(request), request.path_params["id"]
    index = _index(studio, run)
    known = index is not None and any(entry.id == sample for entry in index.entries)
    action = ACTIONS.get(text_of(form, "action"))
    if not known or action is None:
        raise HTTPException(404, "this run has no such sample")
    subject, question, answer = sample, None, None
    if action == "undo":
        made = _made(studio, run)
        if sample not in made:
            raise UserError("no edit of this sample is in force", "it may have been undone in another window")
        subject = made[sample].last.id
    if action == "edit":
        question, answer = _new_texts(form)
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    who = text_of(form, "who", 80) or getpass.getuser()
    new = new_edit(action, subject, who, now, question, answer, text_of(form, "note", 500))
    RunFolder(run.path).journal(RunFile.EDITS).append(new.model_dump(exclude_defaults=True))
    query = {name: text_of(form, f"filter-{name}", 200) for name in _FILTERS}
    number = text_of(form, "filter-page", 8) or "1"
    return redirect(f"/run/{run.key}/data?{urlencode({**query, 'page': number})}#s-{sample}")


def _new_texts(form: FormData) -> tuple[str | None, str | None]:
    """Return the texts of a form that differ from those that it showed."""
    texts = []
    for name in ("question", "answer"):
        new, old = text_of(form, name), text_of(form, f"old-{name}")
        if not new:
            raise UserError(f"the {name} is empty", "", "reject the sample instead")
        texts.append(None if new == old else new)
    if texts == [None, None]:
        raise UserError("nothing was changed", "question and answer are as before", "approve the sample instead")
    return texts[0], texts[1]


def coverage(studio: Studio, request: Request, form: FormData) -> Response:
    """Show which sentences of a document the samples rest on; each cell of the map opens its sentence."""
    from tunewright.text.sentences import sentences

    run = studio.run(request)
    index = _index(studio, run)
    assert index is not None
    documents = _named_documents(studio, run, index)
    identifier = request.query_params.get("document", "") or (documents[0][0] if documents else "")
    record = _record(studio, run, RunFile.DOCUMENTS, identifier)
    text = str(record.get("text", ""))
    spans = [
        (int(span["start"]), int(span["end"]), entry.id)
        for entry in index.filtered({}, document=identifier)
        for span in _spans(line_at(run.path, entry.file, entry.start))
        if span.get("document") == identifier
    ]
    rows = []
    for start, end in sentences(text):
        samples = list(dict.fromkeys(name for s, e, name in spans if s < end and start < e))
        rows.append({"text": text[start:end], "samples": samples, "shade": min(3, len(samples))})
    reached = sum(bool(row["samples"]) for row in rows)
    title = str(record.get("title") or record.get("source") or "")
    return page(
        "coverage.html", f"Coverage of {run.name}", run=run, documents=documents, document=identifier, name=title,
        rows=rows, reached=reached,
    )  # fmt: skip


def _spans(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    spans = [record.get("evidence"), *(record.get("further_evidence") or ())]
    return [span for span in spans if isinstance(span, dict) and "start" in span and "end" in span]


def history(studio: Studio, request: Request, form: FormData) -> Response:
    """Show all edits: who, when, what."""
    run = studio.run(request)
    return page("edits.html", f"Edits of {run.name}", run=run, edits=list(reversed(_edits(run)))[:500])
