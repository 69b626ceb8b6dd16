"""Reading a server's body: the reply, the usage, an error inside a 200, a stream, and an error's message."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewright.teacher.protocol import Finish, Reply, Request, most_prompt_tokens
from tunewright.text.normalization import replace_lone_surrogates
from tunewright.text.reasoning import answer_after_reasoning

_UNEXPECTED_TOKENS = 131_072  # hidden prompts and reasoning that a server may count beside what was asked for
_MESSAGE_CHARACTERS = 200

_FINISHES: dict[str, Finish] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "end", "complete", "completed"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_length", "max_output_tokens"), "length"),
}


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)
    content: str | list[Any] | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    thinking: Any = None
    refusal: Any = None


class _Choice(BaseModel):
    model_config = ConfigDict(strict=True)
    message: _Message
    finish_reason: Any = None


class _Completion(BaseModel):
    model_config = ConfigDict(strict=True)
    choices: list[_Choice]
    usage: Any = None


class _RawChoice(BaseModel):
    model_config = ConfigDict(strict=True)
    text: str
    finish_reason: Any = None


class _RawCompletion(BaseModel):
    model_config = ConfigDict(strict=True)
    choices: list[_RawChoice]
    usage: Any = None


def read_body(content: bytes) -> Any:
    """Return a body's JSON; the events of a stream are joined to the completion that they are pieces of.

    Raises:
        ValueError: it is neither.
    """
    try:
        if content.lstrip()[:1] == b"<":
            raise ValueError("a web page")
        if content.lstrip()[:5] == b"data:" or content.lstrip()[:1] == b":":
            return _joined(content)
        return json.loads(content)
    except (ValueError, RecursionError, AttributeError, TypeError) as error:  # the last two: an event of another form
        raise ValueError(f"not JSON ({error})") from None


def _joined(content: bytes) -> dict[str, Any]:
    """Return the completion whose stream of server-sent events this is; an event with an error takes its place."""
    pieces: dict[str, list[str]] = {"content": [], "reasoning": [], "text": []}
    finish = usage = None
    has_ended = False
    for line in content.decode("utf-8", "replace").splitlines():
        data = line.removeprefix("data:").strip()
        has_ended |= data == "[DONE]"
        if not line.startswith("data:") or data in ("", "[DONE]"):
            continue
        event = json.loads(data)
        if not isinstance(event, dict) or event.get("error"):
            return event if isinstance(event, dict) else {}
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            pieces["content"].append(delta.get("content") or "")
            pieces["reasoning"].append(delta.get("reasoning_content") or delta.get("reasoning") or "")
            pieces["text"].append(choice.get("text") or "")
            finish = choice.get("finish_reason") or finish
    joined = {name: "".join(map(str, parts)) for name, parts in pieces.items()}
    finish = finish or (None if has_ended else "cut off")
    choice = {"message": joined, "text": joined["text"], "finish_reason": finish}
    return {"choices": [choice], "usage": usage}


def error_inside(body: Any) -> tuple[int, str] | None:
    """Return the status and the message of an error that came with status 200; None for anything else."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = body.get("error") or first.get("error")
    if not error and not choices and body.get("object") == "error":
        error = body
    if not error or (first and not first.get("error")):
        return None
    message = short_message(error if isinstance(error, dict) else {"error": error})
    codes = [error.get(name) for name in ("code", "status", "status_code")] if isinstance(error, dict) else []
    status = next((int(str(code)) for code in codes if re.fullmatch("[45][0-9][0-9]", str(code))), 0)
    lower = message.lower()
    if not status and ("rate limit" in lower or "rate_limit" in str(codes) or "too many requests" in lower):
        status = 429
    if not status and ("unexpected endpoint" in lower or "not found" in lower):
        status = 404
    return status or 500, message


