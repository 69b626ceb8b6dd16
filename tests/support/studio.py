"""The studio without a network: requests to its ASGI application, as a browser or an attacker would send them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tunewright.studio.app import ROUTES, application

TOKEN, HOST, PORT = "0123456789abcdef0123456789abcdef", "127.0.0.1:8765", 8765
COOKIE = {"cookie": f"tunewright-{PORT}={TOKEN}"}
OWN = {**COOKIE, "origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@dataclass
class Reply:
    """What came back; ``closed`` is the code of a closed WebSocket handshake, ``accepted`` whether it was taken."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    closed: int = 0
    accepted: bool = False

    @property
    def text(self) -> str:
        return self.body.decode()


def app_of(folder: Path, host: str = "127.0.0.1") -> Any:
    return application(folder, TOKEN, host, PORT)


def addresses(key: str = "0" * 12) -> list[str]:
    """Return an address of every route of the application's own list, with values in place of its parameters."""
    values = {"key": key, "job": "1", "name": "live.js", "id": "0" * 16, "number": "1"}
    return [re.sub(r"{(\w+)(?::\w+)?}", lambda part: values[part[1]], route.path) for route in ROUTES]


def send(
    app: Any,
    method: str,
    path: str,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    host: str = HOST,
    kind: str = "http",
    events: int = 0,
) -> Reply:
    """Send one request; of an endless stream, return after that many events."""
    path, _, query = path.partition("?")
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    raw = [(b"host", host.encode())] if host else []
    raw += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    scope = {
        "type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": query.encode(), "headers": raw, "scheme": "http", "root_path": "",
        "server": ("127.0.0.1", PORT), "client": ("127.0.0.1", 50000), "subprotocols": [],
    }  # fmt: skip
    return asyncio.run(_exchange(app, scope, body, kind, events))


async def _exchange(app: Any, scope: dict[str, Any], body: bytes, kind: str, events: int) -> Reply:
    reply, sent, ended = Reply(), [False], asyncio.Event()

    async def receive() -> dict[str, Any]:
        if kind == "websocket":
            return {"type": "websocket.connect"}
        if sent[0]:
            await ended.wait()
            return {"type": "http.disconnect"}
        sent[0] = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def take(message: Any) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            reply.body += message.get("body", b"")
            if (events and reply.body.count(b"\nid: ") >= events) or not message.get("more_body"):
                ended.set()
        elif message["type"] == "websocket.close":
            reply.closed = message.get("code", 1000)
        elif message["type"] == "websocket.accept":
            reply.accepted = True

    await asyncio.wait_for(app(scope, receive, take), 30)
    return reply


def get(app: Any, path: str, **options: Any) -> Reply:
    """Open a page as the studio's own browser does."""
    return send(app, "GET", path, {**COOKIE, "sec-fetch-site": "same-origin"}, **options)


def post(app: Any, path: str, fields: Mapping[str, Any] | None = None) -> Reply:
    """Send a form as the studio's own page does."""
    headers = {**OWN, "content-type": "application/x-www-form-urlencoded"}
    return send(app, "POST", path, headers, urlencode(fields or {}, doseq=True).encode())


def post_files(
    app: Any,
    path: str,
    files: Sequence[tuple[str, bytes]],
    fields: Mapping[str, str] | None = None,
    exam: Sequence[tuple[str, bytes]] = (),
) -> Reply:
    """Send files by a form, under any name, as only an attacker's client would write some of them."""
    edge, parts = "edgeofparts", []
    for name, value in (fields or {}).items():
        parts.append(f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for control, name, content in [*(("files", *file) for file in files), *(("exam", *file) for file in exam)]:
        head = f'--{edge}\r\nContent-Disposition: form-data; name="{control}"; filename="'.encode() + name.encode()
        parts.append(head + b'"\r\nContent-Type: text/plain\r\n\r\n' + content + b"\r\n")
    headers = {**OWN, "content-type": f"multipart/form-data; boundary={edge}"}
    return send(app, "POST", path, headers, b"".join(parts) + f"--{edge}--\r\n".encode())
