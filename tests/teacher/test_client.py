from __future__ import annotations

import socket
import threading
import time
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from support.faulty_server import Answer, completion, echo, fake_teacher, in_turn, raw_completion
from tunewright.errors import TeacherError, UserError
from tunewright.records import Message
from tunewright.teacher.client import ChatClient, Retries
from tunewright.teacher.endpoint import Fault, retry_after_s
from tunewright.teacher.protocol import Reply, Request, UnusableReplyError

FAST = Retries(first_wait_s=0.001, longest_wait_s=0.002)


def ask(text: str = "hello", **changes: object) -> Request:
    return replace(Request((Message(role="user", content=text),), 16, 0.0, 3), **changes)


def client(url: str, timeout_s: float = 5, **kwargs: object) -> ChatClient:
    return ChatClient(url, "some-model", timeout_s, retries=FAST, **kwargs)


def test_a_reply_and_the_body_that_was_sent():
    with fake_teacher() as server:
        reply = client(server.url + "/", api_key="sesame", extra={"cache_prompt": False}).complete(ask())
        assert reply == Reply("HELLO", "stop", 7, 3)
        sent = server.seen[0]
    assert sent.path == "/v1/chat/completions"
    assert sent.headers["Authorization"] == "Bearer sesame"
    assert sent.body == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 16,
        "temperature": 0.0,
        "seed": 3,
        "cache_prompt": False,
    }


@pytest.mark.parametrize(("reason", "finish"), [("stop", "stop"), ("length", "length"), ("content_filter", "other")])
def test_finish_is_passed_on(reason, finish):
    with fake_teacher(lambda seen: Answer(body=completion("cut", reason))) as server:
        assert client(server.url).complete(ask()).finish == finish


@pytest.mark.parametrize(
    "bad",
    [
        Answer(429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}),
        Answer(429, {"error": {"message": "slow down"}}),
        Answer(500, b"oops"),
        Answer(503, b"", {"Retry-After": "0"}),
        Answer(200, b'{"choices": [{"message": {"con'),
        Answer(200, {"choices": []}),
        Answer(200, {"choices": [{"message": {"role": "assistant", "content": 3}, "finish_reason": "stop"}]}),
        Answer(200, {"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}]}),
        Answer(200, ["nothing"]),
        Answer(200, b"<html>a proxy's page</html>"),
    ],
)
def test_a_passing_fault_is_retried(bad):
    with fake_teacher(in_turn(bad, bad)) as server:
        assert client(server.url).complete(ask()).text == "HELLO"
        assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Answer(500, {"error": {"message": "out of memory"}}), "500.*out of memory"),
        (Answer(200, b'{"choices": [{"me'), "not JSON"),
        (Answer(200, {"choices": [{"message": {"content": 3}}]}), "choices.0.message.content"),
        (Answer(200, {}), "choices: Field required"),
    ],
)
def test_lasting_nonsense_fails_its_request_after_bounded_tries(bad, reason):
    with fake_teacher(lambda seen: bad) as server:
        with pytest.raises(UnusableReplyError, match=reason):
            client(server.url).complete(ask())
        assert len(server.seen) == FAST.broken


def test_a_request_that_is_rejected_is_not_repeated():
    with fake_teacher(lambda seen: Answer(400, {"error": "context length exceeded"})) as server:
        with pytest.raises(UnusableReplyError, match="400.*context length"):
            client(server.url).complete(ask())
        assert len(server.seen) == 1


def test_an_endless_429_is_a_pause_until_patience_ends():
    shown: list[str] = []
    with fake_teacher(lambda seen: Answer(429, {"error": {"message": "quota"}})) as server:
        with pytest.raises(TeacherError, match="has been busy") as caught:
            client(server.url, patience_s=0.3, show=shown.append).complete(ask())
        assert len(server.seen) > 20  # far more often than a request that fails is tried
    assert "quota" in caught.value.cause
    assert "resume" in caught.value.hint
    assert shown[0].startswith("paused: the server says it is busy; next try in ")


def test_after_a_pause_the_calls_continue_and_the_note_disappears():
    shown: list[str] = []
    with fake_teacher(in_turn(*[Answer(status) for status in (429, 503, 529) * 10])) as server:
        assert client(server.url, show=shown.append).complete(ask()).text == "HELLO"
        assert len(server.seen) == 31
    assert "paused" in shown[0]
    assert shown[-1] == ""


