"""One request never keeps the engine: whole deadlines, clients that stall or leave, a signal in the middle."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import urllib3

from support.serving_process import served
from tunewright.serving import app
from tunewright.serving.engine import Piece

BODY = {"messages": [{"role": "user", "content": "Why ?"}], "model": "tuned"}


class Endless:
    """An engine that answers one request after the other, each without end."""

    name, keeps_first_space = "endless", False

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.num_closed = 0

    def is_healthy(self) -> bool:
        return True

    def answer(self, request: object) -> tuple[int, Iterator[Piece]]:
        def pieces() -> Iterator[Piece]:
            with self.turn:
                try:
                    while True:
                        time.sleep(0.001)
                        yield Piece("a")
                finally:
                    self.num_closed += 1

        return 1, pieces()


def is_freed(engine: Endless) -> bool:
    """Return whether the engine is free; a thread that computes a piece may still have to end."""
    deadline = time.monotonic() + 5
    while engine.turn.locked() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not engine.turn.locked() and engine.num_closed == 1


def sent(engine: Endless, stream: bool, leaves: bool = False, stalls: bool = False) -> list[dict[str, Any]]:
    """Return what the server sends to a request whose client stays, leaves, or does not read."""
    messages: list[dict[str, Any]] = []
    body = json.dumps({**BODY, "stream": stream}).encode()
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers, "query_string": b""}

    async def exchange() -> None:
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop()
            if not leaves:
                await asyncio.sleep(3600)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)
            if stalls and message["type"] == "http.response.body":
                await asyncio.sleep(3600)

        await app.application(engine, engine.answer, "", "127.0.0.1")(scope, receive, send)

    asyncio.run(exchange())
    return messages


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_end_frees_the_engine_at_its_deadline(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_REQUEST_S", 0.3)
    engine = Endless()
    first = sent(engine, stream)[0]
    assert first["status"] == (200 if stream else 504)
    assert is_freed(engine)
    assert sent(engine, stream)[0] == first


def test_a_client_that_does_not_read_frees_the_engine(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(app, "_MAX_STALL_S", 0.1)
    engine = Endless()
    sent(engine, True, stalls=True)
    assert is_freed(engine)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_stops_the_engine_without_a_warning(stream: bool, capsys) -> None:
    engine = Endless()
    sent(engine, stream, leaves=True)
    assert is_freed(engine)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_signal_ends_the_server_whatever_it_computes(run) -> None:
    with served(run.path, "--engine", "transformers") as (address, process):

        def ask() -> None:
            with suppress(urllib3.exceptions.HTTPError):  # the server ended
                urllib3.request("POST", f"{address}/chat/completions", json={**BODY, "max_tokens": 3000}, retries=False)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        threads[0].join(timeout=1)  # the first answer has begun, or is about to
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        for thread in threads:
            thread.join()
        assert "warning" not in process.stderr.read()
