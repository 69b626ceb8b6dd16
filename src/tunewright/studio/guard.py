"""The guard of every request, HTTP and WebSocket: host, origin, cross-site requests, token; and security headers."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from tunewright.serving.listen import is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SAFE = ("GET", "HEAD")
_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# "no-referrer" would make a browser send "Origin: null" with its own forms.
HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}


class Refusal(NamedTuple):
    """Why a request is refused: the status and a sentence."""

    status: int
    text: str


_WRONG_HOST = Refusal(403, "This server answers under its own names only: use the address that the command printed.")
_WRONG_ORIGIN = Refusal(403, "The request comes from another page.")
_NO_TOKEN = Refusal(401, "The token is missing: open the address that the command 'tunewright studio' printed.")


class Guard:
    """Passes on the requests of this server's own pages that have its token, and adds the security headers.

    The names stop pages whose domain points to this machine (DNS rebinding), the origin stops those of other sites.
    The token comes as a cookie, as a bearer, or once in the address that the command prints, which sets the cookie.

    Args:
        app: the application.
        token: of this server.
        host: the address that the server listens on.
        port: part of the cookie's name, since a browser sends one machine's cookies to all its ports.
    """

    def __init__(self, app: App, token: str, host: str, port: int) -> None:
        self._app, self._token, self._cookie = app, token.encode(), f"tunewright-{port}".encode()
        self._hosts = {"localhost", "127.0.0.1", "[::1]"} if is_loopback(host) else {host, socket.gethostname().lower()}
        self._any_address = not is_loopback(host)  # an address of numbers is never a rebound name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, close a WebSocket's handshake, or pass the request on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = _single(scope["headers"])
        refusal = self._refusal(scope, headers)
        if refusal is None and scope["type"] == "http":
            given = parse_qs(scope.get("query_string", b"")).get(b"token")
            if given and scope["method"] == "GET" and self._is_token(given[0]):
                await _reply(send, 303, b"", (self._cookie_header(), (b"location", _own_path(scope))))
                return
        refusal = refusal or self._missing_token(headers)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _reply(send, refusal.status, refusal.text.encode())

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes] | None) -> Refusal | None:
        if headers is None or not self._is_own(headers.get(b"host", b"")):
            return _WRONG_HOST
        if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            return _WRONG_ORIGIN
        origin, host = headers.get(b"origin"), headers[b"host"].lower()
        if origin is not None and origin.lower() not in (b"http://" + host, b"https://" + host):
            return _WRONG_ORIGIN
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if changes and origin is None and self._cookie in _cookies(headers):  # a browser names the origin of its forms
            return _WRONG_ORIGIN
        return None

    def _is_own(self, host: bytes) -> bool:
        text = host.decode("latin-1").lower()
        name = text[: text.index("]") + 1] if "]" in text else text.partition(":")[0]
        return name in self._hosts or (self._any_address and _is_address(name.strip("[]")))

    def _missing_token(self, headers: dict[bytes, bytes] | None) -> Refusal | None:
        assert headers is not None
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else _cookies(headers).get(self._cookie, b"")
        return None if self._is_token(given) else _NO_TOKEN

    def _is_token(self, given: bytes) -> bool:
        return bool(given) and hmac.compare_digest(given, self._token)

    def _cookie_header(self) -> tuple[bytes, bytes]:
        value = self._cookie + b"=" + self._token + b"; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"
        return b"set-cookie", value


def _single(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """Return the headers by name; None where a name that decides is given twice."""
    result: dict[bytes, bytes] = {}
    for name, value in headers:
        name = name.lower()
        if name in result and name in (b"host", b"origin", b"authorization", b"sec-fetch-site"):
            return None
        result[name] = result[name] + b"; " + value if name == b"cookie" and name in result else value
    return result


def _cookies(headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    pairs = (part.strip().partition(b"=") for part in headers.get(b"cookie", b"").split(b";"))
    return {name: value for name, _, value in pairs}


def _own_path(scope: Scope) -> bytes:
    """Return the path of a request without its query: always one of this server, never //another.host/."""
    path = scope.get("raw_path") or scope["path"].encode()
    return b"/" + bytes(path).partition(b"?")[0].replace(b"\\", b"/").lstrip(b"/")


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


async def _reply(send: Send, status: int, body: bytes, more: Iterable[tuple[bytes, bytes]] = ()) -> None:
    headers = [*HEADERS.items(), (b"content-type", b"text/plain; charset=utf-8"), *more]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    """Return a ``send`` that adds each security header that the response has not set itself."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", ()))
            names = {name.lower() for name, _ in own}
            message = {**message, "headers": [*own, *(h for h in HEADERS.items() if h[0] not in names)]}
        await send(message)

    return send_with_headers
