"""What a server refuses of a request, by its own words, and how it is asked instead."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from tunewright.teacher.protocol import Request

AT_V1 = "at the URL with /v1 added"
_MAX_COMPLETION = "with max_completion_tokens in place of max_tokens"
_MAX_TOKENS = "with max_tokens again"  # a remembered server that was replaced by another
_NO_TEMPERATURE = "without temperature"
_NO_SEED = "without seed"
_NO_STOP = "without stop texts"
_NO_SCHEMA = "without the JSON schema, which the prompt alone describes"
_MERGED = "with the system text in the first user turn"
_STREAM = "as a stream"
_LOW_EFFORT = 'with reasoning_effort "low" in place of "none"'
_NO_EFFORT = "without reasoning_effort"
_NO_TEMPLATE_SETTINGS = "without chat_template_kwargs"

# A request that is too large names max_tokens too, and is no refusal of the field.
_TOO_LARGE = re.compile(r"context|too (?:long|large|many)|exceed|at most|maximum|max_model_len|greater than", re.I)
_REFUSED = (400, 422, 501)
_MOST_FAILURES = 2  # of one change at one server; then it is not the cause
_FAILURES_BEFORE_GUESS = 2  # with status 500, which may pass


def request_body(
    model: str, request: Request, changes: Collection[str], extra: dict[str, Any], reasoning: bool = True
) -> dict[str, Any]:
    """Return the JSON body of POST /chat/completions, or of /completions for a raw text, which takes no schema.

    Args:
        model: the model's name at the server.
        request: what to send.
        changes: how the server has to be asked, where that differs from the default.
        extra: further fields.
        reasoning: False asks the server to answer without reasoning first.
    """
    body: dict[str, Any] = {"model": model}
    if request.raw:
        body["prompt"] = request.raw
    else:
        body["messages"] = _messages(request, merged=_MERGED in changes)
    limit = "max_completion_tokens" if _MAX_COMPLETION in changes and _MAX_TOKENS not in changes else "max_tokens"
    body[limit] = request.max_tokens + request.room
    if _NO_TEMPERATURE not in changes:
        body["temperature"] = request.temperature
    if _NO_SEED not in changes:
        body["seed"] = request.seed
    body |= extra
    if request.stop and _NO_STOP not in changes:
        body["stop"] = list(request.stop)
    if request.schema is not None and not request.raw and _NO_SCHEMA not in changes:
        schema = {"name": "reply", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if _STREAM in changes:
        body["stream"] = True
    if not reasoning and not request.raw:
        if _NO_EFFORT not in changes:
            body["reasoning_effort"] = "low" if _LOW_EFFORT in changes else "none"
        if _NO_TEMPLATE_SETTINGS not in changes:
            body["chat_template_kwargs"] = {"enable_thinking": False}
    return body


def _messages(request: Request, merged: bool) -> list[dict[str, str]]:
    turns = [{"role": message.role, "content": message.content} for message in request.messages]
    if not merged or len(turns) < 2 or turns[0]["role"] != "system":
        return turns
    first = {"role": turns[1]["role"], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
    return [first, *turns[2:]]


def _sends(field: str) -> Callable[[dict[str, Any]], bool]:
    return lambda body: field in body


def _sends_system(body: dict[str, Any]) -> bool:
    turns = body.get("messages") or [{}]
    return len(turns) > 1 and turns[0].get("role") == "system"


@dataclass(frozen=True)
class _Way:
    """One way to ask otherwise.

    Attributes:
        change: its name, in words.
        is_sent: whether a body holds what the change avoids.
        words: how servers name that.
    """

    change: str
    is_sent: Callable[[dict[str, Any]], bool]
    words: re.Pattern[str]


_WAYS = tuple(
    _Way(change, is_sent, re.compile(words, re.I))
    for change, is_sent, words in (
        (_MAX_COMPLETION, _sends("max_tokens"), r"max_(?:completion_)?tokens"),
        (_MAX_TOKENS, _sends("max_completion_tokens"), r"max_completion_tokens"),
        (_NO_TEMPERATURE, _sends("temperature"), r"temperature"),
        (_NO_SEED, _sends("seed"), r"\bseed\b"),
        (_NO_STOP, _sends("stop"), r"\bstop\b"),
        (_NO_SCHEMA, _sends("response_format"), r"response_?format|schema|grammar|structured|guided|json mode"),
        (
            _MERGED,
            _sends_system,
            r"system[ -](?:role|prompt|message|instruction|turn)|\broles?\b.{0,40}\bsystem|['\"]system['\"]"
            r"|must alternate|only user|developer instruction",
        ),
        (_STREAM, lambda body: "stream" not in body, r"\bstream"),
        (_NO_TEMPLATE_SETTINGS, _sends("chat_template_kwargs"), r"chat_template|enable_thinking"),
        (_LOW_EFFORT, lambda body: body.get("reasoning_effort") == "none", r"reasoning|effort|think"),
        (_NO_EFFORT, lambda body: body.get("reasoning_effort") == "low", r"reasoning|effort|think"),
    )
)


@dataclass(frozen=True)
class Change:
    """A change to try after a refusal: its parts, and whether the server's words name the cause."""

    parts: tuple[str, ...]
    is_named: bool


