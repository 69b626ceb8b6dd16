"""A real HTTP server on the loopback that plays an OpenAI-compatible teacher, faults included."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server sends back: a status, a body (bytes, or JSON), headers; None hangs until the server ends."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False


FAULTS: tuple[Answer, ...] = (
    Answer(429, {"error": {"message": "slow down"}}),
    Answer(429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}),
    Answer(500, b"oops"),
    Answer(502, b"<html>a proxy's page</html>"),
    Answer(503, b""),
    Answer(200, b'{"choices": [{"message": {"con'),
    Answer(200, {"choices": []}),
    Answer(200, {"choices": [{"message": {"role": "assistant", "content": 3}, "finish_reason": "stop"}]}),
    Answer(200, ["nothing"]),
    Answer(hang=True),
)


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def completion(text: str, finish: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def echo(seen: Seen) -> Answer:
    """Answer with the last message's text, upper case."""
    return Answer(body=completion(seen.body["messages"][-1]["content"].upper()))


class FakeTeacher:
    """The server: ``url``, and everything that it was sent."""

    def __init__(self, respond: Callable[[Seen], Answer]) -> None:
        self.seen: list[Seen] = []
        self.ended = threading.Event()
        self.respond = respond
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                seen = Seen(self.path, dict(self.headers.items()), json.loads(raw))
                outer.seen.append(seen)
                answer = outer.respond(seen)
                if answer.hang:
                    outer.ended.wait(30)
                    self.close_connection = True
                    return
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                """Stay silent."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, address: Any) -> None:
                """Stay silent when a killed client's connection breaks."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def fake_teacher(respond: Callable[[Seen], Answer] = echo) -> Iterator[FakeTeacher]:
    server = FakeTeacher(respond)
    try:
        yield server
    finally:
        server.stop()


def raw_completion(text: str, finish: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "text": text, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def sometimes(share: float, seed: int, then: Callable[[Seen], Answer] = echo) -> Callable[[Seen], Answer]:
    """Give a fault to this share of the calls, whichever come; else answer."""
    dice, lock = random.Random(seed), threading.Lock()

    def respond(seen: Seen) -> Answer:
        with lock:
            bad = dice.random() < share
            fault = dice.choice(FAULTS)
        return fault if bad else then(seen)

    return respond


def in_turn(*answers: Answer, then: Callable[[Seen], Answer] = echo) -> Callable[[Seen], Answer]:
    """Give these answers first, whoever asks, then the other."""
    left = list(answers)
    lock = threading.Lock()

    def respond(seen: Seen) -> Answer:
        with lock:
            return left.pop(0) if left else then(seen)

    return respond