def test_a_pause_holds_back_every_request():
    with fake_teacher(lambda seen: Answer(429)) as server:
        shared = ChatClient(server.url, "m", 5, retries=Retries(first_wait_s=20, longest_wait_s=20))
        pace = shared._servers[0][1]
        for _ in range(2):  # two rounds of refusals, nothing answered between
            _, sent_at = shared._take("chat", -1, 0.0)
            shared._end_first_call(0, "chat")
            shared._failed(pace, Fault("busy", "429"), sent_at, time.monotonic())
        started = threading.Event()

        def other() -> None:
            started.set()
            with pytest.raises(UnusableReplyError, match="stopped"):
                shared.complete(ask())

        thread = threading.Thread(target=other)
        thread.start()
        started.wait()
        time.sleep(0.1)
        assert server.seen == []
        assert thread.is_alive()
        shared.stop()
        thread.join()


def test_a_wait_that_is_too_long_is_not_slept_out():
    with (
        fake_teacher(lambda seen: Answer(429, {}, {"Retry-After": "86400"})) as server,
        pytest.raises(TeacherError, match="86,400 s"),
    ):
        client(server.url).complete(ask())


def test_a_requested_pause_holds_back_every_request():
    sent: list[float] = []

    def respond(seen):
        sent.append(time.monotonic())
        return Answer(429, {}, {"Retry-After": "1"}) if len(sent) == 1 else echo(seen)

    with fake_teacher(respond) as server:
        shared = client(server.url)
        first = threading.Thread(target=shared.complete, args=(ask("first"),))
        first.start()
        while not shared._servers[0][1].not_before:
            time.sleep(0.005)
        shared.complete(ask("second"))
        first.join()
    assert len(sent) == 3
    assert min(sent[1:]) - sent[0] >= 0.9  # neither was sent before the second of the pause


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "denies access"), (403, "denies access"), (404, "no chat completions"), (307, "redirects")],
)
def test_a_fault_that_no_retry_fixes_stops_at_once(status, reason):
    with fake_teacher(lambda seen: Answer(status, {"error": {"message": "no"}}, {"Location": "/x"})) as server:
        with pytest.raises(UserError, match=reason) as caught:
            client(server.url).complete(ask())
        assert len(server.seen) == 1
        assert caught.value.hint


def test_the_key_is_neither_printed_nor_sent_elsewhere():
    with fake_teacher() as other:
        answer = Answer(307, {}, {"Location": f"{other.url}/chat/completions"})
        with fake_teacher(lambda seen: answer) as server, pytest.raises(UserError) as caught:
            client(server.url, api_key="sesame").complete(ask())
        assert other.seen == []
    assert "sesame" not in str(caught.value)


