"""The HTTP client of one model at one or several OpenAI-compatible URLs: choice of server, pace, and all retries."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunewright.errors import TeacherError
from tunewright.teacher.endpoint import Endpoint, Fault, Form, request_form
from tunewright.teacher.protocol import Dialect, MoreRoomError, Reply, Request, UnusableReplyError

START = 8  # calls at once before the capacity of a server is known
_SLOW = 3.0  # times the quickest window's seconds per call: the server queues, and more calls at once gain nothing
_FORGETTING = 1.02  # per window, so that longer answers are not taken for overload for ever


@dataclass
class Pace:
    """The limit of concurrent calls to one server; all times are in seconds, of one clock.

    The limit grows by one per window of answered calls while their mean time stays below three times the quickest
    window's, and halves on overload, at most once per round of calls: AIMD (Chiu and Jain 1989, "Analysis of the
    increase and decrease algorithms for congestion avoidance in computer networks", as in TCP).

    Attributes:
        most: upper bound of the limit.
        limit: calls that may be under way now.
        under_way: calls that are under way.
        not_before: no call is sent before this time.
        num_refused: rounds in a row without a connection.
        num_busy: rounds in a row in which the server reported that it is busy.
        num_failed: calls in a row without a usable reply.
    """

    most: int
    limit: int = 0
    under_way: int = 0
    not_before: float = 0.0
    num_refused: int = 0
    num_busy: int = 0
    num_failed: int = 0
    _cut_at: float = float("-inf")
    _window: list[float] = field(default_factory=list)
    _quickest_s: float = 0.0

    def __post_init__(self) -> None:
        self.limit = min(START, self.most)

    def has_room(self) -> bool:
        """Return whether one more call may be sent."""
        return self.under_way < self.limit

    def answered(self, seconds: float) -> None:
        """Record a call that was answered."""
        if 2 * self.under_way > self.limit:  # else the limit was not tested
            self._window.append(seconds)
        self.responded()
        if len(self._window) >= self.limit:
            self._grow()

    def responded(self) -> None:
        """Record a call that the server answered or rejected: it is reachable."""
        if self.num_refused:  # it is back; its capacity is unknown again
            self.limit = min(START, self.most)
        self.num_refused = self.num_busy = self.num_failed = 0
        self.under_way -= 1

    def _grow(self) -> None:
        mean = sum(self._window) / len(self._window)
        self._window.clear()
        self._quickest_s = min(mean, self._quickest_s * _FORGETTING) if self._quickest_s else mean
        if mean <= _SLOW * self._quickest_s:
            self.limit = min(self.most, self.limit + 1)

    def overloaded(self, sent_at: float, now: float) -> bool:
        """Record a call that ended in overload; return whether it is the first of its round, which halves the limit."""
        return self._cut(sent_at, now, max(1, self.limit // 2))

    def refused(self, sent_at: float, now: float) -> bool:
        """Record a call without a connection; return whether it is the first of its round: the limit becomes 1."""
        first = self._cut(sent_at, now, 1)
        self.num_refused += first
        return first

    def _cut(self, sent_at: float, now: float, limit: int) -> bool:
        self.under_way -= 1
        if sent_at < self._cut_at:
            return False
        self._cut_at = now
        self.limit = limit
        self._window.clear()
        return True


_RESUMABLE = "all answers so far are kept; run the same command again to resume"
_SET_ASIDE_AFTER = 3  # failures in a row of one server of several


@dataclass(frozen=True)
class Retries:
    """How often a request is tried, by kind of fault, and the waits between (seconds, doubling, with jitter).

    ``refused`` counts rounds of calls without a connection; after so many, a server counts as gone.
    """

    refused: int = 4
    timeout: int = 2
    broken: int = 4
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def wait_s(self, number: int) -> float:
        """Return the wait after so many faults in a row: 0.5 to 1 times a doubling time."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (min(number, 60) - 1))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


