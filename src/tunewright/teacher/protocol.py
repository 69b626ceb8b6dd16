"""The types of a call to a teacher: Request, Reply, the error of an unusable reply, and the two protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tunewright.records import Message, digest

Finish = Literal["stop", "length", "other"]


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
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    seed: int
    schema: dict[str, Any] | None = None
    raw: str = ""
    stop: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class Reply:
    """A teacher's answer.

    Attributes:
        finish: "length" when the answer was cut at ``max_tokens``.
        seconds: how long the call took.
    """

    text: str
    finish: Finish
    num_prompt_tokens: int
    num_tokens: int
    seconds: float = field(default=0.0, compare=False)


class UnusableReplyError(Exception):
    """One request got no usable reply, retries included; other requests may. Never shown to a user as it is."""


class Client(Protocol):
    """A model that completes one request at a time: the HTTP client, or the local model."""

    def complete(self, request: Request) -> Reply:
        """Return the reply; safe to call from several threads."""

    def stop(self) -> None:
        """Send nothing more, and wake the threads that wait for a retry."""


class TeacherLike(Protocol):
    """A teacher as the stages use it."""

    def ask_all(self, requests: Sequence[Request], label: str) -> list[Reply | None]:
        """Return the replies in the order of the requests; None where a call failed."""
