"""One server: a request sent once, and the faults that can follow, by kind."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from pydantic import BaseModel, ConfigDict, ValidationError
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)

from tunewright.errors import UserError
from tunewright.teacher.protocol import Finish, Reply, Request, UnusableReplyError


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
    """Return the path that a request is posted to, relative to the server's URL."""
    return "/completions" if request.raw else "/chat/completions"


def request_body(model: str, request: Request, with_schema: bool, extra: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON body of POST /chat/completions, or of /completions for a raw text, which takes no schema."""
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
    """Return the reply in the body of a response with status 200.

    Args:
        content: the body.
        raw: whether it comes from /completions instead of /chat/completions.

    Raises:
        ValueError: it is no completion; the message names the field.
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
    # An empty answer is paid for as well: all tokens went into reasoning, or a filter or tool took the answer.
    return Reply(text or "", finish, usage.prompt_tokens, usage.completion_tokens)


def error_message(content: bytes) -> str:
    """Return the message in an error's body, in one short line."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        body = json.loads(content)
        error = body.get("error", body) if isinstance(body, dict) else body
        message = error.get("message", error) if isinstance(error, dict) else error
        text = message if isinstance(message, str) else json.dumps(message)
    except (ValueError, RecursionError):
        pass
    return " ".join(text.split())[:200]


_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CONNECT_S = 10.0
_BUSY = {429: "too many requests", 503: "out of service", 529: "overloaded"}


@dataclass(frozen=True)
class Fault:
    """Why one attempt failed: its kind, its cause, and the pause that the server asks for."""

    kind: Literal["refused", "timeout", "busy", "broken"]
    cause: str
    retry_after_s: float | None = None


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or an HTTP date; None without a valid one."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _connections(url: str, number: int, timeout_s: float) -> urllib3.PoolManager | urllib3.HTTPConnectionPool:
    """Return the connections to a server: through the environment's proxy, except to this machine."""
    parts = urlsplit(url)
    trusted = ssl.create_default_context()
    trusted.load_verify_locations(certifi.where())
    timeout = urllib3.Timeout(connect=min(_CONNECT_S, timeout_s), read=timeout_s)
    if parts.hostname and parts.hostname not in _LOOPBACK and not proxy_bypass(parts.hostname):
        proxy = getproxies().get(parts.scheme)
        if proxy:
            return urllib3.ProxyManager(proxy, maxsize=number, timeout=timeout, retries=False, ssl_context=trusted)
    pool: urllib3.HTTPConnectionPool = urllib3.PoolManager(
        maxsize=number, timeout=timeout, retries=False, ssl_context=trusted
    ).connection_from_url(url)
    return pool


class Endpoint:
    """Sends requests for one model to one URL; safe to share between threads.

    Redirects are not followed: the key goes to the address in the recipe and nowhere else.
    """

    def __init__(
        self, url: str, model: str, timeout_s: float, api_key: str, extra: dict[str, Any], connections: int
    ) -> None:
        self.url = url.rstrip("/")
        self._model = model
        self._extra = extra
        self._key = api_key
        self._with_schema = True
        self._headers = {"Content-Type": "application/json"}
        if api_key:  # "Basic ..." is a user name and password as HTTP encodes them
            self._headers["Authorization"] = api_key if api_key.startswith("Basic ") else f"Bearer {api_key}"
        self._http = _connections(url, connections, timeout_s)
        direct = isinstance(self._http, urllib3.HTTPConnectionPool)
        self._target = urlsplit(self.url).path if direct else self.url  # a proxy needs the full URL

    def close(self) -> None:
        """Close the connections."""
        if isinstance(self._http, urllib3.HTTPConnectionPool):
            self._http.close()
        else:
            self._http.clear()

    def attempt(self, request: Request) -> Reply | Fault:
        """Send the request once; return the reply, or a fault after which another attempt may succeed.

        Raises:
            UnusableReplyError: the server rejects this request (4xx).
            UserError: the recipe's key, URL or model is wrong.
        """
        with_schema = self._with_schema and request.schema is not None and not request.raw
        body = json.dumps(request_body(self._model, request, with_schema, self._extra), ensure_ascii=False)
        try:
            response = self._http.urlopen(
                "POST",
                self._target + request_path(request),
                body=body.encode("utf-8", "replace"),
                headers=self._headers,
                redirect=False,
            )
        except LocationValueError as error:
            raise UserError(f"{self.url} is not a URL", str(error), "correct teacher.url in the recipe") from error
        except (ConnectTimeoutError, NewConnectionError, ProxyError) as error:  # also no name, no route
            return Fault("refused", str(error) or "connection refused")
        except ReadTimeoutError:
            return Fault("timeout", "no answer within teacher.timeout_s")
        except HTTPError as error:
            return Fault("broken", f"the connection broke ({type(error).__name__}: {error})")
        if response.status == 400 and with_schema:
            return self._without_schema(request)
        return self._judge(response, bool(request.raw))

    def _without_schema(self, request: Request) -> Reply | Fault:
        """Send the request without its schema after a 400; if that succeeds, send no more schemas to this server."""
        result = self.attempt(replace(request, schema=None))
        if isinstance(result, Reply):
            self._with_schema = False
        return result

    def _judge(self, response: urllib3.BaseHTTPResponse, raw: bool) -> Reply | Fault:
        """Return the reply of an HTTP response, or a fault worth a retry; raise any other error."""
        status = response.status
        if status == 200:
            try:
                return read_completion(response.data, raw)
            except ValueError as error:
                return Fault("broken", f"a reply that is no completion: {error}")
        message = error_message(response.data)
        if self._key:  # some servers repeat it
            message = message.replace(self._key, "…")
        if status in (401, 403, 404) or status in (301, 302, 303, 307, 308):
            raise self._refusal(response, message, raw)
        pause = retry_after_s(response.headers.get("Retry-After"))
        if status in _BUSY:
            return Fault("busy", f"{_BUSY[status]} ({status}): {message}", pause)
        if status in (408, 409, 425) or status >= 500:
            return Fault("broken", f"the server failed ({status}): {message}", pause)
        raise UnusableReplyError(f"the server rejects the request ({status}): {message}")

    def _refusal(self, response: urllib3.BaseHTTPResponse, message: str, raw: bool) -> UserError:
        """Return the error for a response that no retry changes."""
        status = response.status
        if status in (301, 302, 303, 307, 308):
            target = response.headers.get("Location", "nowhere")
            return UserError(
                f"{self.url} redirects elsewhere ({status})",
                f"to {target}; redirects are not followed, so that the key goes to the address in the recipe only",
                "if you trust that address, set it as teacher.url",
            )
        if status == 404:
            return UserError(
                f"{self.url} has no {'' if raw else 'chat '}completions for model {self._model!r} (404)",
                message,
                "check teacher.url (it usually ends in /v1) and teacher.model",
            )
        sent = "the server refuses the key" if self._key else "no key was sent"
        return UserError(
            f"{self.url} denies access ({status})",
            f"{sent}: {message}",
            "name the variable that holds a valid key: --set teacher.api_key_env=NAME, and export NAME=...",
        )