class ChatClient:
    """Gets completions from the servers of one model; safe to share between threads.

    A call goes to the server with the fewest calls under way; ``Pace`` limits the calls to each server. When a server
    is busy, all threads wait, not only the one that got its reply. A server that cannot be reached or keeps failing is
    set aside for a growing time. A wrong key or model (401, 404) at any server stops the stage: the user has to fix it.
    The first call of each form to a server is made alone, so that what the server refuses is learned by one call.

    Args:
        urls: of the servers, each with its version path such as ``/v1``.
        model: the model's name at all of them.
        timeout_s: longest wait for one whole answer.
        api_key: sent with each request; "" for none.
        extra: further fields of each request's body.
        retries: how often a request is tried.
        connections: most calls to one server at once.
        patience_s: longest time that all servers may be busy.
        show: displays why the client waits; called with "" when it no longer does.
        dialects: how servers had to be asked before, by URL.
        reasoning: False asks for answers without reasoning first.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        model: str,
        timeout_s: float,
        api_key: str = "",
        extra: dict[str, Any] | None = None,
        retries: Retries | None = None,
        connections: int = 8,
        patience_s: float = 600.0,
        show: Callable[[str], None] = lambda text: None,
        dialects: Mapping[str, Dialect] | None = None,
        reasoning: bool = True,
    ) -> None:
        self._retries = retries or Retries()
        self._patience_s = patience_s
        self._show = show
        names = [urls] if isinstance(urls, str) else list(urls)
        endpoints = [Endpoint(url, model, timeout_s, api_key, extra, connections, reasoning) for url in names]
        for endpoint in endpoints:
            endpoint.dialect = (dialects or {}).get(endpoint.url, endpoint.dialect)
        self._servers = [(endpoint, Pace(connections)) for endpoint in endpoints]
        self._first_calls: set[tuple[int, Form]] = set()  # under way, each alone of its form at its server
        self._stopped = False
        self._shows_pause = False
        self._busy_since: float | None = None
        self._last_fault: Fault | None = None
        self._turn = threading.Condition()  # guards all of the above, and wakes the threads that wait for a server

    def stop(self) -> None:
        """Send nothing more, and wake the threads that wait for a retry."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()

    @property
    def room(self) -> int:
        """The tokens that reasoning may take beyond a request's own."""
        return max(endpoint.dialect.room for endpoint, _ in self._servers)

    @property
    def dialects(self) -> dict[str, Dialect]:
        """How each server is asked, by its URL, where that differs from the default."""
        return {endpoint.url: endpoint.dialect for endpoint, _ in self._servers if endpoint.dialect.in_words}

    def close(self) -> None:
        """Close the connections."""
        self.stop()
        for endpoint, _ in self._servers:
            endpoint.close()

    def complete(self, request: Request) -> Reply:
        """Return the model's reply; retries happen here only.

        Raises:
            UnusableReplyError: this request failed (timeouts, 4xx, 5xx, a reply that is no completion); others may not.
            TeacherError: no server can be used now; journaled replies are kept.
            UserError: the recipe's key, URL or model is wrong.
            MoreRoomError: while the request waited, another call has shown that the model reasons.
        """
        form = request_form(request)
        tried: Counter[str] = Counter()
        most = {"timeout": self._retries.timeout, "broken": self._retries.broken}  # _failed raises for the others
        last, not_before = -1, 0.0
        while True:
            number, sent_at = self._take(form, last, not_before)
            endpoint, pace = self._servers[number]
            try:
                if request.room < endpoint.dialect.room:
                    raise MoreRoomError
                result = endpoint.attempt(request)
            except BaseException:
                self._end_first_call(number, form)
                self._answered(pace, None)
                raise
            self._end_first_call(number, form)
            now = time.monotonic()
            if isinstance(result, Reply):
                self._answered(pace, now - sent_at)
                return replace(result, seconds=now - sent_at)
            tried[result.kind] += 1
            self._failed(pace, result, sent_at, now)
            if tried[result.kind] >= most.get(result.kind, tried.total() + 1):
                raise UnusableReplyError(f"{result.cause}, {tried[result.kind]} times")
            last, not_before = number, now
            if len(self._servers) == 1 and result.kind != "refused":
                not_before += self._retries.wait_s(tried.total())

    def _take(self, form: Form, last: int, not_before: float) -> tuple[int, float]:
        """Wait for a server that may be called; return its index and the time.

        Args:
            form: of the request.
            last: index of the server that failed this request (-1: none); another server is preferred.
            not_before: when this request may be sent again.
        """
        with self._turn:
            while not self._stopped:
                now = time.monotonic()
                able = [
                    number
                    for number, (_, pace) in enumerate(self._servers)
                    if pace.has_room() and (number, form) not in self._first_calls
                ]
                times = {number: max(self._servers[number][1].not_before, not_before) for number in able}
                free = [number for number in able if times[number] <= now]
                if free:
                    best = min(free, key=lambda n: (n == last, self._servers[n][1].under_way))
                    endpoint, pace = self._servers[best]
                    pace.under_way += 1
                    if form not in endpoint.known:
                        self._first_calls.add((best, form))
                    return best, now
                # Until a server may be called; without any, until another call ends.
                self._turn.wait(max(0.0, min(times.values()) - now) if times else None)
        raise UnusableReplyError("stopped")

    def _end_first_call(self, number: int, form: Form) -> None:
        """Let other calls of a form follow the first one."""
        with self._turn:
            if (number, form) in self._first_calls:
                self._first_calls.discard((number, form))
                self._turn.notify_all()

    def _answered(self, pace: Pace, seconds: float | None) -> None:
        """Record that a server answered after so many seconds; None: that it rejected the request."""
        with self._turn:
            if seconds is None:
                pace.responded()
            else:
                pace.answered(seconds)
            self._busy_since = None
            if self._shows_pause:
                self._shows_pause = False
                self._show("")
            self._turn.notify(2)  # this call has ended, and the limit may have grown by one

    def _failed(self, pace: Pace, fault: Fault, sent_at: float, now: float) -> None:
        """Record a fault: slow the server down, pause it, or set it aside.

        Raises:
            TeacherError: no server is left, or all have been busy for longer than ``patience_s``.
        """
        with self._turn:
            self._last_fault = fault
            pace.num_failed += 1
            if fault.kind == "refused":
                self._refused(pace, sent_at, now)
            elif fault.kind == "busy":
                self._busy(pace, fault, sent_at, now)
            elif fault.kind == "timeout":
                pace.overloaded(sent_at, now)
            else:
                pace.under_way -= 1
            if fault.retry_after_s is not None and fault.kind == "broken":
                pace.not_before = max(pace.not_before, now + min(fault.retry_after_s, self._patience_s))
            if len(self._servers) > 1 and pace.num_failed >= _SET_ASIDE_AFTER:
                wait_s = self._retries.wait_s(pace.num_failed)
                pace.not_before = max(pace.not_before, now + wait_s)
            self._turn.notify_all()

    def _refused(self, pace: Pace, sent_at: float, now: float) -> None:
        if pace.refused(sent_at, now):
            pace.not_before = max(pace.not_before, now + self._retries.wait_s(pace.num_refused))
        if all(other.num_refused >= self._retries.refused for _, other in self._servers):
            names = ", ".join(endpoint.url for endpoint, _ in self._servers)
            raise TeacherError(
                f"cannot reach the teacher at {names}",
                f"{self._last_fault.cause if self._last_fault else ''}, {pace.num_refused} times",
                f"start the server or correct teacher.url; {_RESUMABLE}",
            )

    def _busy(self, pace: Pace, fault: Fault, sent_at: float, now: float) -> None:
        """Halve the limit and pause all threads, as long as the server asks for, else for a growing time.

        Where the server asks for no pause, the first busy round only halves the limit; a second one without an answer
        in between starts a pause.
        """
        if self._busy_since is None:
            self._busy_since = sent_at
        give_up_at = self._busy_since + self._patience_s
        if now >= give_up_at:
            raise self._out_of_patience(fault)
        first = pace.overloaded(sent_at, now)
        pace.num_busy += first
        if fault.retry_after_s is not None:
            pace.not_before = max(pace.not_before, now + fault.retry_after_s)
        elif first and pace.num_busy > 1:
            # The last try comes when the patience ends, not some time before.
            pace.not_before = max(pace.not_before, min(now + self._retries.wait_s(pace.num_busy), give_up_at))
        next_try = min(other.not_before for _, other in self._servers)
        if next_try > give_up_at:
            raise self._out_of_patience(fault, next_try - now)
        if next_try > now and first:
            self._shows_pause = True
            self._show(f"paused: the server says it is busy; next try in {next_try - now:.0f} s")

    def _out_of_patience(self, fault: Fault, pause_s: float = 0.0) -> TeacherError:
        names = ", ".join(endpoint.url for endpoint, _ in self._servers)
        state = f"asks to wait {pause_s:,.0f} s" if pause_s else f"has been busy for {self._patience_s:,.0f} s"
        return TeacherError(
            f"{names} {state}",
            fault.cause,
            f"wait, or raise teacher.patience_s; {_RESUMABLE}",
        )
