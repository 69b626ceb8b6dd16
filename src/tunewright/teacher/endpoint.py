"""One server: a request sent in the way that the server takes, and the faults that can follow, by kind."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationValueError, NewConnectionError, ProxyError

from tunewright.errors import TeacherError, UserError
from tunewright.teacher.completion import complaint, error_inside, error_message, read_body, read_reply
from tunewright.teacher.connection import Answer, Connections, LateError, TooLongError
from tunewright.teacher.dialect import AT_V1, Change, Refusals, cut_at_stop, request_body, smaller_room
from tunewright.teacher.protocol import REASONING_TOKENS, Dialect, Reply, Request, UnusableReplyError

_LEAST_BYTES = 262_144  # of a reply, beside its tokens: logprobs, filters' results, reasoning that is not counted
_BYTES_PER_TOKEN = 512  # of the event that a streamed token comes in
_YEAR_S = 31_536_000.0
_MOST_WAYS = 6  # of asking for one reply
_BROKEN_BEFORE_KNOWN = 3  # failures, after which a form of request is no longer tried by one call alone
Form = Literal["chat", "schema", "raw"]
_REDIRECTS = (301, 302, 303, 307, 308)
_BUSY = {429: "too many requests", 503: "out of service", 529: "overloaded"}


@dataclass(frozen=True)
class Fault:
    """Why one attempt failed: its kind, its cause, and the pause that the server asks for."""

    kind: Literal["refused", "timeout", "busy", "broken"]
    cause: str
    retry_after_s: float | None = None


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or an HTTP date; None without a valid one.

    At most a year: more is no time that anybody waits.
    """
    if not value:
        return None
    try:
        return max(0.0, min(float(value), _YEAR_S))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, min((date - datetime.now(UTC)).total_seconds(), _YEAR_S))


def request_path(request: Request) -> str:
    """Return the path that a request is posted to, relative to the server's URL."""
    return "/completions" if request.raw else "/chat/completions"


def request_form(request: Request) -> Form:
    """Return the form of a request; what a server refuses depends on it."""
    return "raw" if request.raw else "schema" if request.schema is not None else "chat"


