"""Stand-ins for six servers: each with the paths, refusals, errors and replies of its own, around the same answers."""

from __future__ import annotations

import time
from typing import Any

from support.faulty_server import Answer, Seen
from support.quirky_server import Quirk, Respond, both, is_cold, only_at, refuses, rewords, sends, thinks_first

Body = dict[str, Any]


def _ollama_reply(body: Body, choice: Body) -> None:
    body |= {"object": "chat.completion", "system_fingerprint": "fp_ollama"}
    choice["message"]["reasoning"] = "The user wants one line."


def _lm_studio_reply(body: Body, choice: Body) -> None:
    body |= {"stats": {}, "system_fingerprint": "m"}
    choice |= {"logprobs": None}
    choice["message"] |= {"content": f"<think>\nHm.\n</think>\n\n{choice['message']['content']}", "tool_calls": []}


def _llama_cpp_reply(body: Body, choice: Body) -> None:
    body |= {"timings": {"prompt_n": 7, "predicted_per_second": 90.5}, "created": int(time.time())}
    choice["message"]["reasoning_content"] = ""


def _vllm_reply(body: Body, choice: Body) -> None:
    body |= {"prompt_logprobs": None, "kv_transfer_params": None, "service_tier": None}
    body["usage"] |= {"total_tokens": 10, "prompt_tokens_details": None}
    choice |= {"stop_reason": None, "logprobs": None}
    choice["message"] |= {"refusal": None, "reasoning_content": None, "tool_calls": [], "function_call": None}


def _open_router_reply(body: Body, choice: Body) -> None:
    body |= {"provider": "Some", "model": "m"}
    body["usage"] |= {"cost": 0.0001, "completion_tokens_details": {"reasoning_tokens": 1}}
    choice |= {"native_finish_reason": "STOP"}
    choice["message"] |= {"refusal": None, "reasoning": "We need one line.", "reasoning_details": [{}]}


def _azure_reply(body: Body, choice: Body) -> None:
    body |= {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}
    choice |= {"content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    choice["message"] |= {"annotations": [], "refusal": None}


def _open_router_limit(then: Respond) -> Respond:
    """Its fourth call is over the provider's limit, with status 200."""
    num_calls = 0

    def respond(seen: Seen) -> Answer:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 4:
            return Answer(200, {"error": {"message": "Provider returned error", "code": 429}, "user_id": "u"})
        return then(seen)

    return respond


def _azure_access(then: Respond) -> Respond:
    path = "/openai/deployments/NAME/chat/completions?api-version=2024-10-21"

    def respond(seen: Seen) -> Answer:
        if seen.path != path:
            return Answer(404, {"error": {"code": "404", "message": "Resource not found"}})
        if seen.headers.get("api-key") != "sesame" or "Authorization" in seen.headers:
            return Answer(401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key."}})
        return then(seen)

    return respond


def _schema_type(body: Body) -> bool:
    return body.get("response_format", {}).get("type") not in (None, "json_schema", "text")


_CHAT = "/v1/chat/completions"

# By name: the path of the recipe's URL, and the server.
SERVERS: dict[str, tuple[str, Quirk]] = {
    "Ollama": (
        "",
        both(only_at(_CHAT, Answer(404, b"404 page not found")), thinks_first(), rewords(_ollama_reply)),
    ),
    "LM Studio": (
        "",
        both(
            only_at(_CHAT, Answer(200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"})),
            refuses(_schema_type, "'response_format.type' must be 'json_schema' or 'text'"),
            rewords(_lm_studio_reply),
        ),
    ),
    "llama.cpp": (
        "/v1",
        both(
            refuses(
                sends("response_format"), {"error": {"code": 400, "message": "failed to parse grammar"}}, whole=True
            ),
            rewords(_llama_cpp_reply),
        ),
    ),
    "vLLM": (
        "/v1",
        both(
            refuses(
                lambda body: body["messages"][0]["role"] == "system",
                {"object": "error", "message": "System role not supported", "type": "BadRequestError", "code": 400},
                whole=True,
            ),
            rewords(_vllm_reply),
        ),
    ),
    "OpenRouter": ("/api/v1", both(_open_router_limit, rewords(_open_router_reply))),
    "Azure": (
        "/openai/deployments/NAME?api-version=2024-10-21",
        both(
            _azure_access,
            refuses(sends("max_tokens"), "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
            refuses(is_cold, "Unsupported value: 'temperature' does not support 0.0 with this model."),
            rewords(_azure_reply),
        ),
    ),
}
