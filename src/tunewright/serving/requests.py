"""What a client may ask, as OpenAI's chat completions have it; what is not supported is refused, never ignored."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from tunewright.models.generation import MAX_NEW_TOKENS
from tunewright.records import Message
from tunewright.settings import Arm

MODEL = str(Arm.TUNED)


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
    asked = json.loads(content)
    _refuse_unsupported(asked, ChatRequest, _IDLE, _HARMLESS)
    for turn in asked["messages"]:
        _refuse_unsupported(turn, _Turn, frozenset({"name"}), {}, "messages: ")
    return request


def _refuse_unsupported(
    given: Mapping[str, Any],
    known: type[BaseModel],
    idle: Collection[str],
    harmless: Mapping[str, Any],
    place: str = "",
) -> None:
    """Refuse what is neither read nor idle, unless its value is empty or asks for what is done anyway."""
    for name, value in given.items():
        empty = value is None or value in ([], {}, "")
        if not (empty or name in known.model_fields or name in idle or (name in harmless and value in harmless[name])):
            raise RequestError(400, "unsupported_parameter", f"{place}{name[:60]} is not supported")


# They name, store or route a request, or make it faster; no answer depends on them.
_IDLE = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
# Values that ask for what is done anyway.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "top_k": (0, -1),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
