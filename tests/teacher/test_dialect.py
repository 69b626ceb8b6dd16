"""What a server refuses is learned by few calls, remembered where it helped, and never learned from another fault."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from support.faulty_server import Answer, completion, echo, fake_teacher, in_turn, raw_completion
from support.quirky_server import QUIRKS, both, is_cold, refuses, sends, thinks_first
from tunewright.errors import TeacherError, UserError
from tunewright.records import Message
from tunewright.run_folder import RunFolder
from tunewright.settings import TeacherSettings
from tunewright.teacher import Request, open_teacher
from tunewright.teacher.client import ChatClient, Retries
from tunewright.teacher.journal import read_dialect
from tunewright.teacher.protocol import Dialect, Reply, UnusableReplyError

FAST = Retries(first_wait_s=0.001, longest_wait_s=0.002)
SCHEMA = {"type": "object"}


def ask(text: str = "hello", **changes: object) -> Request:
    return replace(Request((Message(role="user", content=text),), 16, 0.0, 3), **changes)


def client(url: str, **kwargs: object) -> ChatClient:
    return ChatClient(url, "some-model", 5, retries=FAST, **kwargs)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run")


def test_a_change_is_remembered_with_its_cause():
    quirk, _ = QUIRKS["both of them"]
    with fake_teacher(quirk(echo)) as server:
        shared = client(server.url)
        assert [shared.complete(ask(text)).text for text in ("one", "two")] == ["ONE", "TWO"]
        assert len(server.seen) == 4
        dialect = shared.dialects[server.url]
    assert list(dialect.changes) == ["with max_completion_tokens in place of max_tokens", "without temperature"]
    assert all(cause.startswith("400: Unsupported ") for cause in dialect.changes.values())


def test_the_next_stage_and_the_next_start_know_it(run):
    quirk, _ = QUIRKS["both of them"]
    with fake_teacher(both(quirk, thinks_first())(echo)) as server:
        for number, stage in enumerate(("exam", "synth", "curate"), 1):
            settings = TeacherSettings(url=server.url, model="m", concurrency=4)
            with open_teacher(run.journal("teacher.jsonl"), settings, stage) as teacher:
                teacher.ask_all([ask(f"{stage} {n}", temperature=0.0) for n in range(8)], "asking")
                assert "max_completion_tokens" in str(teacher.notes()["teacher_is_asked"])
            assert len(server.seen) == 2 + 8 * number
    entries = run.journal("teacher.jsonl").entries
    assert [("servers" in entry) for entry in entries].count(True) == 1


@pytest.mark.parametrize("content", [None, 3, {}, {"changes": 3, "room": "x"}, {"changes": {"a": 3}, "room": True}])
def test_what_a_damaged_journal_knows_is_learned_again(content):
    assert read_dialect(content).room == 0


def test_a_change_that_the_server_no_longer_takes_is_taken_back():
    with fake_teacher(refuses(sends("max_completion_tokens"), "unknown field max_completion_tokens")(echo)) as server:
        before = Dialect({"with max_completion_tokens in place of max_tokens": "400"})
        assert client(server.url, dialects={server.url: before}).complete(ask()).text == "HELLO"
        assert len(server.seen) == 2


def test_a_change_that_does_not_help_is_not_remembered():
    def respond(seen) -> Answer:
        return Answer(400, {"error": "temperature of the server room is too high"}) if seen.body else echo(seen)

    with fake_teacher(respond) as server:
        shared = client(server.url)
        for _ in range(4):
            with pytest.raises(UnusableReplyError, match="server room"):
                shared.complete(ask())
        assert len(server.seen) == 4 + 2  # twice it was tried without
        assert not shared.dialects


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 2048 tokens. However, you requested 2200 tokens.",
        "max_tokens is too large: 9000",
        "input is too long: max_tokens must be at most 4",
    ],
)
def test_a_request_that_is_too_large_is_rejected_by_one_call(message):
    with fake_teacher(lambda seen: Answer(400, {"error": {"message": message}})) as server:
        shared = client(server.url)
        with pytest.raises(UnusableReplyError):
            shared.complete(ask(schema=SCHEMA))
        assert len(server.seen) == 1
        assert not shared.dialects


def test_a_passing_failure_teaches_nothing():
    with fake_teacher(in_turn(Answer(500, b"oops"), Answer(429), Answer(502))) as server:
        shared = client(server.url)
        shared.complete(ask(schema=SCHEMA))
        assert "response_format" in server.seen[-1].body
        assert not shared.dialects


def test_a_failure_after_a_schema_was_taken_does_not_switch_schemas_off():
    with fake_teacher() as server:
        shared = client(server.url)
        shared.complete(ask(schema=SCHEMA))
        server.respond = in_turn(*[Answer(500)] * 3)
        shared.complete(ask("again", schema=SCHEMA))
        assert "response_format" in server.seen[-1].body


def test_the_first_call_of_each_form_is_made_alone():
    """Else each of 64 calls under way would find out by itself what the server refuses."""
    quirk, _ = QUIRKS["max_tokens"]
    with fake_teacher(quirk(echo)) as server:
        shared = client(server.url)
        threads = [threading.Thread(target=shared.complete, args=(ask(str(n)),)) for n in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.seen) == 25


def test_each_server_of_a_fleet_is_asked_in_its_own_way():
    with fake_teacher(QUIRKS["max_tokens"][0](echo)) as first, fake_teacher(QUIRKS["seed, 422"][0](echo)) as second:
        shared = ChatClient([first.url, second.url], "m", 5, retries=FAST)
        threads = [threading.Thread(target=shared.complete, args=(ask(str(n)),)) for n in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for server in (first, second):
            if len(server.seen) > 1:  # the other one may have been quicker each time
                assert ("seed" in server.seen[-1].body) == (server is first)
                assert ("max_tokens" in server.seen[-1].body) == (server is second)


def test_stop_texts_that_a_server_refuses_are_applied_here():
    def respond(seen) -> Answer:
        return Answer(body=raw_completion("What is it?\nNothing.<|user|>"))

    refusal = refuses(sends("stop"), "Unsupported parameter: 'stop' is not supported with this model.")
    with fake_teacher(refusal(respond)) as server:
        request = Request((), 16, 0.0, 3, raw="Once", stop=("<|user|>", "\n"))
        assert client(server.url).complete(request).text == "What is it?"
        assert len(server.seen) == 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/"])
def test_a_url_with_the_path_of_a_call_is_cut(path):
    with fake_teacher() as server:
        client(server.url.removesuffix("/v1") + path).complete(ask())
        assert server.seen[0].path == "/v1/chat/completions"


def test_the_path_of_ollama_itself_is_replaced():
    def respond(seen) -> Answer:
        return echo(seen) if seen.path == "/v1/chat/completions" else Answer(405, b"405 method not allowed")

    with fake_teacher(respond) as server:
        assert client(server.url.replace("/v1", "/api")).complete(ask()).text == "HELLO"


@pytest.mark.parametrize(
    ("key", "header", "value"),
    [
        ("sesame", "api-key", "sesame"),
        ("eyJh.eyJi.sig", "Authorization", "Bearer eyJh.eyJi.sig"),
    ],
)
def test_azure_gets_its_query_and_its_own_header(key, header, value):
    with fake_teacher() as server:
        url = server.url.replace("/v1", "/openai/deployments/NAME?api-version=2024-06-01")
        client(url, api_key=key).complete(ask())
        seen = server.seen[0]
    assert seen.path == "/openai/deployments/NAME/chat/completions?api-version=2024-06-01"
    assert seen.headers[header] == value
    assert len({"api-key", "Authorization"} & set(seen.headers)) == 1


def test_a_429_inside_a_200_is_a_pause():
    limit = Answer(200, {"error": {"message": "Provider returned error", "code": 429}})
    shown: list[str] = []
    with fake_teacher(in_turn(*[limit] * 9)) as server:
        assert client(server.url, show=shown.append).complete(ask()).text == "HELLO"
        assert len(server.seen) == 10
    assert shown[0].startswith("paused: the server says it is busy")


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({"error": {"message": "Provider failed", "code": 502}}, UnusableReplyError, "Provider failed"),
        ({"error": "something odd"}, UnusableReplyError, "something odd"),
        ({"error": {"message": "no", "code": "401"}}, UserError, "denies access"),
        ({"error": {"message": "Insufficient credits", "code": 402}}, TeacherError, "no credit"),
        ({"object": "error", "message": "bad", "code": 400}, UnusableReplyError, "bad"),
        ({"choices": [{"error": {"message": "upstream died", "code": 502}}]}, UnusableReplyError, "upstream died"),
        ({"choices": None}, UnusableReplyError, "choices"),
        (b'data: {"error": {"message": "gone", "code": 500}}\n\n', UnusableReplyError, "gone"),
    ],
)
def test_an_error_inside_a_200_is_the_error_that_it_is(body, kind, words):
    with fake_teacher(lambda seen: Answer(200, body)) as server, pytest.raises(kind, match=words):
        client(server.url).complete(ask())


def test_a_quota_that_is_used_up_is_not_waited_for():
    error = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with fake_teacher(lambda seen: Answer(429, error)) as server:
        with pytest.raises(TeacherError, match="no credit"):
            client(server.url).complete(ask())
        assert len(server.seen) == 1


def test_the_room_for_reasoning_is_halved_until_it_fits():
    def respond(seen) -> Answer:
        if seen.body["max_tokens"] > 1500:
            return Answer(400, {"error": "max_tokens=4112 cannot be greater than max_model_len=1500"})
        return echo(seen)

    with fake_teacher(respond) as server:
        shared = client(server.url, dialects={server.url: Dialect(room=4096)})
        assert shared.complete(ask(room=4096)).text == "HELLO"
        assert (len(server.seen), shared.room) == (3, 1024)


@pytest.mark.parametrize(
    ("refused", "sent"),
    [
        ([], {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}}),
        (["chat_template_kwargs"], {"reasoning_effort": "none"}),
        (["none"], {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}),
        (["chat_template_kwargs", "none", "low"], {}),
    ],
)
def test_reasoning_is_switched_off_in_the_ways_that_the_server_takes(refused, sent):
    def respond(seen) -> Answer:
        if "chat_template_kwargs" in refused and "chat_template_kwargs" in seen.body:
            return Answer(400, {"error": "Unrecognized request argument supplied: chat_template_kwargs"})
        if seen.body.get("reasoning_effort") in refused:
            return Answer(400, {"error": "Unsupported value: 'reasoning_effort'"})
        return echo(seen)

    with fake_teacher(respond) as server:
        assert client(server.url, reasoning=False).complete(ask()).text == "HELLO"
        body = server.seen[-1].body
        assert {name: body[name] for name in ("reasoning_effort", "chat_template_kwargs") if name in body} == sent
        assert len(server.seen) == 1 + len(refused)


def test_a_budget_has_room_for_the_reasoning_that_it_pays(run):
    """The highest cost of a call counts the room; a call that may cost more than what is left is not made."""
    with fake_teacher(thinks_first()(echo)) as server:
        settings = TeacherSettings(url=server.url, model="m", price=(0.0, 1000.0), budget=1.0)
        with (
            open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher,
            pytest.raises(TeacherError, match="exceed the budget"),
        ):
            teacher.ask_all([ask()], "asking")
        assert len(server.seen) == 1


def test_a_refusal_is_a_reply_that_is_not_whole():
    body = completion("")
    body["choices"][0]["message"] |= {"content": None, "refusal": "I cannot help with that."}
    with fake_teacher(lambda seen: Answer(body=body)) as server:
        assert client(server.url).complete(ask()) == Reply("", "other", 7, 3)


def test_warm_only_servers_are_learned_once_for_all_forms():
    with fake_teacher(refuses(is_cold, "Unsupported value: 'temperature'")(echo)) as server:
        shared = client(server.url)
        shared.complete(ask())
        shared.complete(ask(schema=SCHEMA))
        assert len(server.seen) == 3