class Refusals:
    """The changes that did not help at one server. Threads share it without a lock: a lost count costs one call."""

    def __init__(self) -> None:
        self._failures: Counter[tuple[str, ...]] = Counter()
        self._num_500 = 0

    def change(self, status: int, words: str, body: dict[str, Any], is_proven: bool) -> Change | None:
        """Return the change to try next, or None.

        Args:
            status: of the refusal.
            words: of the refusal, see :func:`tunewright.teacher.completion.complaint`.
            body: the body that was refused.
            is_proven: whether the server has answered a request of this form.
        """
        if status not in (*_REFUSED, 500):
            return None
        too_large = bool(_TOO_LARGE.search(words))
        named = [
            (match.start(), way.change)
            for way in _WAYS
            if way.is_sent(body)
            and (match := way.words.search(words))
            and not (too_large and way.change in (_MAX_COMPLETION, _MAX_TOKENS))
        ]
        if named:  # the first that is named: some servers go on to advise
            change = Change((min(named)[1],), True)
            return change if self._failures[change.parts] < _MOST_FAILURES else None
        if too_large or is_proven:
            return None
        return self._guess(status, body)

    def _guess(self, status: int, body: dict[str, Any]) -> Change | None:
        """Return a change where the server names no cause: without the schema, then without all that is optional."""
        self._num_500 += status == 500
        if status == 500 and ("response_format" not in body or self._num_500 < _FAILURES_BEFORE_GUESS):
            return None
        optional = [way.change for way in _WAYS if way.change in (_NO_TEMPERATURE, _NO_SEED) and way.is_sent(body)]
        guesses: list[tuple[tuple[str, ...], int]] = (
            [((_NO_SCHEMA,), _MOST_FAILURES)] if "response_format" in body else []
        )
        guesses += [(tuple(optional), 1)] if optional and status != 500 else []
        return next((Change(parts, False) for parts, most in guesses if self._failures[parts] < most), None)

    def failed(self, change: Change) -> None:
        """Record a change after which the server refuses the request as before."""
        self._failures[change.parts] += 1

    @staticmethod
    def names(change: Change, words: str) -> bool:
        """Return whether a refusal still names the cause of a change; a low effort is one step of two."""
        return any(
            way.change in change.parts and way.change != _LOW_EFFORT and way.words.search(words) for way in _WAYS
        )


def smaller_room(room: int, status: int, words: str) -> int:
    """Return the room for reasoning to try after a refusal: half, where the request is too large; else as before."""
    return room // 2 if room > 1 and status in _REFUSED and _TOO_LARGE.search(words) else room


def cut_at_stop(text: str, stop: Collection[str]) -> str:
    """Return the text before the first stop text, for servers that take none."""
    ends = [end for end in (text.find(mark) for mark in stop) if end >= 0]
    return text[: min(ends)] if ends else text
