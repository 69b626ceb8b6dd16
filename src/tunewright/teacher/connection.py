"""Connections to one server: a deadline for the whole answer, and a limit of its bytes, compressed or not."""

from __future__ import annotations

import socket
import ssl
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from tunewright.errors import UserError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CONNECT_S = 10.0
_PIECE_BYTES = 65_536


class TooLongError(Exception):
    """A body is longer than its limit, or is compressed in a way that nobody asked for."""


class LateError(Exception):
    """The deadline has passed before the answer was complete."""


@dataclass(frozen=True)
class Answer:
    """A response: its status, its headers, and its body, decompressed."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class _Call:
    """The call that a thread is making: its connection is shut down at the deadline.

    A timeout of each read does not end a server that sends a byte now and then, in the body or in the headers.
    """

    def __init__(self) -> None:
        self.has_expired = False
        self.connection: Any = None
        self.sock: Any = None  # the connection forgets its own while it reads an answer that ends with the connection

    def expire(self) -> None:
        self.has_expired = True
        connection = self.connection
        sock = self.sock or (connection.sock if connection else None)
        if sock is not None and connection.call is self:
            with suppress(OSError):  # of the plain socket: its TLS state belongs to the thread that reads
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


_thread = threading.local()


def _enter(connection: Any) -> None:
    """Note that this thread's call uses the connection now."""
    call = _thread.call
    connection.call, call.connection = call, connection
    if call.has_expired:
        raise TimeoutError


class _PlainConnection(HTTPConnection):
    call: _Call

    def connect(self) -> None:
        _enter(self)
        super().connect()
        self.call.sock = self.sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        _enter(self)
        self.call.sock = self.sock
        super().request(*args, **kwargs)


class _SecureConnection(HTTPSConnection):
    call: _Call

    def connect(self) -> None:
        _enter(self)
        super().connect()
        self.call.sock = self.sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        _enter(self)
        self.call.sock = self.sock
        super().request(*args, **kwargs)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """End the calls inside after so many seconds.

    Raises:
        LateError: in place of any error or result after the deadline.
    """
    call = _thread.call = _Call()
    timer = threading.Timer(seconds, call.expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if call.has_expired:
            raise LateError from error
        raise
    finally:
        timer.cancel()
    if call.has_expired:
        raise LateError


class Connections:
    """The connections to one URL: through the environment's proxy, except to this machine; safe to share.

    Args:
        url: without user and password.
        number: most connections at once.
        timeout_s: longest time from the start of a call to the end of its answer.
        address: connect here, without a proxy, whatever the URL's name resolves to; TLS still proves the name.

    Raises:
        UserError: the environment's proxy cannot be used.
    """

    def __init__(self, url: str, number: int, timeout_s: float, address: str = "") -> None:
        parts = urlsplit(url)
        trusted = ssl.create_default_context()
        trusted.load_verify_locations(certifi.where())
        timeout = urllib3.Timeout(connect=min(_CONNECT_S, timeout_s), read=timeout_s)
        proxy = None
        if parts.hostname and not address and parts.hostname not in _LOOPBACK and not proxy_bypass(parts.hostname):
            proxy = getproxies().get(parts.scheme)
        options: dict[str, Any] = {"maxsize": number, "timeout": timeout, "retries": False, "ssl_context": trusted}
        if address and parts.scheme == "https":
            options |= {"server_hostname": parts.hostname, "assert_hostname": parts.hostname}
        manager = _proxy_manager(proxy, parts.scheme, options) if proxy else urllib3.PoolManager(**options)
        self._pool = (
            manager.connection_from_host(address, parts.port, parts.scheme)
            if address
            else manager.connection_from_url(url)
        )
        self._pool.ConnectionCls = (
            _SecureConnection if isinstance(self._pool, urllib3.HTTPSConnectionPool) else _PlainConnection
        )
        # A proxy of plain HTTP needs the full URL; one of TLS is a tunnel.
        self._origin = f"{parts.scheme}://{parts.netloc}" if proxy and parts.scheme == "http" else ""
        self._timeout_s = timeout_s

    def post(self, target: str, body: bytes, headers: Mapping[str, str], most_bytes: int) -> Answer:
        """Return the response to a POST; redirects are not followed.

        Args:
            target: path and query.
            body: to send.
            headers: to send.
            most_bytes: of the answer's body, decompressed; the body of an error is cut there.

        Raises:
            LateError: no whole answer within the time.
            TooLongError: the body of a 200 is longer.
            urllib3.exceptions.HTTPError: the connection fails.
        """
        return self._call("POST", target, body, headers, most_bytes)

    def get(self, target: str, headers: Mapping[str, str], most_bytes: int) -> Answer:
        """Return the response to a GET; arguments, errors and redirects as in ``post``."""
        return self._call("GET", target, None, headers, most_bytes)

    def _call(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], most_bytes: int
    ) -> Answer:
        with _deadline(self._timeout_s):
            response = self._pool.urlopen(
                method,
                self._origin + target,
                body=body,
                headers=dict(headers),
                redirect=False,
                assert_same_host=False,  # the pool of a proxy is named after the proxy
                preload_content=False,
                decode_content=False,
            )
            try:
                content = _read(response, most_bytes)
            except BaseException:
                response.close()  # what is left of it is not read
                raise
            return Answer(response.status, content, response.headers)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


def _proxy_manager(proxy: str, scheme: str, options: dict[str, Any]) -> urllib3.ProxyManager:
    """Return the connections through a proxy of the environment, which may need a user and a password.

    Raises:
        UserError: it is no proxy that can be used; its text, which may hold a password, is not repeated.
    """
    url = proxy if "://" in proxy else f"http://{proxy}"  # as curl reads it
    try:
        login = urllib3.util.parse_url(url).auth
        headers = urllib3.make_headers(proxy_basic_auth=unquote(login)) if login else None
        return urllib3.ProxyManager(url, proxy_headers=headers, **options)
    except (HTTPError, ValueError):
        raise UserError(
            f"the proxy for {scheme}:// cannot be used",
            f"the variable {scheme.upper()}_PROXY of the environment holds no URL http://HOST:PORT or https://HOST:PORT",
            f"correct {scheme.upper()}_PROXY, remove it, or name the server's host in NO_PROXY",
        ) from None


def _read(response: urllib3.BaseHTTPResponse, most_bytes: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise TooLongError(f"the reply is encoded as {encoding[:40]!r}, which was not asked for")
    inflater = None if encoding in ("identity", "") else zlib.decompressobj(zlib.MAX_WBITS | 32)
    content = bytearray()
    for piece in response.stream(_PIECE_BYTES, decode_content=False):
        try:
            content += inflater.decompress(piece, most_bytes + 1 - len(content)) if inflater else piece
        except zlib.error as error:
            raise TooLongError(f"the reply cannot be decompressed ({error})") from error
        if len(content) > most_bytes:
            if response.status == 200:
                raise TooLongError(f"the reply is longer than {most_bytes:,} bytes, far more than was asked for")
            response.close()
            return bytes(content[:most_bytes])
    return bytes(content)
