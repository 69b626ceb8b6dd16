"""An answer in OpenAI's forms: whole, or as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from itertools import chain
from typing import Any

from tunewright.serving.engine import Piece
from tunewright.serving.requests import MODEL, ChatRequest, RequestError


def completion(name: str, num_prompt: int, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return a whole answer."""
    text, last = "".join(piece.text for piece in pieces), pieces[-1]
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": last.finish, "logprobs": None}
    return {**_head(name, "chat.completion"), "choices": [choice], "usage": _usage(num_prompt, last)}


def events(asked: ChatRequest, num_prompt: int, first: Piece, rest: Iterator[Piece]) -> Generator[bytes, None, None]:
    """Yield an answer as events; one that breaks off ends with an error, not as if it were whole."""
    head = _head(f"chatcmpl-{uuid.uuid4().hex}", "chat.completion.chunk")
    delta: dict[str, Any] = {"role": "assistant", "content": ""}
    try:
        yield _event({**head, "choices": [_choice(delta, None)]})
        for piece in chain((first,), rest):
            yield _event({**head, "choices": [_choice({"content": piece.text} if piece.text else {}, piece.finish)]})
            if piece.finish and asked.stream_options.get("include_usage"):
                yield _event({**head, "choices": [], "usage": _usage(num_prompt, piece)})
        yield b"data: [DONE]\n\n"
    except RequestError as error:
        yield _event(error.body())
    finally:
        rest.close() if isinstance(rest, Generator) else None


def _head(name: str, kind: str) -> dict[str, Any]:
    return {"id": name, "object": kind, "created": int(time.time()), "model": MODEL}


def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}


def _usage(num_prompt: int, last: Piece) -> dict[str, int]:
    written = last.num_tokens or 0
    return {"prompt_tokens": num_prompt, "completion_tokens": written, "total_tokens": num_prompt + written}


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
