"""The page of a run, its stream of events, and its files as attachments."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from tunewright.run_folder import RunFile
from tunewright.studio.home import absolute
from tunewright.studio.jobs import Job, devices, log_tail
from tunewright.studio.live import live_stamp, live_view, metrics_of
from tunewright.studio.runs import KnownRun, lines_from, regular_file
from tunewright.studio.web import Studio, fragment, job_view, page, redirect, safe

_LOG_BYTES = 30_000
_INTERVAL_S = 1.0
_QUIET_S = 15.0
_PIPELINE = ("run", "preview")
# The files that a page offers, by their names; no other name reaches the file system.
FILES = (
    RunFile.REPORT, RunFile.DATA_REPORT, RunFile.COMPARISON, RunFile.RECIPE, RunFile.VERDICT, RunFile.EXAM,
    RunFile.TRAIN, RunFile.SAMPLES, RunFile.REJECTED, RunFile.EDITS, RunFile.ANSWERS, RunFile.SCORES, RunFile.METRICS,
    RunFile.PREVIEW, RunFile.MARKING_PLAN, RunFile.SEAL,
)  # fmt: skip


def latest_job(studio: Studio, run: KnownRun) -> Job | None:
    """Return the job that a run's page is about: the one that runs or waits, else the last of its stages."""
    own = studio.jobs.of(run.key)
    active = [job for job in own if job.state != "ended" and job.kind in _PIPELINE]
    return next(iter(active or [job for job in own if job.kind in _PIPELINE]), None)


def run_page(studio: Studio, request: Request, form: FormData) -> Response:
    """Show a run: its stages, curves and log; the page is complete without its script."""
    studio.jobs.move()
    run = studio.run(request)
    job = latest_job(studio, run)
    view = live_view(run, job, studio.jobs, metrics_of(run))
    log = safe(log_tail(studio.jobs.log_path(job.id), _LOG_BYTES)) if job else ""
    files = [name for name in FILES if regular_file(run, name)]
    others = [job_view(other) for other in studio.jobs.of(run.key)]
    at = _event_id(live_stamp(run, job, studio.jobs), job, _size(studio, job))
    return page(
        "run.html", run.name, **view, log=log, files=files, others=others, lanes=devices(), at=at, stages_json=""
    )


def _size(studio: Studio, job: Job | None) -> int:
    try:
        return studio.jobs.log_path(job.id).stat().st_size if job else 0
    except OSError:
        return 0


def _event_id(current: object, job: Job | None, log_to: int) -> str:
    return f"{hashlib.sha256(repr(current).encode()).hexdigest()[:16]}-{job.id if job else 0}-{log_to}"


async def events(request: Request) -> Response:
    """Stream the changes of a run as server-sent events; a browser that comes back names the last one it has."""
    studio: Studio = request.app.state.studio
    run = await run_in_threadpool(studio.run, request)
    last = request.headers.get("last-event-id") or request.query_params.get("from", "")
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_stream(studio, run, last), media_type="text/event-stream", headers=headers)


async def _stream(studio: Studio, run: KnownRun, last: str) -> AsyncIterator[str]:
    """Yield an event for each change of the view, and one for each piece of the log.

    An event's id is all that is needed to go on: what the view was made from, the job, and how far its log was sent.
    """
    seen, job_id, log_to = _parsed(last)
    metrics = metrics_of(run)
    quiet = 0.0
    yield "retry: 2000\n\n"
    while True:
        job = await run_in_threadpool(latest_job, studio, run)
        if job is not None and job.state == "running" and not job.is_alive:
            await run_in_threadpool(studio.jobs.move)
            continue
        if job is not None and job.id != job_id:
            job_id, log_to = job.id, 0
        lines, log_to = await run_in_threadpool(
            lines_from, studio.jobs.log_path(job.id) if job else run.path / "no log", log_to, _LOG_BYTES
        )
        current = live_stamp(run, job, studio.jobs)
        event_id = _event_id(current, job, log_to)
        if lines:
            text = safe(b"\n".join(lines).decode("utf-8", "replace")) + "\n"
            yield _event("log", {"job": job_id, "text": text}, f"{seen}-{job_id}-{log_to}")
        if event_id.partition("-")[0] != seen:
            seen = event_id.partition("-")[0]
            view = await run_in_threadpool(live_view, run, job, studio.jobs, metrics)
            view["lanes"] = devices()
            yield _event("live", {"html": fragment("live.html", view)}, event_id)
            quiet = 0.0
        elif quiet >= _QUIET_S:
            yield ": still here\n\n"
            quiet = 0.0
        await asyncio.sleep(_INTERVAL_S)
        quiet += _INTERVAL_S


def _parsed(last: str) -> tuple[str, int, int]:
    parts = last.split("-")
    if len(parts) == 3 and all(part.isdecimal() and len(part) < 16 for part in parts[1:]) and len(last) < 80:
        return parts[0], int(parts[1]), int(parts[2])
    return "", 0, 0


def _event(name: str, content: object, event_id: str) -> str:
    return f"event: {name}\nid: {event_id}\ndata: {json.dumps(content)}\n\n"


def go_on(studio: Studio, request: Request, form: FormData) -> Response:
    """Run the recipe of a run again, the one it was started with: only what is not fresh is done."""
    run = studio.run(request)
    own = studio.jobs.of(run.key, 200)
    if any(job.state != "ended" and job.kind in _PIPELINE for job in own):
        raise HTTPException(409, "this run already runs or waits")
    started = next((job for job in own if job.kind == "run" and (studio.folder / job.arguments[1]).is_file()), None)
    if started is None and regular_file(run, RunFile.RECIPE) is None:
        raise HTTPException(409, "this run has no recipe of its own to go on with")
    recipe = started.arguments[1] if started else absolute(run.path / RunFile.RECIPE)
    lane = form.get("lane")
    lane = lane if isinstance(lane, str) and lane in devices() else devices()[0]
    until = ["--until", str(form["until"])] if form.get("until") in ("exam", "curate") else []
    studio.jobs.add("run", run.key, lane, ["run", recipe, "--dir", absolute(run.path), *until])
    return redirect(f"/run/{run.key}")


def run_file(studio: Studio, request: Request, form: FormData) -> Response:
    """Return a file of a run as an attachment, by a name of the table."""
    run, name = studio.run(request), request.path_params["name"]
    path = regular_file(run, name) if name in FILES else None
    if path is None:
        raise HTTPException(404, "this run has no such file")
    return FileResponse(path, media_type="application/octet-stream", filename=name)
