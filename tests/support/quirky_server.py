"""Servers with the quirks of the field: what each refuses of a request, and how it words a reply."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from support.faulty_server import Answer, Seen, completion

Respond = Callable[[Seen], Answer]
Quirk = Callable[[Respond], Respond]


def refuses(
    is_sent: Callable[[dict[str, Any]], bool], message: object, status: int = 400, *, whole: bool = False
) -> Quirk:
    """A server that refuses what ``is_sent`` finds in a body; ``whole``: the message is the whole body."""

    def quirk(then: Respond) -> Respond:
        def respond(seen: Seen) -> Answer:
            if is_sent(seen.body):
                return Answer(status, message if whole else {"error": {"message": message, "type": "invalid_request"}})
            return then(seen)

        return respond

    return quirk


def sends(*fields: str) -> Callable[[dict[str, Any]], bool]:
    return lambda body: any(field in body for field in fields)


def sends_system(body: dict[str, Any]) -> bool:
    return any(turn["role"] == "system" for turn in body.get("messages", ()))


def is_cold(body: dict[str, Any]) -> bool:
    return body.get("temperature") not in (None, 1)


def both(*quirks: Quirk) -> Quirk:
    """The quirks of all of them, the first one first."""

    def quirk(then: Respond) -> Respond:
        for one in reversed(quirks):
            then = one(then)
        return then

    return quirk


def rewords(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Quirk:
    """A server whose replies ``change(body of the reply, its first choice)`` alters, or takes the place of."""

    def quirk(then: Respond) -> Respond:
        def respond(seen: Seen) -> Answer:
            answer = then(seen)
            if answer.status != 200:
                return answer
            body = json.loads(json.dumps(answer.body))
            changed = change(body, body["choices"][0])
            return Answer(body=body if changed is None else changed)

        return respond

    return quirk


def says(before: str, after: str = "") -> Quirk:
    """A server that adds text around each answer."""

    def change(body: dict[str, Any], choice: dict[str, Any]) -> None:
        choice["message"]["content"] = before + choice["message"]["content"] + after

    return rewords(change)


def ends_with(reason: object) -> Quirk:
    return rewords(lambda body, choice: choice.update(finish_reason=reason))


def counts(usage: object) -> Quirk:
    return rewords(lambda body, choice: body.update(usage=usage))


def has_role(role: object) -> Quirk:
    return rewords(lambda body, choice: choice["message"].update(role=role))


def thinks_first(most_tokens: int = 600, field: str = "reasoning") -> Quirk:
    """A reasoning model: an answer of fewer tokens is cut before it begins."""

    def quirk(then: Respond) -> Respond:
        def respond(seen: Seen) -> Answer:
            if seen.body.get("reasoning_effort") == "none" or seen.body.get("max_tokens", 9999) >= most_tokens:
                return then(seen)
            cut = completion("", "length")
            cut["choices"][0]["message"][field] = "Okay, the user wants"
            cut["usage"]["completion_tokens"] = seen.body["max_tokens"]
            return Answer(body=cut)

        return respond

    return quirk


def only_at(path: str, otherwise: Answer) -> Quirk:
    """A server that knows one path."""

    def quirk(then: Respond) -> Respond:
        return lambda seen: then(seen) if seen.path == path else otherwise

    return quirk


def as_stream(body: dict[str, Any], choice: dict[str, Any]) -> bytes:
    """The same reply as server-sent events."""
    text = choice["message"]["content"]
    half = len(text) // 2
    deltas = [{"choices": [{"delta": {"content": piece}}]} for piece in (text[:half], text[half:])]
    events = [*deltas, {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": body["usage"]}]
    lines = [": a comment", *(f"data: {json.dumps(event)}" for event in events), "data: [DONE]"]
    return "\n\n".join(lines).encode() + b"\n\n"


def in_fence(body: dict[str, Any], choice: dict[str, Any]) -> None:
    choice["message"]["content"] = f"Sure! Here it is:\n```json\n{choice['message']['content']}\n```\nLet me know!"


_UNSUPPORTED = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
)
_NEW_LIMIT = refuses(sends("max_tokens"), _UNSUPPORTED)
_WARM_ONLY = refuses(
    is_cold, "Unsupported value: 'temperature' does not support 0.0. Only the default (1) is supported."
)
_EXTRA = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}

# Each with the most calls that it may waste.
QUIRKS: dict[str, tuple[Quirk, int]] = {
    "max_tokens": (_NEW_LIMIT, 1),
    "temperature": (_WARM_ONLY, 1),
    "both of them": (both(_NEW_LIMIT, _WARM_ONLY), 2),
    "temperature out of range, 422": (
        refuses(lambda b: b.get("temperature") == 0, "`temperature` must be strictly positive", 422),
        1,
    ),
    "seed, 422": (refuses(sends("seed"), {**_EXTRA, "input": {"temperature": 0}}, 422, whole=True), 1),
    "seed inside a message": (refuses(sends("seed"), {"object": "error", "message": _EXTRA}, 422, whole=True), 1),
    "seed, unknown field": (
        refuses(sends("seed"), b"Failed to deserialize the JSON body: unknown field `seed` at line 1", 422, whole=True),
        1,
    ),
    "something unnamed": (refuses(sends("seed"), {"error": "bad request"}, whole=True), 2),
    "schema, 400": (refuses(sends("response_format"), "'response_format.type' must be 'text'"), 1),
    "schema, 422": (
        refuses(sends("response_format"), {"detail": "response_format json_schema is not supported"}, 422, whole=True),
        1,
    ),
    "schema, 500": (refuses(sends("response_format"), "grammar could not be built", 500), 1),
    "schema, 500 without words": (refuses(sends("response_format"), b"", 500, whole=True), 2),
    "schema, 501": (refuses(sends("response_format"), "not implemented", 501), 1),
    "system role": (refuses(sends_system, "System role not supported"), 1),
    "system role, 500": (refuses(sends_system, "Conversation roles must alternate user/assistant/user", 500), 1),
    "stream only": (refuses(lambda b: not b.get("stream"), "This model only supports stream mode"), 1),
    "a stream": (rewords(as_stream), 0),
    "no /v1": (only_at("/v1/chat/completions", Answer(404, {"detail": "Not Found"})), 1),
    "no /v1, 200": (
        only_at("/v1/chat/completions", Answer(200, {"error": "Unexpected endpoint or method. (POST /chat)"})),
        1,
    ),
    "think block": (says("<think>\nThe user wants a question. What about it?\n</think>\n\n"), 0),
    "end of a think block": (says("Okay, the user wants a question?\n</think>\n\n"), 0),
    "another think block": (says("[THINK]What?[/THINK]"), 0),
    "reasoning beside": (rewords(lambda b, c: c["message"].update(reasoning_content="thinking about it")), 0),
    "cut in its reasoning": (thinks_first(), 1),
    "cut in its think block": (thinks_first(field="thinking"), 1),
    "parts": (
        rewords(lambda b, c: c["message"].update(content=[{"type": "text", "text": c["message"]["content"]}])),
        0,
    ),
    "fence": (rewords(in_fence), 0),
    **{f"ends with {reason}": (ends_with(reason), 0) for reason in (None, "", "eos", "eos_token", "end_turn", "STOP")},
    **{f"role {role}": (has_role(role), 0) for role in (None, "bot", "model")},
    **{
        f"usage {usage}": (counts(usage), 0)
        for usage in (
            None,
            "many",
            [],
            {"prompt_tokens": None, "completion_tokens": None},
            {"prompt_tokens": 50.0, "completion_tokens": 20.0},
            {"prompt_tokens": "50", "completion_tokens": "20"},
            {"prompt_tokens": -50, "completion_tokens": -20},
            {"prompt_tokens": 10**30, "completion_tokens": 10**30},
            {"prompt_tokens": 1e400, "completion_tokens": float("nan")},
        )
    },
}
