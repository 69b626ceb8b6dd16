"""The endpoints: chat completions, models, health; JSON only, no CORS, and the token on every one of them."""

from __future__ import annotations

import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import anyio
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tunewright import console
from tunewright.serving.engine import WAITING, Engine, Piece
from tunewright.serving.requests import MODEL, ChatRequest, RequestError, read_request


def completion(name: str, num_prompt: int, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return a whole answer."""
    text, last = "".join(piece.text for piece in pieces), pieces[-1]
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": last.finish, "logprobs": None}
    return {**_head(name, "chat.completion"), "choices": [choice], "usage": _usage(num_prompt, last)}


def events(asked: ChatRequest, num_prompt: int, first: Piece, rest: Iterator[Piece]) -> Generator[bytes, None, None]:
    """Yield an answer as events; one that breaks off ends with an error, not as if it were whole."""
    head = _head(f"chatcmpl-{uuid.uuid4().hex}", "chat.completion.chunk")
    delta: dict[str, Any] = {"role": "assistant", "content": ""}
    try:
        yield _event({**head, "choices": [_choice(delta, None)]})
        for piece in chain((first,), rest):
            yield _event({**head, "choices": [_choice({"content": piece.text} if piece.text else {}, piece.finish)]})
            if piece.finish and asked.stream_options.get("include_usage"):
                yield _event({**head, "choices": [], "usage": _usage(num_prompt, piece)})
        yield b"data: [DONE]\n\n"
    except RequestError as error:
        yield _event(error.body())
    finally:
        rest.close() if isinstance(rest, Generator) else None


def _head(name: str, kind: str) -> dict[str, Any]:
    return {"id": name, "object": kind, "created": int(time.time()), "model": MODEL}


def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}


def _usage(num_prompt: int, last: Piece) -> dict[str, int]:
    written = last.num_tokens or 0
    return {"prompt_tokens": num_prompt, "completion_tokens": written, "total_tokens": num_prompt + written}


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


_LARGEST_BODY = 8 << 20

Answer = Callable[[ChatRequest], tuple[int, Iterator[Piece]]]  # → (tokens of the prompt, the pieces)


class Guard:
    """Lets requests through that bring the token; without one, those that name this machine as their host.

    The latter keeps a page from elsewhere out whose name was made to point to the loopback (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self._app, self._token, self._hosts = app, token.encode(), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or pass the request on."""
        if scope["type"] == "http" and (refusal := self._refusal(dict(scope["headers"]))):
            await _refused(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: dict[bytes, bytes]) -> RequestError | None:
        if self._token:
            scheme, _, brought = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(brought.strip(), self._token):
                return RequestError(401, "invalid_api_key", "a request needs the server's token as its API key")
            return None
        host = headers.get(b"host", b"").decode("latin-1")
        name = host[: host.index("]") + 1] if "]" in host else host.partition(":")[0]
        if name not in self._hosts:
            return RequestError(403, "wrong_host", "the server answers to the name of this machine's loopback only")
        return None


def application(engine: Engine, answer: Answer, token: str, host: str) -> ASGIApp:
    """Return the server as an ASGI application.

    Args:
        engine: asked whether it still runs.
        answer: continues a chat.
        token: that every request must bring; empty for none.
        host: the address that it listens on.
    """
    started = int(time.time())
    # Of their own, since a request that waits for the engine waits in a thread: health must not stand in that line.
    answering, looking = anyio.CapacityLimiter(WAITING), anyio.CapacityLimiter(1)
    card = {"id": MODEL, "object": "model", "created": started, "owned_by": "tunewright"}

    async def health(request: Request) -> Response:
        well = await run_sync(engine.is_well, limiter=looking)
        told = {"status": "ok" if well else "down", "model": MODEL, "engine": engine.name}
        return JSONResponse(told, 200 if well else 503)

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [card]})

    async def model(request: Request) -> Response:
        if request.path_params["name"] != MODEL:
            return _refused(RequestError(404, "model_not_found", f"there is {MODEL!r}"))
        return JSONResponse(card)

    async def chat(request: Request) -> Response:
        try:
            asked = read_request(await _body(request))
            num_prompt, pieces = await run_sync(answer, asked, limiter=answering)
            if not asked.stream:
                name = f"chatcmpl-{uuid.uuid4().hex}"
                whole = await run_sync(lambda: completion(name, num_prompt, list(pieces)), limiter=answering)
                return JSONResponse(whole)
            first = await run_sync(next, pieces, limiter=answering)  # so that a failure still has a status of its own
        except RequestError as error:
            return _refused(error)
        stream = _stream(events(asked, num_prompt, first, pieces), answering)
        return StreamingResponse(stream, media_type="text/event-stream")

    routes = [
        Route("/health", health),
        Route("/v1/models", models),
        Route("/v1/models/{name}", model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unknown, Exception: _defect})
    return Guard(app, token, frozenset({"localhost", "127.0.0.1", "[::1]", host}))


async def _stream(told: Generator[bytes, None, None], answering: anyio.CapacityLimiter) -> AsyncIterator[bytes]:
    """Yield the events; a client that leaves stops the engine."""
    try:
        while (event := await run_sync(next, told, None, limiter=answering)) is not None:
            yield event
    finally:
        with suppress(ValueError):  # a thread is still at its next piece: the server is ending, and the engine with it
            told.close()


async def _body(request: Request) -> bytes:
    """Return the body of a JSON request.

    Another content type is one that a page may send from anywhere without asking first.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "unsupported_media_type", "send application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_BODY:
            raise RequestError(413, "request_too_large", f"a request has at most {_LARGEST_BODY:,} bytes")
    return body


def _refused(error: RequestError) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(error.body(), error.status, headers)


async def _unknown(request: Request, error: Any) -> Response:
    there = "GET /health, GET /v1/models, POST /v1/chat/completions"
    told = f"{request.method} {request.url.path}: {error.detail}; there is {there}"
    return JSONResponse(RequestError(error.status_code, "not_found", told).body(), error.status_code)


async def _defect(request: Request, error: Exception) -> Response:
    told = f"unexpected {type(error).__name__}: {error}"
    console.warning(f"{request.method} {request.url.path}: {told}")
    return JSONResponse(RequestError(500, "defect", told).body(), 500)
