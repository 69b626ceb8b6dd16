"""What is said to a teacher and what comes back: Request, Reply, and how a call can go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tunewright.records import Message, digest

Finish = Literal["stop", "length", "other"]


@dataclass(frozen=True)
class Request:
    """One chat completion to ask for; ``schema`` is the JSON schema that the reply's text should follow."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    seed: int
    schema: dict[str, Any] | None = None

    def key(self, model: str) -> str:
        """Return the digest that names this request to this model: the same key, the same answer."""
        turns = [(message.role, message.content) for message in self.messages]
        return digest(model, turns, self.max_tokens, self.temperature, self.seed, self.schema)


@dataclass(frozen=True)
class Reply:
    """A teacher's answer; ``finish`` is "length" when it was cut at ``max_tokens``."""

    text: str
    finish: Finish
    num_prompt_tokens: int
    num_tokens: int


class UnusableReplyError(Exception):
    """This one request brought no usable reply, retries included; the next one may. Never shown to a user as it is."""


class Client(Protocol):
    """What asks a model: the HTTP client, or anything else with this shape."""

    def complete(self, request: Request) -> Reply:
        """Return the reply; safe to call from several threads."""

    def stop(self) -> None:
        """Send nothing more, and wake what waits for a retry."""


class Asks(Protocol):
    """What stages see of a teacher."""

    def ask_all(self, requests: Sequence[Request], label: str) -> list[Reply | None]:
        """Return the replies in the order of the requests; None where a call failed."""
