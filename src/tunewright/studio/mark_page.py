"""The mark page: the blind page served to several markers, and their marks read together."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tunewright.errors import UserError
from tunewright.html.render import page_file
from tunewright.run_folder import RunFile
from tunewright.storage import write_atomic
from tunewright.studio.home import absolute, fault_of
from tunewright.studio.jobs import DESK, log_tail
from tunewright.studio.runs import KnownRun, json_of, regular_file
from tunewright.studio.sample_index import json_lines
from tunewright.studio.uploads import UPLOADS, harmless_name
from tunewright.studio.web import Studio, job_view, page, redirect, safe, text_of

_MOST_MARKS_BYTES = 4 << 20
_LOG_BYTES = 20_000


def _arms(run: KnownRun) -> list[str]:
    return list(dict.fromkeys(str(row.get("arm")) for row in json_lines(run.path / RunFile.ANSWERS)))


def _folder(studio: Studio, run: KnownRun) -> Path:
    return studio.folder / UPLOADS / f"marks-{run.key}"


def _files(studio: Studio, run: KnownRun) -> list[Path]:
    folder = _folder(studio, run)
    return sorted(p for p in folder.glob("*") if p.is_file() and not p.is_symlink()) if folder.is_dir() else []


def mark(studio: Studio, request: Request, form: FormData) -> Response:
    """Show the marking page's link, the files of marks so far, and what they come to."""
    run = studio.run(request)
    studio.jobs.move()
    jobs = [job for job in studio.jobs.of(run.key) if job.kind == "mark"]
    log = safe(log_tail(studio.jobs.log_path(jobs[0].id), _LOG_BYTES)) if jobs else ""
    return page(
        "mark-page.html",
        f"Marks of {run.name}",
        run=run,
        arms=_arms(run),
        has_page=regular_file(run, RunFile.MARKING_PAGE) is not None,
        pair=_pair(run),
        files=[path.name for path in _files(studio, run)],
        summary=json_of(run, RunFile.MARKING_PLAN),
        last=job_view(jobs[0]) if jobs else None,
        log=log,
        fault=fault_of(log),
    )


def _pair(run: KnownRun) -> list[str]:
    """Return the two arms that the page compares; of its key nothing else is read."""
    arms = json_of(run, RunFile.MARKING_KEY).get("arms", ())
    return [str(arm) for arm in arms] if isinstance(arms, list) else []


def make(studio: Studio, request: Request, form: FormData) -> Response:
    """Write the marking page for two arms."""
    run, arms = studio.run(request), _arms(studio.run(request))
    first, second = text_of(form, "first"), text_of(form, "second")
    if first not in arms or second not in arms or first == second:
        raise UserError("choose two different arms", f"the run has answers of {', '.join(arms)}", "")
    studio.jobs.add("mark", run.key, DESK, ["mark", absolute(run.path), "--arms", first, second])
    return redirect(f"/run/{run.key}/mark")


def marking_page(studio: Studio, request: Request, form: FormData) -> Response:
    """Return the blind page under its own policy: only tunewright's script has the right digest, and sends nothing."""
    run = studio.run(request)
    path = regular_file(run, RunFile.MARKING_PAGE)
    if path is None:
        raise HTTPException(404, "this run has no marking page yet")
    script, style = (
        base64.b64encode(hashlib.sha256(page_file(name).encode()).digest()).decode()
        for name in ("marking.js", "marking.css")
    )
    policy = (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; form-action 'none'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(path.read_bytes(), headers={"content-security-policy": policy})


def read(studio: Studio, request: Request, form: FormData) -> Response:
    """Store the markers' files, and read all that are there: the last file of a marker counts."""
    run = studio.run(request)
    if not (pair := _pair(run)):
        raise UserError("there is no marking page yet", "", "write it first")
    uploads = [item for item in form.getlist("files") if isinstance(item, UploadFile) and item.filename]
    for item in uploads:
        name = harmless_name(str(item.filename))
        if Path(name).suffix.lower() not in (".json", ".csv"):
            raise UserError(f"{name} holds no marks", "", "take the file that the marking page downloads")
        content = item.file.read(_MOST_MARKS_BYTES + 1)
        if len(content) > _MOST_MARKS_BYTES:
            raise UserError(f"{name} is too large", "a file of marks has at most 4 MiB", "")
        write_atomic(_folder(studio, run) / name, content)
    files = [absolute(path) for path in _files(studio, run)]
    if not files:
        raise UserError("no file was chosen", "", "choose the files that the markers downloaded")
    studio.jobs.add("mark", run.key, DESK, ["mark", absolute(run.path), "--arms", *pair, "--read", *files])
    return redirect(f"/run/{run.key}/mark")
