"""The application: the list of all routes behind the guard, and the server that runs it."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tunewright import console
from tunewright.errors import TunewrightError, UserError, trouble
from tunewright.serving.listen import is_loopback, start_listening, take_port
from tunewright.storage import write_atomic
from tunewright.studio.guard import App, Guard
from tunewright.studio.jobs import STUDIO_FOLDER, Jobs
from tunewright.studio.web import BodyLimit, Studio, endpoint, failure_page, page, safe, streamed

TOKEN = "TUNEWRIGHT_STUDIO_TOKEN"
_MIN_TOKEN_LENGTH = 16
_GRACE_S = 1


def _page(path: str, reference: str) -> Route:
    return Route(path, endpoint(reference))


def _form(path: str, reference: str) -> Route:
    return Route(path, endpoint(reference), methods=["POST"])


_UPLOADS = ("/new/files",)

# Every address of the studio; a handler is a function of a module of this package.
ROUTES = (
    _page("/static/{name}", "web:static_file"),
    _page("/", "home:home"),
    _form("/compare", "home:compare"),
    _page("/jobs", "home:jobs"),
    _page("/jobs/{job:int}", "home:job"),
    _page("/jobs/{job:int}/state", "home:job_state"),
    _form("/jobs/{job:int}/stop", "home:stop"),
    _form("/jobs/{job:int}/resume", "home:resume"),
    _page("/new", "new_run:new"),
    _form("/new/files", "new_run:upload"),
    _form("/new/folder", "new_run:from_folder"),
    _page("/recipe/{key}", "new_run:recipe_page"),
    _form("/recipe/{key}/settings", "new_run:save_form"),
    _form("/recipe/{key}/text", "new_run:save_text"),
    _form("/recipe/{key}/start", "new_run:start"),
    _form("/recipe/{key}/discard", "new_run:discard"),
    _page("/run/{key}", "run_page:run_page"),
    Route("/run/{key}/events", streamed("run_page:events")),
    _form("/run/{key}/go-on", "run_page:go_on"),
    _page("/run/{key}/file/{name}", "run_page:run_file"),
    _page("/run/{key}/data", "data_page:data"),
    _page("/run/{key}/data/coverage", "data_page:coverage"),
    _page("/run/{key}/data/edits", "data_page:history"),
    _form("/run/{key}/data/{id}/edit", "data_page:edit"),
    _page("/run/{key}/exam", "exam_page:exam"),
    _form("/run/{key}/exam/{number:int}", "exam_page:edit"),
    _page("/run/{key}/verdict", "verdict_page:verdict"),
    _page("/run/{key}/report", "verdict_page:report"),
    _page("/run/{key}/trace/{id}", "verdict_page:trace"),
    _page("/run/{key}/mark", "mark_page:mark"),
    _page("/run/{key}/mark/page", "mark_page:marking_page"),
    _form("/run/{key}/mark/make", "mark_page:make"),
    _form("/run/{key}/mark/read", "mark_page:read"),
    _page("/run/{key}/chat", "chat_page:chat"),
    Route("/run/{key}/chat/ask", streamed("chat_page:ask"), methods=["POST"]),
    _form("/run/{key}/chat/why", "chat_page:why"),
    _form("/run/{key}/chat/thumb", "chat_page:thumb"),
    _form("/run/{key}/chat/forget", "chat_page:forget"),
    _page("/run/{key}/deliver", "deliver_page:deliver"),
    _form("/run/{key}/deliver/export", "deliver_page:export"),
    _form("/run/{key}/deliver/serve", "deliver_page:serve"),
    _form("/run/{key}/deliver/push", "deliver_page:push"),
    _form("/run/{key}/deliver/send", "deliver_page:send"),
)


def application(folder: Path, token: str, host: str, port: int) -> App:
    """Return the studio of a folder as an ASGI application.

    Args:
        folder: that holds the runs, recipes and uploads.
        token: required of every request.
        host: the address that the server listens on.
        port: its port.
    """
    handlers = {HTTPException: _http_problem, TunewrightError: _problem, Exception: _defect}
    app = Starlette(routes=list(ROUTES), exception_handlers=handlers)
    app.state.studio = Studio(folder, Jobs(folder))
    app.state.studio.jobs.move()
    return Guard(BodyLimit(app, _UPLOADS.__contains__), token, host, port)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "There is no such page", 405: "This page takes no such request", 413: "The request is too large"}
    title = known.get(error.status_code, "This did not work")
    return page("problem.html", title, error.status_code, headline=title, cause=str(error.detail), hint="")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, TunewrightError)
    return failure_page(error)


async def _defect(request: Request, error: Exception) -> Response:
    if known := trouble(error):
        return failure_page(known, 500)
    message = f"unexpected {type(error).__name__}: {error}"
    console.warning(f"{request.method} {request.url.path}: {message}")
    return failure_page(TunewrightError(safe(message), "this is a defect in tunewright; your files are untouched"), 500)


def token_of(folder: Path, host: str) -> str:
    """Return the token of a folder's server: from the environment, or one of its own, the same after a restart.

    Raises:
        UserError: other machines can reach the address and no token was set, or the one set is too short.
    """
    token = os.environ.get(TOKEN, "").strip()
    hint = f'set one: export {TOKEN}="$(openssl rand -hex 16)"'
    if token and (len(token) < _MIN_TOKEN_LENGTH or not token.isalnum()):
        raise UserError(f"{TOKEN} is no token", f"it needs {_MIN_TOKEN_LENGTH} letters and digits or more", hint)
    if not token and not is_loopback(host):
        cause = f"other machines can reach this address, and {TOKEN} is not set"
        raise UserError(f"no token protects {host}", cause, hint)
    if token:
        return token
    path = folder / STUDIO_FOLDER / "token"
    if path.is_file() and not path.is_symlink() and len(known := path.read_text(encoding="ascii")) >= _MIN_TOKEN_LENGTH:
        return known
    token = secrets.token_hex(16)
    write_atomic(path, token.encode(), private=True)
    return token


def serve(folder: Path, host: str, port: int) -> None:
    """Answer requests until a signal; the address with its token goes to stdout once the server listens.

    Raises:
        UserError: there is no such folder, no token for an address that others reach, or the port is in use.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder", "", "name a folder for runs, or make it first")
    token = token_of(folder, host)
    with take_port(host, port) as listener:
        app = application(folder.absolute(), token, host, listener.getsockname()[1])
        start_listening(listener)
        if not is_loopback(host):
            console.warning(f"other machines can reach {host}: whoever has the token can start commands here")
        console.line(f"the studio of {folder.absolute()}; Ctrl-C stops it, its jobs continue", "bold")
        console.data(_address(listener, token))
        _run(app, listener)


def _address(listener: socket.socket, token: str) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={token}"


def _run(app: App, listener: socket.socket) -> None:
    from tunewright.serving.connections import run_until_signal

    try:
        run_until_signal(app, listener, _GRACE_S)
    except KeyboardInterrupt:
        console.line()
