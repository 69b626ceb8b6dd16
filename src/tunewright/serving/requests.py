"""What a client may ask, as OpenAI's chat completions have it; what is not supported is refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from tunewright.records import Message

MODEL = "tuned"
MAX_NEW_TOKENS = 512  # as in chat


class RequestError(Exception):
    """A request that is refused: with an HTTP status, a code for programs, and a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def body(self) -> dict[str, Any]:
        """Return the error as OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


def _joined(content: Any) -> Any:
    """Return the text of a content in parts; what is not text stays, to be refused."""
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content


class _Turn(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)]


def _or(default: Any) -> BeforeValidator:
    """Take an explicit null as the default."""
    return BeforeValidator(lambda value: default if value is None else value)


class ChatRequest(BaseModel):
    """A chat to continue; greedy where the client does not say otherwise."""

    messages: list[_Turn] = Field(min_length=1)
    model: str = MODEL
    stream: Annotated[bool, _or(False)] = False
    stream_options: Annotated[dict[str, Any], _or({})] = {}
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: Annotated[float, _or(0.0)] = Field(0.0, ge=0, le=2)
    top_p: Annotated[float, _or(1.0)] = Field(1.0, gt=0, le=1)
    presence_penalty: Annotated[float, _or(0.0)] = Field(0.0, ge=-2, le=2)
    frequency_penalty: Annotated[float, _or(0.0)] = Field(0.0, ge=-2, le=2)
    seed: int | None = None
    stop: Annotated[list[str], BeforeValidator(lambda s: [s] if isinstance(s, str) else s or [])] = []

    @property
    def most_tokens(self) -> int:
        """How long the answer may be."""
        return self.max_completion_tokens or self.max_tokens or MAX_NEW_TOKENS

    def conversation(self, system_prompt: str) -> tuple[Message, ...]:
        """Return the turns; without a system turn, the one that the model was trained with comes first."""
        turns = [Message(role="system" if t.role == "developer" else t.role, content=t.content) for t in self.messages]
        if system_prompt and all(turn.role != "system" for turn in turns):
            turns.insert(0, Message(role="system", content=system_prompt))
        return tuple(turns)


def read_request(content: bytes) -> ChatRequest:
    """Return the request.

    Raises:
        RequestError: it is no JSON, misses something, names another model, or asks for what is not supported.
    """
    try:
        request = ChatRequest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RequestError(400, "invalid_request", f"{place or 'body'}: {first['msg']}") from error
    if request.model != MODEL:
        raise RequestError(404, "model_not_found", f"there is no model {request.model!r}; there is {MODEL!r}")
    import json

    asked = json.loads(content)
    for name, harmless in _UNSUPPORTED.items():
        if asked.get(name) not in (None, *harmless):
            raise RequestError(400, "unsupported_parameter", f"{name} is not supported")
    return request


_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "n": (1,),
}
