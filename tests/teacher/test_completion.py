"""Reading a server's body: whatever it holds, it is a reply, an error of the server, or a ValueError that names the field."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.faulty_server import completion
from tunewright.records import Message
from tunewright.teacher.completion import complaint, error_inside, error_message, read_body, read_reply
from tunewright.teacher.protocol import Reply, Request

CHAT = Request((Message(role="user", content="hello"),), 16, 0.0, 3)
RAW = Request((), 16, 0.0, 3, raw="Once")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(["content", "reasoning", "refusal", "text", "finish_reason", "message", "delta", "error", "code"]),
    VALUES,
    max_size=5,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "choices": VALUES
        | st.lists(FIELDS, max_size=2)
        | st.lists(st.fixed_dictionaries({"message": FIELDS}), max_size=2),
        "usage": VALUES
        | st.dictionaries(
            st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "completion_tokens_details"]), VALUES
        ),
        "error": VALUES | FIELDS,
        "object": VALUES | st.just("error"),
        "detail": VALUES | st.lists(FIELDS, max_size=2),
    },
)


def read_all(content: bytes) -> None:
    error_message(content)
    complaint(content)
    for request in (CHAT, RAW):
        try:
            body = read_body(content)
            inside = error_inside(body)
            assert inside is None or (400 <= inside[0] < 600 and len(inside[1]) <= 200)
            reply = read_reply(body, request)
        except ValueError as error:
            assert str(error)
        else:
            reply.text.encode()
            assert reply.num_tokens >= 0 <= reply.num_prompt_tokens


@given(BODIES | VALUES)
def test_any_json_is_read_or_named(body):
    read_all(json.dumps(body).encode())


@given(st.lists(BODIES | VALUES, max_size=3))
def test_any_stream_is_read_or_named(events):
    read_all(b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) or b"data:")


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_named(content):
    read_all(content)


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"choices": ' + b"[" * 100_000, b'{"error": ' + b'{"a":' * 100_000])
def test_a_deep_body_is_named(deep):
    read_all(deep)


def test_missing_usage_and_finish_are_no_fault():
    assert read_reply({"choices": [{"message": {"content": "x"}}]}, CHAT) == Reply("x", "stop", 0, 0)


@pytest.mark.parametrize(
    ("written", "room", "finish"), [(3, 0, "stop"), (16, 0, "length"), (16, 100, "stop"), (116, 100, "length")]
)
def test_without_a_reason_a_reply_of_all_its_tokens_is_cut(written, room, finish):
    body = completion("x", None)
    body["usage"]["completion_tokens"] = written
    request = Request(CHAT.messages, 16, 0.0, 3, room=room)
    assert read_reply(body, request).finish == finish


def test_reasoning_that_only_the_total_counts_is_counted():
    body = completion("x")
    body["usage"] |= {"total_tokens": 7 + 500}
    assert read_reply(body, CHAT).num_tokens == 500
    body["usage"] = {"prompt_tokens": 7, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 2}}
    assert read_reply(body, CHAT).reasons


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>\n\nb", "b"),
        ("<think>a", ""),
        ("<think></think><think>a", ""),
        ("[THINK]a[/THINK]b", "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "b"),
        ("b", "b"),
    ],
)
def test_the_answer_is_what_follows_the_reasoning(text, answer):
    reply = read_reply(completion(text), CHAT)
    assert (reply.text, reply.reasons) == (answer, answer != text)
