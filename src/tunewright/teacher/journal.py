"""The call journal (each reply is on disk before it is used, no request is paid for twice) and the budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunewright import console
from tunewright.errors import RunFolderError, TeacherError, shell
from tunewright.run_folder import Journal
from tunewright.settings import TeacherSettings
from tunewright.teacher.protocol import Dialect, Finish, Reply, Request, most_prompt_tokens
from tunewright.text.normalization import replace_lone_surrogates

_MILLION = 1_000_000


class Spending:
    """The dollars spent in a run folder, and the most that the calls under way may cost; safe to share between threads.

    Args:
        settings: the recipe's [teacher], or its [judge] as one, with prices and budget.
        section: "teacher" or "judge".
        spent: US dollars spent so far.
    """

    def __init__(self, settings: TeacherSettings, section: str = "teacher", spent: float = 0.0) -> None:
        self.section = section
        self._prices = settings.price
        self._budget = settings.budget
        self.spent = spent
        self._under_way = 0.0
        self._num_under_way = 0  # the sum above may leave a rest of rounding when no call is
        self._settled = threading.Condition()

    def cost(self, num_prompt_tokens: int, num_tokens: int) -> float:
        """Return the US dollars for so many tokens."""
        return (self._prices[0] * num_prompt_tokens + self._prices[1] * num_tokens) / _MILLION

    def reserve(self, request: Request) -> float:
        """Wait until the budget has room for a call at its highest cost; return that cost.

        Raises:
            TeacherError: there is no room, and no call is under way that may cost less than reserved.
        """
        worst = self.cost(most_prompt_tokens(request), request.max_tokens + request.room)
        with self._settled:
            while self._budget and self.spent + self._under_way + worst > self._budget:
                if not self._num_under_way:
                    raise TeacherError(
                        f"the next call may exceed the budget of ${self._budget:,.2f}",
                        f"${self.spent:,.4f} have been spent in this run folder; the call may cost ${worst:,.4f}",
                        f"all answers so far are kept; to continue, raise it: --set {self.section}.budget=DOLLARS",
                    )
                self._settled.wait()
            self._under_way += worst
            self._num_under_way += 1
        return worst

    def settle(self, reserved: float, paid: float) -> None:
        """Replace a call's reserved cost by its real one."""
        with self._settled:
            self._num_under_way -= 1
            self._under_way = max(0.0, self._under_way - reserved) if self._num_under_way else 0.0
            self.spent += paid
            self._settled.notify_all()


_FINISHES = ("stop", "length", "other", "malformed")
_KINDS = {"text": str, "finish": str, "num_prompt_tokens": int, "num_tokens": int}


@dataclass(eq=False)
class _Entry:
    """A reply that waits to be written."""

    content: dict[str, Any]
    woken: threading.Event = field(default_factory=threading.Event)
    is_done: bool = False
    is_written: bool = False
    error: Exception | None = None


def budget_section(stage: str) -> str:
    """Return the section of the recipe whose budget pays for a stage's calls."""
    return "judge" if stage == "judge" else "teacher"


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def read_dialect(content: Any) -> Dialect:
    """Return how a server has to be asked, from a journal's entry; what is malformed is left out, and learned again."""
    changes, room = _mapping(content).get("changes"), _mapping(content).get("room")
    return Dialect(
        {change: str(cause) for change, cause in _mapping(changes).items()}, room if type(room) is int else 0
    )


