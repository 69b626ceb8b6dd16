"""The server's endpoints: chat completions, models, health; JSON only, no CORS, each behind the token.

Hand-written on starlette, since servers of this interface bring their own engine, template and tokenizer.
"""

from __future__ import annotations

import hmac
import json
import socket
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
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunewright import console
from tunewright.serving.engine import MAX_REQUEST_S, WAITING, Engine, Piece
from tunewright.serving.requests import MODEL, ChatRequest, RequestError, read_request
from tunewright.serving.served_model import ServedModel


def completion(name: str, num_prompt: int, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return an answer as one reply."""
    text, last = "".join(piece.text for piece in pieces), pieces[-1]
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": last.finish, "logprobs": None}
    return {**_head(name, "chat.completion"), "choices": [choice], "usage": _usage(num_prompt, last)}


def events(chat: ChatRequest, num_prompt: int, first: Piece, rest: Iterator[Piece]) -> Generator[bytes, None, None]:
    """Yield an answer as server-sent events; an answer that breaks off ends with an error."""
    head = _head(f"chatcmpl-{uuid.uuid4().hex}", "chat.completion.chunk")
    delta: dict[str, Any] = {"role": "assistant", "content": ""}
    try:
        yield _event({**head, "choices": [_choice(delta, None)]})
        for piece in chain((first,), rest):
            yield _event({**head, "choices": [_choice({"content": piece.text} if piece.text else {}, piece.finish)]})
            if piece.finish and chat.stream_options.get("include_usage"):
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
    num_written = last.num_tokens or 0
    return {"prompt_tokens": num_prompt, "completion_tokens": num_written, "total_tokens": num_prompt + num_written}


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


_MAX_BODY_BYTES = 8 << 20
_MAX_STALL_S = 30.0  # that a client may take to read a piece of its answer
_GRACE_S = 1  # for answers in progress when the server is stopped

AnswerChat = Callable[[ChatRequest], tuple[int, Iterator[Piece]]]  # → (number of prompt tokens, the pieces)


class AccessCheck:
    """Passes requests on that have the token; without a token, those that name this machine as their host and origin.

    The latter stops web pages, and those whose domain points to the loopback (DNS rebinding).
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
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
                return RequestError(401, "invalid_api_key", "a request needs the server's token as its API key")
            return None
        own = "the server accepts only the names of this machine's loopback as"
        if _host_name(headers.get(b"host", b"")) not in self._hosts:
            return RequestError(403, "wrong_host", f"{own} host")
        origin = headers.get(b"origin")  # which browsers send with every request of a page to another server
        if origin is not None and _host_name(origin.partition(b"://")[2]) not in self._hosts:
            return RequestError(403, "wrong_origin", f"{own} origin")
        return None


def _host_name(host: bytes) -> str:
    """Return a host without its port."""
    text = host.decode("latin-1")
    return text[: text.index("]") + 1] if "]" in text else text.partition(":")[0]


class Deadline:
    """Ends a request that takes too long as a whole, or whose client does not read: both would keep the engine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer 504 if nothing was sent by the deadline."""
        started = False

        async def send_in_time(message: Message) -> None:
            nonlocal started
            started = True
            with anyio.fail_after(_MAX_STALL_S):
                await send(message)

        with anyio.move_on_after(MAX_REQUEST_S) as limit, suppress(ClientDisconnect, TimeoutError, OSError):
            await self._app(scope, receive, send_in_time)
        if limit.cancelled_caught and not started:
            error = RequestError(504, "deadline_exceeded", f"the answer took more than {MAX_REQUEST_S:g} s")
            await _refused(error)(scope, receive, send)


def application(engine: Engine, answer: AnswerChat, token: str, host: str) -> ASGIApp:
    """Return the server as an ASGI application.

    Args:
        engine: reports its health.
        answer: continues a chat.
        token: required of every request; empty for none.
        host: the address that the server listens on.
    """
    started = int(time.time())
    # Two limiters, since a request that waits for the engine waits in a thread: health must not wait behind it.
    answering, checking = anyio.CapacityLimiter(WAITING), anyio.CapacityLimiter(1)
    card = {"id": MODEL, "object": "model", "created": started, "owned_by": "tunewright"}

    async def health(request: Request) -> Response:
        healthy = await run_sync(engine.is_healthy, limiter=checking)
        content = {"status": "ok" if healthy else "down", "model": MODEL, "engine": engine.name}
        return JSONResponse(content, 200 if healthy else 503)

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [card]})

    async def model(request: Request) -> Response:
        if request.path_params["name"] != MODEL:
            return _refused(RequestError(404, "model_unknown_address", f"there is {MODEL!r}"))
        return JSONResponse(card)

    async def chat(request: Request) -> Response:
        try:
            chat_request = read_request(await _body(request))
            num_prompt, pieces = await run_sync(answer, chat_request, limiter=answering)
            if not chat_request.stream:
                whole = await _whole(request, pieces, answering)
                return JSONResponse(completion(f"chatcmpl-{uuid.uuid4().hex}", num_prompt, whole))
            first = await run_sync(
                next, pieces, limiter=answering
            )  # before the reply begins, so that a failure has its own status
        except RequestError as error:
            return _refused(error)
        stream = _stream(events(chat_request, num_prompt, first, pieces), answering)
        return StreamingResponse(stream, media_type="text/event-stream")

    routes = [
        Route("/health", health),
        Route("/v1/models", models),
        Route("/v1/models/{name}", model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unknown_address, Exception: _defect})
    return AccessCheck(Deadline(app), token, frozenset({"localhost", "127.0.0.1", "[::1]", host}))


