"""The call journal: every reply on disk before it is used, and no request paid for twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tunewright import console
from tunewright.errors import RunFolderError, TeacherError, shell
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import TeacherSettings
from tunewright.teacher.protocol import Reply, Request

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
        self._prices = settings.price
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


JOURNAL = RunFile.TEACHER_JOURNAL
_FINISHES = ("stop", "length", "other")
_KINDS = {"text": str, "finish": str, "num_prompt_tokens": int, "num_tokens": int}


@dataclass(eq=False)
class _Entry:
    """A reply on its way to the disk, and what became of it."""

    content: dict[str, Any]
    woken: threading.Event = field(default_factory=threading.Event)
    is_done: bool = False
    is_written: bool = False
    error: Exception | None = None


def purse_of(stage: str) -> str:
    """Return the section of the recipe whose budget pays for a stage's calls."""
    return "judge" if stage == "judge" else "teacher"


class CallJournal:
    """The replies of a run, by request key (:meth:`Request.key`). Safe between threads."""

    def __init__(self, run: RunFolder) -> None:
        self._journal = run.journal(JOURNAL)
        if self._journal.num_torn:
            console.warning(f"{JOURNAL}: the last reply was cut by a crash; it is asked for again")
        self._replies = {
            str(entry.get("key")): self._read(number, entry) for number, entry in enumerate(self._journal.entries, 1)
        }
        self.models = frozenset(str(entry.get("model")) for entry in self._journal.entries)  # that answered before
        self._waiting: list[_Entry] = []
        self._is_writing = False
        self._list = threading.Lock()  # of the two above
        self._disk = threading.Lock()
        self._closed = False

    def _read(self, number: int, entry: dict[str, Any]) -> Reply:
        # By hand: pydantic takes three times as long, and a long run's journal is read at every start.
        wrong = [name for name, kind in _KINDS.items() if type(entry.get(name)) is not kind]
        if wrong or entry["finish"] not in _FINISHES:
            path = self._journal.path
            raise RunFolderError(
                f"{path} line {number} is not a teacher's reply",
                f"wrong or missing: {', '.join(wrong) or 'finish'}",
                f"delete that line: its call is then made again ({shell('sed', '-i', f'{number}d', path)})",
            )
        return Reply(entry["text"], entry["finish"], entry["num_prompt_tokens"], entry["num_tokens"])

    def get(self, key: str) -> Reply | None:
        """Return the journaled reply to a request, or None."""
        return self._replies.get(key)

    def spent(self, purse: str, models: frozenset[str], price: Callable[[int, int], float]) -> float:
        """Return what a purse (:func:`purse_of`) has paid: as noted, or else at the price given for these models."""
        total = 0.0
        for entry in self._journal.entries:
            if purse_of(str(entry.get("stage"))) != purse:
                continue
            if "cost" in entry:
                total += float(entry["cost"])
            elif entry.get("model") in models:
                total += price(entry["num_prompt_tokens"], entry["num_tokens"])
        return total

    def put(self, key: str, stage: str, model: str, reply: Reply, cost: float = 0.0) -> bool:
        """Write a reply to disk; it may be used once this returns. After ``close``, nothing is written (False).

        Replies of several threads share one write: the first to come writes what all have handed in.

        Raises:
            DiskFullError: no space; the reply is not kept.
        """
        entry: dict[str, Any] = {"key": key, "stage": stage, "model": model}
        entry |= {name: getattr(reply, name) for name in _KINDS} | {"seconds": round(reply.seconds, 3)}
        entry |= {"cost": cost} if cost else {}
        mine = _Entry(entry)
        with self._list:
            self._waiting.append(mine)
            my_turn, self._is_writing = not self._is_writing, True
        if not my_turn:
            mine.woken.wait()  # it is written, or it is the first of those that are left to be
        if not mine.is_done:
            self._write()
        if mine.error:
            raise mine.error
        if mine.is_written:
            self._replies[key] = reply
        return mine.is_written

    def _write(self) -> None:
        """Write what has been handed in, wake those who wait for it, and let the next one write the rest."""
        with self._disk:
            with self._list:
                batch, self._waiting = self._waiting, []
            try:
                if not self._closed:
                    self._journal.append(*[one.content for one in batch])
                    for one in batch:
                        one.is_written = True
            except Exception as error:  # for all whose replies it concerns
                for one in batch:
                    one.error = error
        with self._list:
            self._is_writing = bool(self._waiting)
            following = self._waiting[:1]
        for one in batch:
            one.is_done = True
        for one in [*batch, *following]:
            one.woken.set()

    def close(self) -> None:
        """Write nothing more."""
        with self._disk:
            self._closed = True
