"""A client that never completes its request loses its connection; one that waits for an answer, or uploads, does not."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tunewright.serving import connections

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Read the whole body, wait a second, and answer with its length."""
    size = 0
    while (message := await receive()).get("more_body"):
        size += len(message["body"])
    if message["type"] == "http.disconnect":
        return
    await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size + len(message["body"])).encode()})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "_PATIENCE_S", 0.4)
    monkeypatch.setattr(connections, "_LEAST_BYTES", 400)
    server = connections.web_server(application, 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST / HT",
        HEAD + b"X: y\r\n",
        HEAD + b"Content-Length: 900\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nff",
    ],
)
@pytest.mark.parametrize("drips", [False, True])
def test_a_request_without_end_loses_its_connection(port: int, sent: bytes, drips: bool) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(sent)
        start = time.monotonic()
        while drips and sent and time.monotonic() - start < 5:
            try:
                client.sendall(b"a")
            except OSError:
                break
            time.sleep(0.05)
        with suppress(ConnectionResetError):  # what it sent meanwhile came too late
            assert client.recv(100) == b""
        assert time.monotonic() - start < 5


def test_a_client_that_asks_again_keeps_its_connection(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_PATIENCE_S", 1.2)  # since the connection was made: 0.2 s after the answer
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for pause_s in (0.6, 0):
            client.sendall(HEAD + b"Content-Length: 2\r\n\r\nab")
            answer = b""
            while not answer.endswith(b"0\r\n\r\n"):
                piece = client.recv(1000)
                assert piece, "the connection was closed"
                answer += piece
            time.sleep(pause_s)


def test_an_answer_may_take_longer_and_so_may_an_upload_that_goes_on(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(HEAD + b"Connection: close\r\nContent-Length: 4000\r\n\r\n")
        for _ in range(10):  # 1.5 s
            time.sleep(0.15)
            client.sendall(400 * b"a")
        answer = b"".join(iter(lambda: client.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"4000\r\n0\r\n\r\n")
