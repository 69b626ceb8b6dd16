"""The call journal: every reply on disk before it is used, and no request paid for twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tunewright import console
from tunewright.errors import RunFolderError
from tunewright.rundir import RunFolder
from tunewright.teacher.protocol import Reply

JOURNAL = "teacher.jsonl"
_FINISHES = ("stop", "length", "other")
_KINDS = {"text": str, "finish": str, "num_prompt_tokens": int, "num_tokens": int}


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
        self._waiting: list[dict[str, Any]] = []
        self._num_given = self._num_written = 0
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
                f"delete that line: its call is then made again (sed -i {number}d '{path}')",
            )
        return Reply(entry["text"], entry["finish"], entry["num_prompt_tokens"], entry["num_tokens"])

    def get(self, key: str) -> Reply | None:
        """Return the journalled reply to a request, or None."""
        return self._replies.get(key)

    def spent(self, models: frozenset[str], price: Callable[[int, int], float]) -> float:
        """Return what the journalled calls cost: as noted, or at the given price for these models where it was not."""
        total = 0.0
        for entry in self._journal.entries:
            if "cost" in entry:
                total += float(entry["cost"])
            elif entry.get("model") in models:
                total += price(entry["num_prompt_tokens"], entry["num_tokens"])
        return total

    def put(self, key: str, stage: str, model: str, reply: Reply, cost: float = 0.0) -> bool:
        """Write a reply to disk; it may be used once this returns. After ``close``, nothing is written (False).

        Replies of several threads share one write: whoever gets hold of the disk writes what all have handed in.
        """
        entry: dict[str, Any] = {"key": key, "stage": stage, "model": model}
        entry |= {name: getattr(reply, name) for name in _KINDS} | {"seconds": round(reply.seconds, 3)}
        entry |= {"cost": cost} if cost else {}
        with self._list:
            self._waiting.append(entry)
            self._num_given += 1
            ticket = self._num_given
        with self._disk:
            if self._closed:
                return False
            if self._num_written < ticket:
                self._write()
        self._replies[key] = reply
        return True

    def _write(self) -> None:
        with self._list:
            batch, self._waiting = self._waiting, []
            number = self._num_given
        try:
            self._journal.append(*batch)
        except BaseException:
            with self._list:
                self._waiting = batch + self._waiting
            raise
        self._num_written = number

    def close(self) -> None:
        """Write nothing more."""
        with self._disk:
            self._closed = True