async def _whole(request: Request, pieces: Iterator[Piece], answering: anyio.CapacityLimiter) -> list[Piece]:
    """Return all pieces of an answer; a client that disconnects stops the engine."""
    whole: list[Piece] = []
    try:
        while (piece := await run_sync(next, pieces, None, limiter=answering)) is not None:
            whole.append(piece)
            if await request.is_disconnected():
                raise ClientDisconnect
    finally:
        with suppress(ValueError):  # as in _stream
            pieces.close() if isinstance(pieces, Generator) else None
    return whole


async def _stream(chunks: Generator[bytes, None, None], answering: anyio.CapacityLimiter) -> AsyncIterator[bytes]:
    """Yield the events; a client that disconnects stops the engine."""
    try:
        while (event := await run_sync(next, chunks, None, limiter=answering)) is not None:
            yield event
    finally:
        with suppress(ValueError):  # a thread is still computing: the server is ending, and the engine with it
            chunks.close()


async def _body(request: Request) -> bytes:
    """Return the body of a JSON request.

    Web pages may send other content types to any server without a preflight request.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "unsupported_media_type", "send application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY_BYTES:
            raise RequestError(413, "request_too_large", f"a request has at most {_MAX_BODY_BYTES:,} bytes")
    return body


def _refused(error: RequestError) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(error.body(), error.status, headers)


async def _unknown_address(request: Request, error: Any) -> Response:
    endpoints = "GET /health, GET /v1/models, POST /v1/chat/completions"
    message = f"{request.method} {request.url.path}: {error.detail}; there is {endpoints}"
    return JSONResponse(RequestError(error.status_code, "not_found", message).body(), error.status_code)


async def _defect(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect | TimeoutError | OSError):  # the client went away, or does not read
        return Response(status_code=400)  # which nobody gets
    message = f"unexpected {type(error).__name__}: {error}"
    console.warning(f"{request.method} {request.url.path}: {message}")
    return JSONResponse(RequestError(500, "defect", message).body(), 500)


def run_server(model: ServedModel, token: str, host: str, listener: socket.socket) -> None:
    """Answer requests until a signal."""
    from tunewright.serving.connections import run_until_signal

    def answer(request: ChatRequest) -> tuple[int, Iterator[Piece]]:
        prompt_ids = model.prompt_ids(request)
        return len(prompt_ids), model.answer(prompt_ids, request)

    try:
        run_until_signal(application(model.engine, answer, token, host), listener, _GRACE_S)
    except KeyboardInterrupt:
        console.line()
