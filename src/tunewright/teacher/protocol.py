"""The types of a call to a teacher: Request, Reply, the error of an unusable reply, and the two protocols."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from tunewright.records import Message, digest

Finish = Literal["stop", "length", "other", "malformed"]


@dataclass(frozen=True)
class Request:
    """A request for one completion.

    Attributes:
        messages: the chat to continue; empty when ``raw`` is set.
        max_tokens: most tokens of the answer; a longer one is cut.
        temperature: 0 takes the likeliest answer.
        seed: of the sampling.
        schema: JSON schema that a chat's answer should follow; it is left out for servers without schemas.
        raw: the exact text to complete, without any chat template.
        stop: texts that end the answer; they are not part of it.
        room: tokens beyond ``max_tokens`` that a server may write, for reasoning before its answer; no part of the key.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    seed: int
    schema: dict[str, Any] | None = None
    raw: str = ""
    stop: tuple[str, ...] = ()
    room: int = 0

    def __post_init__(self) -> None:
        if bool(self.raw) == bool(self.messages):
            raise ValueError("a request holds either messages or a raw text")

    def key(self, model: str) -> str:
        """Return the digest of this request to this model; the journal holds one reply per key."""
        turns = [(message.role, message.content) for message in self.messages]
        # Unset fields do not take part, so that the keys in journals of older versions stay valid.
        more = {name: value for name, value in (("raw", self.raw), ("stop", self.stop)) if value}
        parts = (model, turns, self.max_tokens, self.temperature, self.seed, self.schema)
        return digest(*parts, more) if more else digest(*parts)


_TOKENS_PER_TURN = 16  # of the chat template; an upper bound


def most_prompt_tokens(request: Request) -> int:
    """Return an upper bound of a request's prompt tokens: no token of a byte-level vocabulary is less than a byte."""
    texts = [request.raw, *(message.content for message in request.messages)]
    if request.schema is not None:
        texts.append(json.dumps(request.schema))
    num_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return num_bytes + _TOKENS_PER_TURN * (len(request.messages) + 1)


@dataclass(frozen=True)
class Reply:
    """A teacher's answer.

    Attributes:
        text: the answer, without any reasoning before it.
        finish: "length" when the answer was cut at ``max_tokens``, "malformed" when it holds half a surrogate pair.
        num_prompt_tokens: 0, like ``num_tokens``, where the server does not report it in a form that can be true.
        num_tokens: tokens written, reasoning included.
        seconds: how long the call took.
        reasons: whether the model reasoned before it answered.
    """

    text: str
    finish: Finish
    num_prompt_tokens: int
    num_tokens: int
    seconds: float = field(default=0.0, compare=False)
    reasons: bool = field(default=False, compare=False)


class UnusableReplyError(Exception):
    """One request got no usable reply, retries included; other requests may. Never shown to a user as it is.

    Args:
        cause: what happened.
        hint: what the user may do about it; "" for nothing in particular.
    """

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause)
        self.hint = hint


REASONING_TOKENS = 4096  # room for a model that reasons before it answers


@dataclass(frozen=True)
class Dialect:
    """How a server has to be asked, where that differs from the default.

    Attributes:
        changes: what is done differently, in words, and the server's words that were the cause.
        room: tokens for reasoning, beyond those of the answer.
    """

    changes: Mapping[str, str] = field(default_factory=dict)
    room: int = 0

    def changed(self, changes: Sequence[str], cause: str) -> Dialect:
        """Return the dialect with further changes."""
        return replace(self, changes={**self.changes, **dict.fromkeys(changes, cause)})

    @property
    def in_words(self) -> str:
        """All differences in one line; "" for none."""
        parts = [f"{change} ({cause})" for change, cause in self.changes.items()]
        parts += [f"with room for {self.room:,} tokens of reasoning"] if self.room else []
        return ", ".join(parts)


class MoreRoomError(Exception):
    """Nothing was sent: by now the model is known to reason, and the request leaves no room for that."""


class Client(Protocol):
    """A model that completes one request at a time: the HTTP client, or the local model."""

    def complete(self, request: Request) -> Reply:
        """Return the reply; safe to call from several threads.

        Raises:
            UnusableReplyError: this request failed.
            MoreRoomError: send it again with ``room``.
        """

    def stop(self) -> None:
        """Send nothing more, and wake the threads that wait for a retry."""

    @property
    def room(self) -> int:
        """The tokens that reasoning may take beyond a request's own; 0 while the model has not been seen to reason."""

    @property
    def dialects(self) -> Mapping[str, Dialect]:
        """How each server is asked, by its URL, where that differs from the default."""


class TeacherLike(Protocol):
    """A teacher as the stages use it."""

    def ask_all(self, requests: Sequence[Request], label: str) -> list[Reply | None]:
        """Return the replies in the order of the requests; None where a call failed."""
