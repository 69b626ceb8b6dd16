"""How many calls one server gets at once, and when: additive increase, multiplicative decrease."""

from __future__ import annotations

from dataclasses import dataclass, field

START = 8  # calls at once before a server has shown what it bears
_SLOW = 3.0  # times the quickest window's seconds per call: the server queues, more calls at once bring nothing
_FORGETTING = 1.02  # per window, so that a turn to longer answers is not taken for overload for ever


@dataclass
class Pace:
    """The calls that one server may have under way; all times are in seconds, of one clock.

    The limit grows by one per window of answered calls, as long as their time stays below three times the quickest
    window's, and halves on overload, at most once per round of calls: AIMD (Chiu and Jain 1989, "Analysis of the
    increase and decrease algorithms for congestion avoidance in computer networks", as in TCP).

    Attributes:
        most: the limit never exceeds it.
        limit: calls that may be under way now.
        under_way: calls that are.
        not_before: no call is sent before this time.
        num_refused: rounds in a row that brought no connection.
        num_busy: rounds in a row in which the server said that it is busy.
        num_failed: calls in a row that brought nothing usable.
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
        """Tell whether one more call may be under way."""
        return self.under_way < self.limit

    def answered(self, seconds: float) -> None:
        """Note a call's end with an answer."""
        if 2 * self.under_way > self.limit:  # else the limit was not tried
            self._window.append(seconds)
        self.heard()
        if len(self._window) >= self.limit:
            self._grow()

    def heard(self) -> None:
        """Note a call's end with a word that the server is at work, if only that it rejects this one request."""
        if self.num_refused:  # it is back from nowhere, which says nothing about what it bears
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
        """Note a call's end in overload; return whether it is the first of its round, and so halves the limit."""
        return self._cut(sent_at, now, max(1, self.limit // 2))

    def refused(self, sent_at: float, now: float) -> bool:
        """Note a call that brought no connection; return whether it is the first of its round: one call tries next."""
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