def test_a_server_elsewhere_is_called_through_the_proxy_of_the_environment(monkeypatch):
    with fake_teacher() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert client("http://models.example/v1?a=b", api_key="sesame").complete(ask()).text == "HELLO"
        seen = proxy.seen[0]
    assert seen.path == "http://models.example/v1/chat/completions?a=b"
    assert (seen.headers["Host"], seen.headers["Authorization"]) == ("models.example", "Bearer sesame")


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_gets_its_own_password_and_no_other(monkeypatch, scheme):
    with fake_teacher() as proxy:
        host = proxy.url.removeprefix("http://").removesuffix("/v1")
        monkeypatch.setenv("http_proxy", f"{scheme}me:pass%2Fword@{host}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert client("http://models.example/v1", api_key="sesame").complete(ask()).text == "HELLO"
        headers = proxy.seen[0].headers
    assert headers["proxy-authorization"] == "Basic " + b64encode(b"me:pass/word").decode()
    assert headers["Authorization"] == "Bearer sesame"


@pytest.mark.parametrize(
    "proxy", ["socks5://me:canary@host:9", "http://me:can?canary@host", "http://me:canary@host:999999"]
)
def test_a_proxy_that_cannot_be_used_is_no_defect_and_not_repeated(monkeypatch, proxy):
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(UserError, match="proxy for https") as refused:
        client("https://models.example/v1")
    assert "can" not in str(refused.value).replace("cannot", "")


def test_a_refused_connection_ends_in_a_single_error():
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(TeacherError, match="cannot reach"):
            client(f"http://127.0.0.1:{taken.getsockname()[1]}/v1").complete(ask())


def test_a_hanging_server_fails_the_request():
    with fake_teacher(lambda seen: Answer(hang=True)) as server:
        with pytest.raises(UnusableReplyError, match="timeout_s"):
            client(server.url, timeout_s=0.1).complete(ask())
        assert len(server.seen) == FAST.timeout


def test_stop_wakes_a_client_that_waits():
    with fake_teacher(lambda seen: Answer(429, {}, {"Retry-After": "200"})) as server:
        waiting = client(server.url)
        timer = threading.Timer(0.1, waiting.stop)
        timer.start()
        with pytest.raises(UnusableReplyError, match="stopped"):
            waiting.complete(ask())
        assert len(server.seen) == 1


def test_a_raw_text_is_completed_as_it_is():
    with fake_teacher(lambda seen: Answer(body=raw_completion(" went on", "length"))) as server:
        request = Request((), 16, 0.5, 3, schema={"type": "object"}, raw="<|user|>\nOnce", stop=("\n", "<|user|>"))
        reply = client(server.url).complete(request)
        assert reply == Reply(" went on", "length", 7, 3)
        assert reply.seconds > 0
        sent = server.seen[0]
    assert sent.path == "/v1/completions"
    assert sent.body == {
        "model": "some-model",
        "prompt": "<|user|>\nOnce",
        "max_tokens": 16,
        "temperature": 0.5,
        "seed": 3,
        "stop": ["\n", "<|user|>"],
    }


def test_a_chat_reply_to_a_raw_request_is_nonsense():
    with fake_teacher(lambda seen: Answer(body=completion("chat"))) as server:
        with pytest.raises(UnusableReplyError, match="choices.0.text"):
            client(server.url).complete(Request((), 16, 0.0, 3, raw="Once"))
        assert len(server.seen) == FAST.broken


def test_a_request_is_either_chat_or_raw():
    with pytest.raises(ValueError, match="either"):
        Request((), 16, 0.0, 3)
    with pytest.raises(ValueError, match="either"):
        ask(raw="Once")


@pytest.mark.parametrize(("key", "sent"), [("Basic bWU6c2VAY3JldA==", "Basic bWU6c2VAY3JldA=="), ("s", "Bearer s")])
def test_a_key_is_sent_as_a_bearer_token_or_as_the_user_and_password_that_it_holds(key, sent):
    with fake_teacher() as server:
        ChatClient(server.url, "m", 5, key).complete(ask())
        assert server.seen[0].headers["Authorization"] == sent


SCHEMA = {"type": "object"}


def test_a_schema_is_sent_as_response_format():
    with fake_teacher() as server:
        client(server.url).complete(ask(schema=SCHEMA))
        assert server.seen[0].body["response_format"]["json_schema"]["schema"] == SCHEMA


def test_a_server_without_schemas_gets_none_from_then_on():
    def respond(seen):
        return Answer(400, {"error": "unknown field"}) if "response_format" in seen.body else echo(seen)

    with fake_teacher(respond) as server:
        shared = client(server.url)
        assert shared.complete(ask(schema=SCHEMA)).text == "HELLO"
        assert shared.complete(ask("again", schema=SCHEMA)).text == "AGAIN"
        assert ["response_format" in seen.body for seen in server.seen] == [True, False, False]


def test_a_400_for_another_reason_does_not_switch_schemas_off():
    with fake_teacher(in_turn(*[Answer(400, {"error": "not today"})] * 2)) as server:
        shared = client(server.url)
        with pytest.raises(UnusableReplyError):
            shared.complete(ask(schema=SCHEMA))
        shared.complete(ask("again", schema=SCHEMA))
        assert "response_format" in server.seen[-1].body


def test_retry_after_in_seconds_or_as_a_date():
    assert retry_after_s("2.5") == 2.5
    assert retry_after_s("-3") == 0
    assert retry_after_s(None) is None
    assert retry_after_s("soon") is None
    assert retry_after_s("nan") == 0
    assert (
        retry_after_s("inf") == retry_after_s("1e300") == retry_after_s("Fri, 31 Dec 9999 23:59:59 GMT") == 31_536_000
    )
    assert retry_after_s("Mon, 99 Foo 99999999999 99:99:99 +9999999999") is None
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < (retry_after_s(in_a_minute) or 0) <= 60
