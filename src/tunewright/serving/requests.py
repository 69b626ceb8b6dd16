"""Requests in OpenAI's form of chat completions; unsupported options are refused, never ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from tunewright.models.generation import MAX_NEW_TOKENS
from tunewright.records import Message
from tunewright.settings import Arm

MODEL = str(Arm.TUNED)


class RequestError(Exception):
    """A refused request: an HTTP status, a code for programs, and a message for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def body(self) -> dict[str, Any]:
        """Return the error as OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


def _joined(content: Any) -> Any:
    """Return the text of a content in parts; other content stays, to be refused."""
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        texts = [part.get("text", "") for part in content]
        return "".join(texts) if all(isinstance(text, str) for text in texts) else content
    return content


_MAX_TURNS = 2048
_MAX_CONTENT_CHARS = 2_000_000
_MAX_STOPS, _MAX_STOP_CHARS = 16, 256  # each stop is searched for behind every token
_INT64 = 2**63  # what engines take as a seed


class _Turn(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined), Field(max_length=_MAX_CONTENT_CHARS)]


def _or(default: Any) -> BeforeValidator:
    """Take an explicit null as the default."""
    return BeforeValidator(lambda value: default if value is None else value)


class ChatRequest(BaseModel):
    """A chat to continue; greedy by default. Every field has a limit, so that it costs no more than its answer."""

    model_config = ConfigDict(allow_inf_nan=False, strict=True)  # "yes" is no number, and true is none

    messages: list[_Turn] = Field(min_length=1, max_length=_MAX_TURNS)
    model: str = Field(MODEL, max_length=256)
    stream: Annotated[bool, _or(False)] = False
    stream_options: Annotated[dict[str, Any], _or({}), Field(max_length=16)] = {}
    max_tokens: int | None = Field(None, ge=1, lt=_INT64)
    max_completion_tokens: int | None = Field(None, ge=1, lt=_INT64)
    temperature: Annotated[float, _or(0.0)] = Field(0.0, ge=0, le=2)
    top_p: Annotated[float, _or(1.0)] = Field(1.0, gt=0, le=1)
    presence_penalty: Annotated[float, _or(0.0)] = Field(0.0, ge=-2, le=2)
    frequency_penalty: Annotated[float, _or(0.0)] = Field(0.0, ge=-2, le=2)
    seed: int | None = Field(None, ge=-_INT64, lt=_INT64)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=_MAX_STOP_CHARS)]],
        BeforeValidator(lambda s: [s] if isinstance(s, str) else s or []),
        Field(max_length=_MAX_STOPS),
    ] = []

    @property
    def max_new_tokens(self) -> int:
        """The most tokens of the answer."""
        return self.max_completion_tokens or self.max_tokens or MAX_NEW_TOKENS

    def conversation(self, system_prompt: str) -> tuple[Message, ...]:
        """Return the turns; without a system turn, the system prompt of the training comes first."""
        turns = [Message(role="system" if t.role == "developer" else t.role, content=t.content) for t in self.messages]
        if system_prompt and all(turn.role != "system" for turn in turns):
            turns.insert(0, Message(role="system", content=system_prompt))
        return tuple(turns)


def read_request(content: bytes) -> ChatRequest:
    """Return the request.

    Raises:
        RequestError: it is not JSON, lacks a field, names another model, or uses an unsupported option.
    """
    try:
        request = ChatRequest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RequestError(400, "invalid_request", f"{field or 'body'}: {first['msg']}") from error
    if request.model != MODEL:
        raise RequestError(404, "model_not_found", f"there is no model {request.model!r}; there is {MODEL!r}")
    fields = from_json(content)  # as pydantic reads it: Python's own refuses numbers of 4,300 digits
    _refuse_unsupported(fields, ChatRequest, _IDLE, _HARMLESS)
    for turn in fields["messages"]:
        _refuse_unsupported(turn, _Turn, frozenset({"name"}), {}, "messages: ")
    return request


def _refuse_unsupported(
    fields: Mapping[str, Any],
    model: type[BaseModel],
    idle: Collection[str],
    harmless: Mapping[str, Any],
    prefix: str = "",
) -> None:
    """Refuse a field that is neither read nor idle, unless its value is empty or the default behavior."""
    for name, value in fields.items():
        empty = value is None or value in ([], {}, "")
        if not (empty or name in model.model_fields or name in idle or (name in harmless and value in harmless[name])):
            raise RequestError(400, "unsupported_parameter", f"{prefix}{name[:60]} is not supported")


# Fields that name, store, route or speed up a request; no answer depends on them.
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
# Values that ask for the default behavior.
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
