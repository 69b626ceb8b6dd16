"""What all pages share: the studio's state, endpoints with their form, templates, and answers in words."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tunewright.console import rough_duration, visible, without_secrets
from tunewright.errors import TunewrightError
from tunewright.html.render import count, page_environment, page_file
from tunewright.statistics.intervals import number, signed
from tunewright.studio.jobs import DESK, Job, Jobs, devices
from tunewright.studio.runs import KnownRun, Summaries, known_runs

# The pages of a run beside its own: the path below it, and the name.
RUN_PAGES = (
    ("data", "Data"), ("exam", "Exam"), ("verdict", "Verdict"), ("mark", "Mark"), ("chat", "Chat"),
    ("deliver", "Deliver"),
)  # fmt: skip

MOST_FORM_BYTES = 4 << 20
MOST_UPLOAD_BYTES = 512 << 20
MOST_FILES = 500
_RUN_LIST_S = 1.0


class Cache:
    """What was read from files, until they change. What takes long is read in a thread of its own.

    Args:
        most: entries that are kept; the oldest goes first.
    """

    def __init__(self, most: int = 24) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: dict[object, tuple[object, Any]] = {}
        self._reading: dict[object, threading.Thread] = {}

    def get(self, key: object, current: object, read: Any, wait_s: float | None = None) -> Any:
        """Return what ``read`` returns, from the cache while ``current`` stays the same.

        With ``wait_s``, wait no longer than that, and return None while it is still being read.
        """
        known = self._known.get(key)
        if known is not None and known[0] == current:
            return known[1]
        if wait_s is None:
            return self._keep(key, current, read())
        with self._lock:
            thread = self._reading.get((key, current))
            if thread is None:
                thread = threading.Thread(target=lambda: self._keep(key, current, read()), daemon=True)
                self._reading[(key, current)] = thread
                thread.start()
        thread.join(wait_s)
        known = self._known.get(key)
        return known[1] if known is not None and known[0] == current else None

    def _keep(self, key: object, current: object, value: Any) -> Any:
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = current, value
            self._reading.pop((key, current), None)
            while len(self._known) > self._most:
                self._known.pop(next(iter(self._known)))
        return value


@dataclass
class Studio:
    """The state of a server: nothing in it is lost with the server, all of it is read from disk again."""

    folder: Path
    jobs: Jobs
    summaries: Summaries = field(default_factory=Summaries)
    started: float = field(default_factory=time.time)
    cache: Cache = field(default_factory=Cache)
    _listed: tuple[float, dict[str, KnownRun]] = (0.0, {})

    def runs(self) -> dict[str, KnownRun]:
        """Return the known runs by key."""
        if time.monotonic() - self._listed[0] > _RUN_LIST_S:
            self._listed = time.monotonic(), known_runs(self.folder)
        return self._listed[1]

    def run(self, request: Request) -> KnownRun:
        """Return the run that a request names by its key.

        Raises:
            HTTPException: 404; only known runs have pages.
        """
        key = request.path_params["key"]
        known = self.runs().get(key) or known_runs(self.folder).get(key)
        if known is None:
            raise HTTPException(404, "no run of this folder has this address; it may have been moved or deleted")
        return known


Handler = Callable[[Studio, Request, FormData], Response]


@cache
def _handler(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(f"tunewright.studio.{module}"), name)


def endpoint(reference: str) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that reads the form, then calls a handler in a thread, where it may wait for the disk.

    Args:
        reference: "module:name" of the handler; imported with its libraries when the page is first opened.
    """

    async def answer(request: Request) -> Response:
        handle: Handler = await run_in_threadpool(_handler, reference)
        try:
            form = await endpoint_form(request) if request.method == "POST" else FormData()
            return await run_in_threadpool(handle, request.app.state.studio, request, form)
        finally:
            await request.close()

    return answer


async def endpoint_form(request: Request) -> FormData:
    """Return the form of a request within the limits of count and size."""
    return await request.form(max_files=MOST_FILES, max_fields=2000, max_part_size=MOST_FORM_BYTES)


def streamed(reference: str) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint whose handler awaits by itself."""

    async def answer(request: Request) -> Response:
        handle = await run_in_threadpool(_handler, reference)
        response: Response = await handle(request)
        return response

    return answer


def text_of(form: FormData, name: str, most: int = 20_000) -> str:
    """Return a field of a form as text with the line ends of this machine; "" where it is missing."""
    value = form.get(name)
    return value.replace("\r\n", "\n")[:most].strip() if isinstance(value, str) else ""


def safe(text: object) -> str:
    """Return a text as it may be shown: without secrets and without control characters; the template escapes it."""
    return visible(without_secrets(str(text)))


def when(seconds: float | None) -> str:
    """Return a time for people, in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "–"


@cache
def _environment() -> Any:
    filters = {"number": number, "signed": signed, "count": count, "duration": rough_duration}
    environment = page_environment(_template, {**filters, "when": when, "safe_text": safe})
    environment.globals.update(devices=devices, desk=DESK, run_pages=RUN_PAGES)
    return environment


def _template(name: str) -> str:
    return resources.files("tunewright.studio").joinpath("templates", name).read_text(encoding="utf-8")


def fragment(name: str, view: Mapping[str, Any]) -> str:
    """Return a template filled with a view."""
    return str(_environment().get_template(name).render(view))


def page(template: str, title: str, status: int = 200, run: KnownRun | None = None, **view: Any) -> HTMLResponse:
    """Return a page; ``run`` adds the run's own navigation."""
    return HTMLResponse(fragment(template, {"title": title, "run": run, "here": template, **view}), status)


def redirect(path: str) -> RedirectResponse:
    """Return an answer that sends the browser on after a form, so that a reload sends nothing twice."""
    return RedirectResponse(path, 303)


def failure_page(error: TunewrightError, status: int = 400) -> HTMLResponse:
    """Return an error in words."""
    return page(
        "problem.html", "This did not work", status, headline=error.headline, cause=error.cause, hint=error.hint
    )


def job_view(job: Job) -> dict[str, Any]:
    """Return a job as the pages show it."""
    end = job.ended or time.time()
    return {"job": job, "took": rough_duration(end - job.started) if job.started else "–"}


STATIC = {
    "style.css": ("html", "text/css"),
    "studio.css": ("studio", "text/css"),
    "live.js": ("studio", "text/javascript"),
    "wait.js": ("studio", "text/javascript"),
    "data.js": ("studio", "text/javascript"),
    "chat.js": ("studio", "text/javascript"),
}


@cache
def _static(name: str) -> str:
    if STATIC[name][0] == "html":
        return page_file(name)
    return resources.files("tunewright.studio").joinpath("static", name).read_text(encoding="utf-8")


def static_file(studio: Studio, request: Request, form: FormData) -> Response:
    """Return a style sheet or script by its name in the table; nothing else is served from the package."""
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404, "there is no such file")
    return Response(_static(name), media_type=STATIC[name][1], headers={"cache-control": "no-cache"})


class BodyLimit:
    """Refuses a request whose body is larger than its address takes, whatever length it states.

    Args:
        app: the application.
        uploads: the addresses that take files.
    """

    def __init__(self, app: Any, uploads: Callable[[str], bool]) -> None:
        self._app, self._uploads = app, uploads

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass the request on, and stop reading it at the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left = MOST_UPLOAD_BYTES if self._uploads(scope["path"]) else MOST_FORM_BYTES

        async def limited() -> MutableMapping[str, Any]:
            nonlocal left
            message: MutableMapping[str, Any] = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "the request is larger than this page takes")
            return message

        await self._app(scope, limited, send)
