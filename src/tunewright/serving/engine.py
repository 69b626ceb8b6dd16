"""Engines, which continue token ids, and the one that sends them to another program's address."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunewright.serving.requests import ChatRequest, RequestError
from tunewright.settings import Arm

MAX_REQUEST_S = 900.0  # with the wait for those before it; a large model on a CPU is slow
WAITING = 64  # requests in progress or waiting


@dataclass(frozen=True)
class Piece:
    """The next characters of an answer; the last piece has the reason of its end and its number of tokens."""

    text: str
    finish: str | None = None
    num_tokens: int | None = None


class Engine(Protocol):
    """Continues prompts: another program (:class:`Completions`), or the evaluated model in this process.

    Attributes:
        name: the program's.
        keeps_first_space: whether it returns the space before a text that the student's own decoder drops.
    """

    name: str
    keeps_first_space: bool

    def is_healthy(self) -> bool:
        """Return whether it can answer."""

    def answer(self, prompt_ids: list[int], request: ChatRequest) -> Iterator[Piece]:
        """Yield an answer piece by piece; closing the iterator stops the computation.

        Raises:
            RequestError: the prompt does not fit, or the engine fails.
        """


def room_for(prompt_ids: Sequence[int], context: int) -> int:
    """Return how many tokens an answer may have.

    Raises:
        RequestError: the prompt alone fills the context.
    """
    if len(prompt_ids) >= context:
        message = f"the prompt has {len(prompt_ids)} tokens; prompt and answer have room for {context}"
        raise RequestError(400, "context_length_exceeded", message)
    return context - len(prompt_ids)


@dataclass
class Completions:
    """A server of completions (OpenAI's older interface, which takes token ids) that only we use.

    Prompts reach it as tokens from training's own code: no second template, no second tokenizer.

    Args:
        name: "llama.cpp" or "vLLM".
        address: http://host:port.
        key: its API key, so that no other program of this machine gets past our token.
        context: the most tokens of prompt and answer together.
        extra: further fields of each request.
    """

    name: str
    address: str
    key: str
    context: int
    extra: Mapping[str, Any] = field(default_factory=dict)
    keeps_first_space = True

    def __post_init__(self) -> None:
        import urllib3

        timeout = urllib3.Timeout(connect=10.0, read=MAX_REQUEST_S)
        self._http = urllib3.connection_from_url(self.address, maxsize=WAITING, timeout=timeout, retries=False)

    def is_healthy(self) -> bool:
        """Return whether the server reports that it is healthy."""
        import urllib3

        try:
            return bool(
                self._http.request("GET", "/health", timeout=5.0, headers={"Connection": "close"}).status == 200
            )
        except urllib3.exceptions.HTTPError:
            return False

    def answer(self, prompt_ids: list[int], request: ChatRequest) -> Iterator[Piece]:
        """Yield an answer piece by piece; closing the iterator stops the computation.

        Raises:
            RequestError: the prompt does not fit, or the engine fails.
        """
        import urllib3

        room = room_for(prompt_ids, self.context)
        body = {
            "model": Arm.TUNED,
            "prompt": prompt_ids,
            "max_tokens": min(request.max_new_tokens, room),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"seed": request.seed} if request.seed is not None else {}),
            **({"stop": request.stop} if request.stop else {}),
            **self.extra,
        }
        # A new connection: the engine may close a kept one while a request is on its way.
        headers = {"Authorization": f"Bearer {self.key}", "Connection": "close"}
        try:
            response = self._http.request("POST", "/v1/completions", json=body, headers=headers, preload_content=False)
            try:
                if response.status != 200:
                    reply = response.data.decode("utf-8", "replace")[:300]
                    raise RequestError(502, "engine_error", f"{self.name} refuses: {reply}")
                yield from _pieces(response)
            finally:
                response.close()
        except urllib3.exceptions.HTTPError as error:
            raise RequestError(502, "engine_error", f"{self.name} does not answer: {error}") from error


def _pieces(lines: Iterator[bytes]) -> Iterator[Piece]:
    """Yield the pieces of a stream of server-sent events; the last one has the number of tokens."""
    finish, num_tokens = None, None
    for line in lines:
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            continue
        event = json.loads(line[5:])
        if "error" in event:
            raise RequestError(502, "engine_error", str(event["error"])[:300])
        num_tokens = (event.get("usage") or {}).get("completion_tokens", num_tokens)
        for choice in event.get("choices", ()):
            finish = choice.get("finish_reason") or finish
            if choice.get("text"):
                yield Piece(choice["text"])
    if finish is None:
        raise RequestError(502, "engine_error", "the answer broke off")
    yield Piece("", finish, num_tokens)
