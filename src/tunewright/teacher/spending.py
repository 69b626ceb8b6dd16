"""What calls cost, and a budget that no call may pass, not even at its worst."""

from __future__ import annotations

import json
import threading

from tunewright.errors import TeacherError
from tunewright.settings import TeacherSettings
from tunewright.teacher.protocol import Request

_TOKENS_PER_TURN = 16  # of the chat template, generously
_MILLION = 1_000_000


def most_prompt_tokens(request: Request) -> int:
    """Return a bound on a request's prompt tokens: byte-level vocabularies have no token of less than a byte."""
    texts = [request.raw, *(message.content for message in request.messages)]
    if request.schema is not None:
        texts.append(json.dumps(request.schema))
    num_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return num_bytes + _TOKENS_PER_TURN * (len(request.messages) + 1)


class Spending:
    """The dollars of a run folder: what was paid, and what the calls under way may come to. Safe between threads.

    Args:
        settings: the recipe's [teacher] or [judge], with its prices and budget.
        purse: which of the two.
        spent: what it has paid in this run folder so far.
    """

    def __init__(self, settings: TeacherSettings, purse: str = "teacher", spent: float = 0.0) -> None:
        self.purse = purse
        self._prices = (settings.price_prompt, settings.price_completion)
        self._budget = settings.budget
        self.spent = spent
        self._under_way = 0.0
        self._settled = threading.Condition()

    @property
    def has_prices(self) -> bool:
        """Whether calls cost anything."""
        return any(self._prices)

    def cost(self, num_prompt_tokens: int, num_tokens: int) -> float:
        """Return the dollars for so many tokens."""
        return (self._prices[0] * num_prompt_tokens + self._prices[1] * num_tokens) / _MILLION

    def reserve(self, request: Request) -> float:
        """Return what the call may cost at most, once the budget has room for it beside what is under way.

        Raises:
            TeacherError: it has no room, and nothing is under way that may turn out cheaper than feared.
        """
        worst = self.cost(most_prompt_tokens(request), request.max_tokens)
        with self._settled:
            while self._budget and self.spent + self._under_way + worst > self._budget:
                if not self._under_way:
                    raise TeacherError(
                        f"the next call may pass the budget of ${self._budget:,.2f}",
                        f"${self.spent:,.4f} are spent in this run folder; the call may cost ${worst:,.4f}",
                        f"every answer so far is kept; go on with a higher one: --set {self.purse}.budget=DOLLARS",
                    )
                self._settled.wait()
            self._under_way += worst
        return worst

    def settle(self, reserved: float, paid: float) -> None:
        """Put what a call cost in place of what it might have."""
        with self._settled:
            self._under_way = max(0.0, self._under_way - reserved)
            self.spent += paid
            self._settled.notify_all()
