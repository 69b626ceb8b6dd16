"""One HTTP client for any OpenAI-compatible URL: its retries, its waits, and each failure told apart."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from tunewright.errors import StageError, TeacherError, UserError
from tunewright.teacher.completion import error_message, read_completion, request_body
from tunewright.teacher.protocol import Reply, Request, UnusableReplyError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_RESUMABLE = "every answer so far is kept; run the same command again to resume"


@dataclass(frozen=True)
class Retries:
    """How often one request is tried, by what went wrong, and the waits between (seconds, doubling, with jitter)."""

    refused: int = 4
    timeout: int = 2
    busy: int = 8
    broken: int = 4
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    longest_retry_after_s: float = 300.0


@dataclass(frozen=True)
class _Fault:
    """Why one attempt failed: a key of the retry counts, the words for it, and how long the server asks to wait."""

    kind: str
    cause: str
    retry_after_s: float | None = None


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, given as seconds or as an HTTP date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


class ChatClient:
    """Asks one model at one URL for chat completions; safe to share between threads.

    A server that says 429 or 503 with Retry-After makes every thread wait, not only the one that was told.
    Redirects are not followed: the key goes to the address in the recipe and nowhere else.
    """

    def __init__(
        self,
        url: str,
        model: str,
        timeout_s: float,
        api_key: str = "",
        extra: dict[str, Any] | None = None,
        retries: Retries | None = None,
        connections: int = 8,
    ) -> None:
        self._url = url.rstrip("/")
        self._model = model
        self._extra = extra or {}
        self._retries = retries or Retries()
        self._has_key = bool(api_key)
        self._with_schema = True
        self._not_before = 0.0
        self._stopped = threading.Event()
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
            trust_env=urlsplit(url).hostname not in _LOOPBACK,  # no proxy reaches this machine's own loopback
        )

    def stop(self) -> None:
        """Send nothing more, and wake what waits for a retry."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connections."""
        self.stop()
        self._http.close()

    def complete(self, request: Request) -> Reply:
        """Return the model's reply; the one place that retries.

        Raises:
            UnusableReplyError: this request failed (timeouts, 4xx, 5xx, nonsense); others may do better.
            TeacherError: the server cannot be used now; what is journalled is kept.
            UserError: the recipe's key, URL or model is wrong.
        """
        tried: dict[str, int] = {}
        while True:
            self._wait_for_turn()
            result = self._attempt(request)
            if isinstance(result, Reply):
                return result
            tried[result.kind] = tried.get(result.kind, 0) + 1
            if tried[result.kind] >= getattr(self._retries, result.kind):
                raise self._give_up(result, tried[result.kind])
            self._plan_wait(result, sum(tried.values()))

    def _wait_for_turn(self) -> None:
        """Sleep out the shared wait; raise when the stage is stopping."""
        while not self._stopped.is_set():
            left = self._not_before - time.monotonic()
            if left <= 0:
                return
            self._stopped.wait(left)
        raise UnusableReplyError("stopped")

    def _plan_wait(self, fault: _Fault, num_tried: int) -> None:
        """Wait before the next attempt: what the server asks for (all threads), else 0.5-1 x a doubling time."""
        if fault.retry_after_s is not None:
            self._not_before = max(self._not_before, time.monotonic() + fault.retry_after_s)
            return
        wait = min(self._retries.longest_wait_s, self._retries.first_wait_s * 2 ** (num_tried - 1))
        self._stopped.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret

    def _attempt(self, request: Request) -> Reply | _Fault:
        """Send the request once; return the reply, or a fault that a further attempt may mend."""
        with_schema = self._with_schema and request.schema is not None
        body = request_body(self._model, request, with_schema, self._extra)
        try:
            response = self._http.post(f"{self._url}/chat/completions", json=body)
        except httpx.ConnectTimeout as error:
            return _Fault("refused", f"no connection in time ({error})")
        except httpx.TimeoutException:
            return _Fault("timeout", "no answer within teacher.timeout_s")
        except httpx.ConnectError as error:
            return _Fault("refused", str(error) or "connection refused")
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise UserError(f"{self._url} is not a URL", str(error), "correct teacher.url in the recipe") from error
        except httpx.HTTPError as error:
            return _Fault("broken", f"the connection broke ({type(error).__name__}: {error})")
        if response.status_code == 400 and with_schema:
            return self._without_schema(request)
        return self._judge(response)

    def _without_schema(self, request: Request) -> Reply | _Fault:
        """Ask plainly after a 400; when that brings a reply, the server knows no json_schema and is spared it."""
        result = self._attempt(replace(request, schema=None))
        if isinstance(result, Reply):
            self._with_schema = False
        return result

    def _judge(self, response: httpx.Response) -> Reply | _Fault:
        """Turn an HTTP response into a reply, a fault worth retrying, or an error."""
        status, said = response.status_code, error_message(response.content)
        if status == 200:
            try:
                return read_completion(response.content)
            except ValueError as error:
                return _Fault("broken", f"a reply that is no chat completion: {error}")
        if status in (401, 403, 404) or response.is_redirect:
            raise self._refusal(response, said)
        pause = retry_after_s(response.headers.get("Retry-After"))
        if pause is not None and pause > self._retries.longest_retry_after_s:
            raise TeacherError(f"{self._url} asks to wait {pause:,.0f} s ({status})", said, _RESUMABLE)
        if status == 429:
            return _Fault("busy", f"too many requests (429): {said}", pause)
        if status in (408, 409, 425) or status >= 500:
            return _Fault("broken", f"the server failed ({status}): {said}", pause)
        raise UnusableReplyError(f"the server rejects the request ({status}): {said}")

    def _refusal(self, response: httpx.Response, said: str) -> UserError:
        """Return the error for an answer that no retry changes."""
        status = response.status_code
        if response.is_redirect:
            target = response.headers.get("Location", "nowhere")
            return UserError(
                f"{self._url} redirects elsewhere ({status})",
                f"to {target}; redirects are not followed, so that the key stays with the address you gave",
                "if you trust that address, set it as teacher.url",
            )
        if status == 404:
            return UserError(
                f"{self._url} has no chat completions for model {self._model!r} (404)",
                said,
                "check teacher.url (it usually ends in /v1) and teacher.model",
            )
        sent = "the key that was sent is refused" if self._has_key else "no key was sent"
        return UserError(
            f"{self._url} does not let you in ({status})",
            f"{sent}: {said}",
            "name the variable that holds a valid key: --set teacher.api_key_env=NAME, and export NAME=...",
        )

    def _give_up(self, fault: _Fault, num_tried: int) -> StageError | UnusableReplyError:
        """Return what to raise when the attempts are used up."""
        if fault.kind == "refused":
            return TeacherError(
                f"cannot reach the teacher at {self._url}",
                f"{fault.cause}, {num_tried} times",
                f"start the server or correct teacher.url; {_RESUMABLE}",
            )
        if fault.kind == "busy":
            return TeacherError(
                f"{self._url} keeps saying that it is busy",
                f"{fault.cause}, {num_tried} times",
                f"wait, or lower teacher.concurrency; {_RESUMABLE}",
            )
        return UnusableReplyError(f"{fault.cause}, {num_tried} times")
