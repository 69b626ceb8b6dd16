"""The call journal: every reply on disk before it is used, and no request paid for twice."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from tunewright import console
from tunewright.errors import RunFolderError
from tunewright.rundir import RunFolder
from tunewright.teacher.protocol import Reply

JOURNAL = "teacher.jsonl"
_REPLY = TypeAdapter(Reply)
_REPLY_FIELDS = ("text", "finish", "num_prompt_tokens", "num_tokens")


class CallJournal:
    """The replies of a run, by request key (:meth:`Request.key`)."""

    def __init__(self, run: RunFolder) -> None:
        self._journal = run.journal(JOURNAL)
        if self._journal.num_torn:
            console.warning(f"{JOURNAL}: the last reply was cut by a crash; it is asked for again")
        self._replies = {
            str(entry.get("key")): self._read(number, entry) for number, entry in enumerate(self._journal.entries, 1)
        }

    def _read(self, number: int, entry: dict[str, Any]) -> Reply:
        try:
            return _REPLY.validate_python({name: entry[name] for name in _REPLY_FIELDS})
        except (KeyError, ValidationError) as error:
            path = self._journal.path
            raise RunFolderError(
                f"{path} line {number} is not a teacher's reply",
                f"wrong or missing: {error}".splitlines()[0],
                f"delete that line: its call is then made again (sed -i {number}d '{path}')",
            ) from error

    def get(self, key: str) -> Reply | None:
        """Return the journalled reply to a request, or None."""
        return self._replies.get(key)

    def put(self, key: str, stage: str, model: str, reply: Reply, seconds: float) -> None:
        """Write a reply to disk; it may be used once this returns."""
        fields = {name: getattr(reply, name) for name in _REPLY_FIELDS}
        self._journal.append({"key": key, "stage": stage, "model": model, **fields, "seconds": round(seconds, 3)})
        self._replies[key] = reply