def read_reply(body: Any, request: Request) -> Reply:
    """Return the reply that a body holds.

    Raises:
        ValueError: it is no completion; the message names the field.
    """
    completion: _Completion | _RawCompletion
    try:
        completion = (_RawCompletion if request.raw else _Completion).model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not completion.choices:
        raise ValueError("choices: empty")
    choice = completion.choices[0]
    num_prompt_tokens, num_tokens, num_reasoned = _read_usage(completion.usage, request)
    if isinstance(choice, _RawChoice):
        text, reasons = choice.text, False
    else:
        text, reasons = _answer(choice.message)
    finish = _finish(choice.finish_reason, num_tokens >= request.max_tokens + request.room)
    if isinstance(choice, _Choice):
        if isinstance(choice.message.refusal, str) and choice.message.refusal:
            finish = "other"
        if choice.message.content is None and finish == "stop" and not reasons:
            raise ValueError("choices.0.message.content: missing")
    if (whole := replace_lone_surrogates(text)) != text:  # no file could hold it
        text, finish = whole, "malformed"
    # An empty answer is paid for as well: all tokens went into reasoning, or a filter or tool took the answer.
    return Reply(text, finish, num_prompt_tokens, num_tokens, reasons=reasons or num_reasoned > 0)


def _answer(message: _Message) -> tuple[str, bool]:
    """Return the answer without its reasoning, and whether there is reasoning."""
    reasons = any(bool(part) for part in (message.reasoning, message.reasoning_content, message.thinking))
    content = message.content or ""
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else {"text": part} for part in content]
        reasons |= any(part.get("type") in ("thinking", "reasoning") for part in parts)
        texts = [part.get("text") for part in parts if part.get("type", "text") in ("text", "output_text")]
        content = "".join(text for text in texts if isinstance(text, str))
    answer, tagged = answer_after_reasoning(content)
    return answer, reasons or tagged


def _finish(reason: Any, is_full: bool) -> Finish:
    """Return why an answer ended. Without a reason it is whole, unless all tokens that were allowed are used."""
    if reason is None or reason == "":
        return "length" if is_full else "stop"
    return _FINISHES.get(reason.lower(), "other") if isinstance(reason, str) else "other"


def _read_usage(usage: Any, request: Request) -> tuple[int, int, int]:
    """Return the prompt's, the written and the reasoning tokens.

    (0, 0, 0) stands for "not known", for which the highest cost is counted: a number is missing, negative, no whole
    number, or far beyond what the request can have cost.
    """
    if not isinstance(usage, dict):
        return 0, 0, 0
    details = usage.get("completion_tokens_details")
    prompt, written = _whole(usage.get("prompt_tokens")), _whole(usage.get("completion_tokens"))
    total = _whole(usage.get("total_tokens"))
    reasoned = _whole(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
    written = max(written, total - prompt)  # some servers leave reasoning out of what was written, but not of the total
    most_written = request.max_tokens + request.room + _UNEXPECTED_TOKENS
    if not 0 < prompt <= most_prompt_tokens(request) + _UNEXPECTED_TOKENS or not 0 < written <= most_written:
        return 0, 0, 0
    return prompt, written, reasoned


def _whole(value: Any) -> int:
    """Return a count that some servers send as a float or as text; 0 for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return max(0, int(value)) if value == int(value) else 0
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else 0


def error_message(content: bytes) -> str:
    """Return the message in an error's body, in one short line."""
    try:
        return short_message(json.loads(content))
    except (ValueError, RecursionError):
        return _short(content[:2000].decode("utf-8", "replace"))


def short_message(body: Any) -> str:
    """Return the message in an error's JSON, in one short line."""
    error = (body.get("error") or body) if isinstance(body, dict) else body
    if isinstance(error, dict) and not error.get("message") and isinstance(error.get("detail"), str):
        return _short(error["detail"])
    message = (error.get("message") or error) if isinstance(error, dict) else error
    try:
        return _short(message if isinstance(message, str) else json.dumps(message))
    except RecursionError:
        return "nested too deeply"


def _short(text: str) -> str:
    return " ".join(text.split())[:_MESSAGE_CHARACTERS]


def complaint(content: bytes) -> str:
    """Return the text in which an error's body may name what is refused: without echoes of the request."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    nested = [body.get(name) for name in ("detail", "message", "error")] if isinstance(body, dict) else [body]
    nested += [entry.get("detail") for entry in nested if isinstance(entry, dict)]
    rows = next((entry for entry in nested if isinstance(entry, list)), None)
    if rows:  # of FastAPI: each row has the input beside its field and message
        return " ".join(f"{row.get('loc')} {row.get('msg')}" for row in rows if isinstance(row, dict))[:2000]
    return content[:2000].decode("utf-8", "replace")
