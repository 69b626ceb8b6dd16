"""What is said to a teacher and what comes back: Request, Reply, and how a call can go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tunewright.records import Message, digest

Finish = Literal["stop", "length", "other"]


@dataclass(frozen=True)
class Request:
    """One completion to ask for.

    Attributes:
        messages: the chat to go on with; empty when ``raw`` is set.
        max_tokens: the answer is cut there.
        temperature: 0 asks for the likeliest answer.
        seed: of the sampling.
        schema: JSON schema that a chat's answer should follow; servers without schemas are asked without it.
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
        """Return the digest that names this request to this model: the same key, the same answer."""
        turns = [(message.role, message.content) for message in self.messages]
        # Only what is set takes part, so that the journals of older versions go on answering.
        more = {name: value for name, value in (("raw", self.raw), ("stop", self.stop)) if value}
        parts = (model, turns, self.max_tokens, self.temperature, self.seed, self.schema)
        return digest(*parts, more) if more else digest(*parts)


@dataclass(frozen=True)
class Reply:
    """A teacher's answer; ``finish`` is "length" when it was cut at ``max_tokens``, ``seconds`` how long it took."""

    text: str
    finish: Finish
    num_prompt_tokens: int
    num_tokens: int
    seconds: float = field(default=0.0, compare=False)


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
