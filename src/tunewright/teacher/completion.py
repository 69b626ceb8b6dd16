"""One completion on the wire, chat or raw: the request's JSON body, and a reply told apart from nonsense."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewright.teacher.protocol import Finish, Reply, Request


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)
    role: Literal["assistant"] = "assistant"
    content: str | None = None


class _Choice(BaseModel):
    model_config = ConfigDict(strict=True)
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    model_config = ConfigDict(strict=True)
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    model_config = ConfigDict(strict=True)
    choices: list[_Choice]
    usage: _Usage | None = None


class _RawChoice(BaseModel):
    model_config = ConfigDict(strict=True)
    text: str
    finish_reason: str | None = None


class _RawCompletion(BaseModel):
    model_config = ConfigDict(strict=True)
    choices: list[_RawChoice]
    usage: _Usage | None = None


def request_path(request: Request) -> str:
    """Return where a request is posted to, below the server's URL."""
    return "/completions" if request.raw else "/chat/completions"


def request_body(model: str, request: Request, with_schema: bool, extra: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON body of POST /chat/completions, or of /completions for a raw text (which takes no schema)."""
    body: dict[str, Any] = {"model": model}
    if request.raw:
        body["prompt"] = request.raw
    else:
        body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
    body |= {"max_tokens": request.max_tokens, "temperature": request.temperature, "seed": request.seed, **extra}
    if request.stop:
        body["stop"] = list(request.stop)
    if request.schema is not None and with_schema and not request.raw:
        schema = {"name": "reply", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def read_completion(content: bytes, raw: bool = False) -> Reply:
    """Return the reply that a 200's body holds.

    Args:
        content: the body.
        raw: whether it should be that of /completions instead of /chat/completions.

    Raises:
        ValueError: it is no completion; the message says in what.
    """
    completion: _Completion | _RawCompletion
    try:
        completion = (_RawCompletion if raw else _Completion).model_validate(json.loads(content))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not completion.choices:
        raise ValueError("choices: empty")
    choice = completion.choices[0]
    text = choice.text if isinstance(choice, _RawChoice) else choice.message.content
    finishes: dict[str | None, Finish] = {"stop": "stop", "length": "length"}
    finish = finishes.get(choice.finish_reason, "other")
    if text is None and finish == "stop":
        raise ValueError("choices.0.message.content: missing")
    usage = completion.usage or _Usage()
    # Nothing said, but paid for: all tokens went into thought, or a filter or tool took the answer.
    return Reply(text or "", finish, usage.prompt_tokens, usage.completion_tokens)


def error_message(content: bytes) -> str:
    """Return what an error's body says, in one short line."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        told = json.loads(content)
        told = told.get("error", told) if isinstance(told, dict) else told
        told = told.get("message", told) if isinstance(told, dict) else told
        text = told if isinstance(told, str) else json.dumps(told)
    except (ValueError, RecursionError):
        pass
    return " ".join(text.split())[:200]
