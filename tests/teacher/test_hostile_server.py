"""A server that means harm: an answer without end in time or bytes, a bomb, a lie about its cost."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from support.faulty_server import Answer, completion, fake_teacher
from tunewright.records import Message
from tunewright.teacher.client import ChatClient, Retries
from tunewright.teacher.connection import Connections, LateError
from tunewright.teacher.protocol import Reply, Request, UnusableReplyError

Send = Callable[[bytes], object]
FAST = Retries(first_wait_s=0.001, longest_wait_s=0.002, timeout=1, broken=1)
REQUEST = Request((Message(role="user", content="hello"),), 16, 0.0, 3)
WHOLE = json.dumps(completion("HELLO")).encode()
OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def raw_server(write: Callable[[Send, threading.Event], None]) -> Iterator[tuple[str, threading.Event]]:
    """A server that writes bytes as it likes, until the client goes away; ``ended`` is set then."""
    ended = threading.Event()
    stop = threading.Event()

    def serve() -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            with peer:
                try:
                    peer.recv(65536)
                    write(peer.sendall, stop)
                except OSError:
                    ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", ended
        finally:
            stop.set()


def drip(start: bytes, piece: bytes) -> Callable[[Send, threading.Event], None]:
    """Send the start, then a piece now and then: each read of the client returns soon."""

    def write(send: Send, stop: threading.Event) -> None:
        send(start)
        while not stop.wait(0.02):
            send(piece)

    return write


def flood(start: bytes, piece: bytes) -> Callable[[Send, threading.Event], None]:
    def write(send: Send, stop: threading.Event) -> None:
        send(start)
        while not stop.is_set():
            send(piece)

    return write


def reply_with(headers: bytes, body: bytes) -> Callable[[Send, threading.Event], None]:
    return lambda send, stop: send(OK + headers + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (OK + CHUNKED, b"1\r\n \r\n"),
        (OK + b"Content-Length: 100000\r\n\r\n", b" "),
        (OK + b"\r\n", b" "),
        (OK + CHUNKED, b"0"),  # the line of a chunk's size
        (OK, b"X: y\r\n"),
        (OK + b"X: ", b"y"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 100000\r\n\r\n", b" "),
        (b"", b""),
    ],
)
def test_the_deadline_is_of_the_whole_answer(start, piece):
    with raw_server(drip(start, piece)) as (url, _):
        client = ChatClient(url, "m", 0.3, retries=FAST)
        # One hundred headers are refused before the deadline.
        with pytest.raises(UnusableReplyError, match="teacher.timeout_s|100 headers"):
            client.complete(REQUEST)


def test_the_deadline_holds_in_the_handshake():
    with raw_server(drip(b"\x16\x03\x03\x40\x00\x02", b"\x00")) as (url, _):
        client = ChatClient(url.replace("http:", "https:"), "m", 0.3, retries=FAST)
        with pytest.raises(UnusableReplyError, match=r"teacher\.timeout_s"):
            client.complete(REQUEST)


def test_a_connection_is_ended_at_the_deadline():
    with raw_server(drip(OK + CHUNKED, b"1\r\n \r\n")) as (url, ended):
        with pytest.raises(LateError):
            Connections(url, 1, 0.2).post("/v1", b"{}", {}, 1000)
        assert ended.wait(10)  # nothing is left to read it


def test_after_a_late_answer_the_next_call_works():
    calls: list[int] = []

    def write(send: Send, stop: threading.Event) -> None:
        calls.append(1)
        first = drip(OK + CHUNKED, b"1\r\n \r\n")
        (first if len(calls) == 1 else reply_with(b"", WHOLE))(send, stop)

    with raw_server(write) as (url, _):
        client = ChatClient(url, "m", 0.5, retries=Retries(first_wait_s=0.001))
        assert client.complete(REQUEST) == Reply("HELLO", "stop", 7, 3)


@pytest.mark.parametrize(
    "write",
    [
        flood(OK + CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
        flood(OK + b"\r\n", b" " * 65536),
        flood(OK + b"Content-Length: 999999999999\r\n\r\n", b" " * 65536),
        reply_with(b"", json.dumps(completion("x y z " * 1_000_000)).encode()),
        reply_with(b"Content-Encoding: gzip\r\n", gzip.compress(b" " * 30_000_000, 1)),
        reply_with(b"Content-Encoding: deflate\r\n", zlib.compress(b" " * 30_000_000, 1)),
        reply_with(b"Content-Type: text/event-stream\r\n", b"data: " + b" " * 7_000_000),
    ],
)
def test_a_reply_has_a_limit_in_bytes(write):
    with raw_server(write) as (url, _), pytest.raises(UnusableReplyError, match="longer than 270,336 bytes"):
        ChatClient(url, "m", 30, retries=FAST).complete(REQUEST)


@pytest.mark.parametrize(
    ("encoding", "body", "cause"),
    [
        (b"gzip", b"no such thing", "cannot be decompressed"),
        (b"gzip", gzip.compress(WHOLE)[:-20], "not JSON"),
        (b"br", b"\x0b\x02", "not asked for"),
        (b"gzip, gzip", gzip.compress(gzip.compress(WHOLE)), "not asked for"),
    ],
)
def test_a_body_that_cannot_be_decoded_fails_its_request(encoding, body, cause):
    with (
        raw_server(reply_with(b"Content-Encoding: " + encoding + b"\r\n", body)) as (url, _),
        pytest.raises(UnusableReplyError, match=cause),
    ):
        ChatClient(url, "m", 30, retries=FAST).complete(REQUEST)


@pytest.mark.parametrize("encoding", [b"gzip", b"x-gzip", b"GZIP", b"deflate", b"identity"])
def test_a_compressed_reply_is_read(encoding):
    packed = {b"deflate": zlib.compress, b"identity": bytes}.get(encoding, gzip.compress)(WHOLE)
    with raw_server(reply_with(b"Content-Encoding: " + encoding + b"\r\n", packed)) as (url, _):
        assert ChatClient(url, "m", 30, retries=FAST).complete(REQUEST).text == "HELLO"


def test_a_longer_answer_may_have_more_bytes():
    text = "word " * 100_000
    with fake_teacher(lambda seen: Answer(body=completion(text))) as server:
        request = Request(REQUEST.messages, 2000, 0.0, 0)
        assert ChatClient(server.url, "m", 5, retries=FAST).complete(request).text == text


def test_the_body_of_an_error_is_cut_where_it_is_too_long():
    def write(send: Send, stop: threading.Event) -> None:
        send(b"HTTP/1.1 400 No\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000)

    with raw_server(write) as (url, _):
        answer = Connections(url, 1, 5).post("/v1", b"{}", {}, 1000)
    assert (answer.status, answer.content) == (400, b"x" * 1000)