class Endpoint:
    """Sends requests for one model to one URL; safe to share between threads.

    Redirects are not followed: the key goes to the address in the recipe and nowhere else.

    Args:
        url: with its version path such as ``/v1``; its query (Azure's ``?api-version=``) is sent with each request.
        model: the model's name there.
        timeout_s: longest wait for a whole answer.
        api_key: sent as a bearer token, to Azure as ``api-key``; "" for none.
        extra: further fields of each request's body.
        connections: most calls at once.
        reasoning: False asks for answers without reasoning first.

    Attributes:
        url: without its query.
        dialect: how the server has to be asked, as far as is known; set it to what an earlier call taught.
        known: the forms of request that the server has taken or refused.
    """

    def __init__(
        self,
        url: str,
        model: str,
        timeout_s: float,
        api_key: str = "",
        extra: dict[str, Any] | None = None,
        connections: int = 1,
        reasoning: bool = True,
    ) -> None:
        parts = urlsplit(url)
        path = re.sub("/(?:chat/)?completions/?$", "", parts.path).rstrip("/")
        self.url = urlunsplit(parts._replace(path=path, query="", fragment=""))
        self.dialect = Dialect()
        self.known: set[Form] = set()
        self._path, self._query = path, f"?{parts.query}" if parts.query else ""
        self._model, self._extra, self._key, self._reasoning = model, extra or {}, api_key, reasoning
        self._refusals = Refusals()
        self._answered: set[Form] = set()
        self._num_broken: Counter[Form] = Counter()
        self._lock = threading.Lock()  # guards the dialect
        self._headers = {"Content-Type": "application/json"} | _authorization(url, api_key)
        self._http = Connections(self.url, connections, timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def attempt(self, request: Request) -> Reply | Fault:
        """Get a reply; where the server refuses a part of the request, ask otherwise, and remember what it takes.

        Returns:
            The reply, or a fault after which another attempt may succeed.

        Raises:
            UnusableReplyError: the server rejects this request (4xx).
            UserError: the recipe's key, URL or model is wrong.
            TeacherError: the account has no credit.
        """
        form = request_form(request)
        try:
            result = self._in_its_ways(request)
        except UnusableReplyError:
            self.known.add(form)
            raise
        self._num_broken[form] += isinstance(result, Fault) and result.kind == "broken"
        # A server that is busy or away has shown nothing; one that fails may refuse something, without saying so.
        if isinstance(result, Reply) or result.kind == "timeout" or self._num_broken[form] >= _BROKEN_BEFORE_KNOWN:
            self.known.add(form)
        if isinstance(result, Reply) and result.reasons and not self.dialect.room:
            self._remember(replace(self.dialect, room=REASONING_TOKENS))
        return result

    def _in_its_ways(self, request: Request) -> Reply | Fault:
        form, dialect = request_form(request), self.dialect
        tried: list[Change] = []
        change: Change | None = None
        while True:
            body = request_body(self._model, request, dialect.changes, self._extra, self._reasoning)
            answer = self._send(request, body, dialect)
            if isinstance(answer, Fault):
                return answer
            if isinstance(answer, Reply):
                self._answered.add(form)
                self._remember(dialect)
                return answer
            words = complaint(answer.content)
            if change and change.is_named and not Refusals.names(change, words):
                self._remember(dialect)  # that change helped; the server refuses something else
            elif change:
                self._refusals.failed(change)
                dialect = self.dialect
                body = request_body(self._model, request, dialect.changes, self._extra, self._reasoning)
            room = smaller_room(request.room, answer.status, words)
            if room < request.room:
                request, change = replace(request, room=room), None
                dialect = replace(dialect, room=room)
                continue
            change = self._next_change(answer, words, body, form)
            if change is None or change in tried or len(tried) == _MOST_WAYS:
                return self._judge(answer, bool(request.raw))
            tried.append(change)
            cause = f"{answer.status}: {self._message(answer)[:120]}"
            dialect = dialect.changed(change.parts, cause)

    def _next_change(self, answer: Answer, words: str, body: dict[str, Any], form: Form) -> Change | None:
        if answer.status in (404, 405):
            has_version = re.search("/v[0-9]+", self._path) or self._query or AT_V1 in self.dialect.changes
            return None if has_version or self._answered else Change((AT_V1,), False)
        return self._refusals.change(answer.status, words, body, form in self._answered)

    def _remember(self, dialect: Dialect) -> None:
        """Take over what another thread has not learned by now."""
        with self._lock:
            changes = {**self.dialect.changes, **dialect.changes}
            self.dialect = Dialect(changes, dialect.room or self.dialect.room)

    def _send(self, request: Request, body: dict[str, Any], dialect: Dialect) -> Reply | Fault | Answer:
        """Send one body; return the reply, a fault, or any response that is neither."""
        path = re.sub("/api$", "", self._path) + "/v1" if AT_V1 in dialect.changes else self._path
        tokens = request.max_tokens + request.room
        try:
            answer = self._http.post(
                f"{path}{request_path(request)}{self._query}",
                json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"),
                self._headers,
                _LEAST_BYTES + _BYTES_PER_TOKEN * tokens,
            )
        except LocationValueError as error:
            raise UserError(f"{self.url} is not a URL", str(error), "correct teacher.url in the recipe") from error
        except LateError:
            return Fault("timeout", "no whole answer within teacher.timeout_s")
        except (ConnectTimeoutError, NewConnectionError, ProxyError) as error:  # also no name, no route
            return Fault("refused", str(error) or "connection refused")
        except TooLongError as error:
            return Fault("broken", str(error))
        except urllib3.exceptions.TimeoutError:
            return Fault("timeout", "no whole answer within teacher.timeout_s")
        except HTTPError as error:
            return Fault("broken", f"the connection broke ({type(error).__name__}: {error})")
        if answer.status != 200:
            return answer
        try:
            content = read_body(answer.content)
            inside = error_inside(content)
            if inside:
                return replace(answer, status=inside[0])
            reply = read_reply(content, request)
        except ValueError as error:
            return Fault("broken", f"a reply that is no completion: {error}")
        if request.stop and "stop" not in body:
            reply = replace(reply, text=cut_at_stop(reply.text, request.stop))
        return reply

    def _message(self, answer: Answer) -> str:
        content = answer.content
        for key in filter(None, (self._key, self._key.removeprefix("Basic "))):  # some servers repeat it
            content = content.replace(key.encode(), "…".encode())  # before the message is cut, which might cut the key
        return error_message(content)

    def _judge(self, answer: Answer, raw: bool) -> Fault:
        """Return a fault worth a retry; raise any other error."""
        status, message = answer.status, self._message(answer)
        if status in (401, 403, 404, 405) or status in _REDIRECTS:
            raise self._refusal(answer, message, raw)
        if status == 402 or (status == 429 and "insufficient_quota" in complaint(answer.content)):
            raise TeacherError(
                f"the account at {self.url} has no credit ({status})",
                message,
                "add credit, then run the same command again: all answers so far are kept",
            )
        pause = retry_after_s(answer.headers.get("Retry-After"))
        if status in _BUSY:
            return Fault("busy", f"{_BUSY[status]} ({status}): {message}", pause)
        if status in (408, 409, 425) or status >= 500:
            return Fault("broken", f"the server failed ({status}): {message}", pause)
        raise UnusableReplyError(f"the server rejects the request ({status}): {message}")

    def _refusal(self, answer: Answer, message: str, raw: bool) -> UserError:
        """Return the error for a response that no retry changes."""
        status = answer.status
        if status in _REDIRECTS:
            target = answer.headers.get("Location", "nowhere")
            return UserError(
                f"{self.url} redirects elsewhere ({status})",
                f"to {target}; redirects are not followed, so that the key goes to the address in the recipe only",
                "if you trust that address, set it as teacher.url",
            )
        if status in (404, 405):
            azure = "; of Azure: https://NAME.openai.azure.com/openai/deployments/DEPLOYMENT?api-version=VERSION"
            return UserError(
                f"{self.url} has no {'' if raw else 'chat '}completions for model {self._model!r} ({status})",
                message,
                f"check teacher.url (it usually ends in /v1{azure if 'azure' in self.url else ''}) and teacher.model"
                f" (the names: curl {self.url}/models)",
            )
        sent = "the server refuses the key" if self._key else "no key was sent"
        return UserError(
            f"{self.url} denies access ({status})",
            f"{sent}: {message}",
            "name the variable that holds a valid key: --set teacher.api_key_env=NAME, and export NAME=...",
        )


def _authorization(url: str, api_key: str) -> dict[str, str]:
    """Return the header that carries a key."""
    if not api_key:
        return {}
    # Azure takes its own tokens as bearer, which are JSON web tokens, and its keys in a header of their own.
    if "api-version=" in urlsplit(url).query and not api_key.startswith(("eyJ", "Basic ")):
        return {"api-key": api_key}
    # "Basic ..." is a user name and password as HTTP encodes them.
    return {"Authorization": api_key if api_key.startswith("Basic ") else f"Bearer {api_key}"}
