"""The home page: the runs of the folder with their results, the chosen ones compared; and the list of jobs."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tunewright.studio.jobs import DESK, Job, log_tail
from tunewright.studio.web import Studio, job_view, page, redirect, safe

_SHOWN_LOG_BYTES = 60_000
ADDRESS = re.compile(r"^https?://\S+/v1$", re.MULTILINE)  # what ``serve`` prints once it listens


def home(studio: Studio, request: Request, form: FormData) -> Response:
    """Show all runs, those that changed last first; runs with the same exam can be compared."""
    studio.jobs.move()
    latest: dict[str, Job] = {}
    for job in studio.jobs.latest(500):
        if job.kind in ("run", "preview") or job.state != "ended":
            latest.setdefault(job.subject, job)
    rows = [studio.summaries.of(run, latest.get(run.key)) for run in studio.runs().values()]
    rows.sort(key=lambda row: -row.changed)
    waiting = [job_view(job) for job in studio.jobs.open_jobs()]
    return page("home.html", "Runs", rows=rows, waiting=waiting, folder=studio.folder, tones=TONES)


# The color of a verdict, as in the report.
TONES = {
    "SHIP": "good", "SHIP WITH RAG": "good", "USE RAG": "other", "PROMPT INSTEAD": "other", "NOT PROVEN": "open",
    "WORSE": "bad", "INVALID": "bad",
}  # fmt: skip


def compare(studio: Studio, request: Request, form: FormData) -> Response:
    """Start the command compare for the chosen runs."""
    known = studio.runs()
    chosen = [known[key] for key in form.getlist("run") if isinstance(key, str) and key in known]
    if len(chosen) < 2:
        raise HTTPException(400, "choose at least two finished runs to compare")
    arguments = ["compare", *(str(run.path) for run in chosen)]
    return redirect(f"/jobs/{studio.jobs.add('compare', '', DESK, arguments)}")


def jobs(studio: Studio, request: Request, form: FormData) -> Response:
    """Show the latest jobs."""
    studio.jobs.move()
    return page("jobs.html", "Jobs", rows=[job_view(job) for job in studio.jobs.latest()])


def _job(studio: Studio, request: Request) -> Job:
    job = studio.jobs.get(request.path_params["job"])
    if job is None:
        raise HTTPException(404, "there is no job of this number")
    return job


def job(studio: Studio, request: Request, form: FormData) -> Response:
    """Show a job: its command, its state or how it ended, and what it printed."""
    studio.jobs.move()
    own = _job(studio, request)
    text = safe(log_tail(studio.jobs.log_path(own.id), _SHOWN_LOG_BYTES))
    known = studio.runs().get(own.subject)
    return page("job.html", f"Job {own.id}", **job_view(own), log=text, of=known, fault=fault_of(text))


def job_state(studio: Studio, request: Request, form: FormData) -> Response:
    """Return the state of a job and what it printed, for the script of a page that waits for it."""
    studio.jobs.move()
    own = _job(studio, request)
    log = safe(log_tail(studio.jobs.log_path(own.id), _SHOWN_LOG_BYTES))
    return JSONResponse({"state": own.state, "log": log, "listens": bool(ADDRESS.search(log))})


def fault_of(log: str) -> dict[str, str] | None:
    """Return the last error that a command printed: headline, cause and hint; None where it printed none."""
    start = log.rfind("\nerror: ") + 1 if "\nerror: " in log else 0
    if not log.startswith("error: ", start):
        return None
    lines = log[start:].splitlines()
    hints = [line.strip().removeprefix("hint: ") for line in lines if line.strip().startswith("hint: ")]
    causes = [line.strip() for line in lines[1:] if line.startswith("  ") and not line.strip().startswith("hint: ")]
    return {"headline": lines[0].removeprefix("error: "), "cause": " ".join(causes), "hint": " ".join(hints)}


def stop(studio: Studio, request: Request, form: FormData) -> Response:
    """Stop a job as Ctrl-C does: a training writes a checkpoint; the same command goes on from there."""
    own = _job(studio, request)
    studio.jobs.stop(own.id)
    return redirect(f"/run/{own.subject}" if own.subject in studio.runs() else f"/jobs/{own.id}")


def resume(studio: Studio, request: Request, form: FormData) -> Response:
    """Put the command of an ended job into its queue again: what is finished is not done again."""
    own = _job(studio, request)
    if own.state != "ended":
        raise HTTPException(409, "this job has not ended")
    new = studio.jobs.add(own.kind, own.subject, own.lane, own.arguments)
    return redirect(f"/run/{own.subject}" if own.subject in studio.runs() else f"/jobs/{new}")


def absolute(path: Path) -> str:
    """Return a path for a command, which starts in the studio's folder."""
    return str(path.absolute())