class CallJournal:
    """The replies of a run, by request key (:meth:`Request.key`); safe to share between threads.

    Raises:
        RunFolderError: an entry is not a reply.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        if self._journal.num_torn:
            console.warning(f"{journal.path.name}: a crash cut the last reply; its call is made again")
        self._replies = {
            str(entry.get("key")): self._read(number, entry) for number, entry in enumerate(self._journal.entries, 1)
        }
        self.models = frozenset(str(entry.get("model")) for entry in self._journal.entries)  # of earlier replies
        self.dialects = {
            url: read_dialect(content)
            for entry in self._journal.entries
            for url, content in (_mapping(entry.get("servers"))).items()
        }
        self._waiting: list[_Entry] = []
        self._is_writing = False
        self._list = threading.Lock()  # guards the two above
        self._disk = threading.Lock()
        self._closed = False

    def _read(self, number: int, entry: dict[str, Any]) -> Reply:
        # Checked by hand: pydantic takes three times as long, and the journal is read at every start.
        wrong = [name for name, kind in _KINDS.items() if type(entry.get(name)) is not kind]
        if wrong or entry["finish"] not in _FINISHES:
            path = self._journal.path
            raise RunFolderError(
                f"{path} line {number} is not a teacher's reply",
                f"wrong or missing: {', '.join(wrong) or 'finish'}",
                f"delete that line, and its call is made again ({shell('sed', '-i', f'{number}d', path)})",
            )
        text = replace_lone_surrogates(entry["text"])
        finish: Finish = entry["finish"] if text == entry["text"] else "malformed"  # written by version 0.1
        return Reply(text, finish, entry["num_prompt_tokens"], entry["num_tokens"])

    def get(self, key: str) -> Reply | None:
        """Return the journaled reply to a request, or None."""
        return self._replies.get(key)

    def spent(self, section: str, models: frozenset[str], price: Callable[[int, int], float]) -> float:
        """Return the dollars spent by a budget section: the recorded costs, else these models' tokens at ``price``."""
        total = 0.0
        for entry in self._journal.entries:
            if budget_section(str(entry.get("stage"))) != section:
                continue
            if "cost" in entry:
                total += float(entry["cost"])
            elif entry.get("model") in models:
                total += price(entry["num_prompt_tokens"], entry["num_tokens"])
        return total

    def put(
        self,
        key: str,
        stage: str,
        model: str,
        reply: Reply,
        cost: float = 0.0,
        dialects: Mapping[str, Dialect] | None = None,
    ) -> bool:
        """Write a reply to disk and return True; after ``close``, write nothing and return False.

        Replies of several threads share one write: the first thread writes all that are waiting. How servers have to
        be asked is written with the first reply after it was learned.

        Raises:
            DiskFullError: no space; the reply is not kept.
        """
        entry: dict[str, Any] = {"key": key, "stage": stage, "model": model}
        entry |= {name: getattr(reply, name) for name in _KINDS} | {"seconds": round(reply.seconds, 3)}
        entry |= {"cost": cost} if cost else {}
        learned = {url: dialect for url, dialect in (dialects or {}).items() if self.dialects.get(url) != dialect}
        if learned:
            entry["servers"] = {url: {"changes": dict(d.changes), "room": d.room} for url, d in learned.items()}
            self.dialects |= learned
        mine = _Entry(entry)
        with self._list:
            self._waiting.append(mine)
            my_turn, self._is_writing = not self._is_writing, True
        if not my_turn:
            mine.woken.wait()  # until it is written, or is the first of the entries that are not
        if not mine.is_done:
            self._write()
        if mine.error:
            raise mine.error
        if mine.is_written:
            self._replies[key] = reply
        return mine.is_written

    def _write(self) -> None:
        """Write the waiting entries, wake their threads, and let the next thread write the rest."""
        with self._disk:
            with self._list:
                batch, self._waiting = self._waiting, []
            try:
                if not self._closed:
                    self._journal.append(*[entry.content for entry in batch])
                    for entry in batch:
                        entry.is_written = True
            except Exception as error:  # each thread of the batch raises it
                for entry in batch:
                    entry.error = error
        with self._list:
            self._is_writing = bool(self._waiting)
            following = self._waiting[:1]
        for entry in batch:
            entry.is_done = True
        for entry in [*batch, *following]:
            entry.woken.set()

    def close(self) -> None:
        """Write nothing more."""
        with self._disk:
            self._closed = True
