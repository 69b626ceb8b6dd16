"""A small agent environment: questions and changes on a database, by tool calls in turns, with a check at the end.

It follows AgentBench (Liu et al. 2023, arXiv 2308.03688): the model sees a task, acts, sees the result, and acts again
until it answers or its turns are used up. The check reads the database, not the model's claims. The database is SQLite
in memory, one for each task, without access to files.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tunewright.models.chat_template import answer_text, encode_prompt, end_ids
from tunewright.models.generation import AnswerJob, answer_or_halve
from tunewright.records import Message, digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "agent-database"
MAX_TURNS = 6
_ACTION_TOKENS = 96
_SHOWN_ROWS, _SHOWN_CHARACTERS = 20, 600
_MOST_STEPS = 200_000  # of SQLite's virtual machine, for one statement
_BATCH = 16

_RULES = """You work on a database with one tool call a turn. Reply with one JSON object and nothing else, either
{"tool": "sql", "statement": "..."} to run one SQLite statement and see its rows, or
{"tool": "answer", "value": "..."} to end. Where the task asks for a change, make it, then answer "done".

Tables:
"""
_EXPECTED = 'expected one JSON object: {"tool": "sql", "statement": "..."} or {"tool": "answer", "value": "..."}'
_ALLOWED = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_RECURSIVE,
    }
)


@dataclass(frozen=True)
class DatabaseTask:
    """A task: its text, and the statement whose rows, or whose effect, are correct."""

    id: str
    ask: str
    gold: str
    changes: bool = False


@dataclass
class Episode:
    """A task in progress: its database, the conversation, and its end."""

    task: DatabaseTask
    base: sqlite3.Connection
    messages: list[Message]
    answer: str | None = None
    num_turns: int = 0
    num_valid: int = 0
    gold: Any = field(default=None)

    @property
    def is_over(self) -> bool:
        """Whether the model answered, or its turns are used up."""
        return self.answer is not None or self.num_turns >= MAX_TURNS


@cache
def _content() -> dict[str, Any]:
    file = files("tunewright.public_benchmarks").joinpath("database.json")
    content: dict[str, Any] = json.loads(file.read_bytes())
    return content


def content_digest() -> str:
    """Return a digest of the environment's tables, tasks and rules."""
    return digest(_content(), _RULES, MAX_TURNS, _ACTION_TOKENS)


def tasks() -> list[DatabaseTask]:
    """Return the tasks in their order."""
    return [DatabaseTask(**task) for task in _content()["tasks"]]


def open_database() -> sqlite3.Connection:
    """Return a new database in memory with the environment's tables; only rows can be read and changed."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    for statement in _content()["tables"]:
        base.execute(statement)
    for table, rows in _content()["rows"].items():
        base.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    base.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
    return base


def run_statement(base: sqlite3.Connection, statement: str) -> tuple[bool, str]:
    """Return whether a statement ran, and the text for the model: the first rows, or the error."""
    steps = iter(range(_MOST_STEPS // 1000))
    base.set_progress_handler(lambda: next(steps, None) is None, 1000)
    try:
        rows = base.execute(statement).fetchmany(_SHOWN_ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError) as error:
        return False, f"error: {error}"
    finally:
        base.set_progress_handler(None, 0)
    text = "\n".join(json.dumps(row, ensure_ascii=False, default=str) for row in rows[:_SHOWN_ROWS]) or "no rows"
    more = "\n(more rows)" if len(rows) > _SHOWN_ROWS else ""
    return True, text[:_SHOWN_CHARACTERS] + more


def _contents(base: sqlite3.Connection) -> list[list[str]]:
    """Return the sorted rows of every table."""
    return [sorted(map(repr, base.execute(f"SELECT * FROM {table}"))) for table in _content()["rows"]]


def begin(task: DatabaseTask) -> Episode:
    """Return a new episode; the correct result comes from a separate database."""
    gold = open_database()
    rows = gold.execute(task.gold).fetchall()
    prompt = _RULES + "\n".join(_content()["tables"]) + f"\n\nTask: {task.ask}"
    return Episode(
        task,
        open_database(),
        [Message(role="user", content=prompt)],
        gold=_contents(gold) if task.changes else rows[0][0],
    )


def read_action(reply: str) -> dict[str, str] | None:
    """Return the tool call of a reply: its first JSON object, if it names a tool and its argument; else None."""
    start = reply.find("{")
    if start < 0:
        return None
    try:
        call, _ = json.JSONDecoder().raw_decode(reply, start)
    except (ValueError, RecursionError):
        return None
    argument = {"sql": "statement", "answer": "value"}.get(str(call.get("tool")))
    if argument is None or not isinstance(call.get(argument), str | int | float):
        return None
    return {"tool": call["tool"], "argument": str(call[argument])}


def act(episode: Episode, reply: str) -> None:
    """Apply a reply to the episode: run the statement, record the answer, or reply with the expected form."""
    episode.num_turns += 1
    episode.messages.append(Message(role="assistant", content=reply))
    call = read_action(reply)
    if call is None:
        episode.messages.append(Message(role="user", content=_EXPECTED))
        return
    if call["tool"] == "answer":
        episode.num_valid += 1
        episode.answer = call["argument"]
        return
    ran, text = run_statement(episode.base, call["argument"])
    episode.num_valid += ran
    episode.messages.append(Message(role="user", content=text))


def succeeded(episode: Episode) -> bool:
    """Return whether the task is done: the database has the correct rows, or the answer is the correct value."""
    if episode.answer is None:
        return False
    if episode.task.changes:
        return bool(_contents(episode.base) == episode.gold)
    return _same(episode.answer, episode.gold) and _contents(episode.base) == _contents(open_database())


def _same(answer: str, gold: Any) -> bool:
    given, expected = answer.strip().strip("'\"").lower(), str(gold).lower()
    try:
        return math.isclose(float(given.replace(",", "")), float(expected), rel_tol=1e-6)
    except ValueError:
        return given == expected


def play(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, limit: int) -> dict[str, dict[str, float]]:
    """Play every task, turn by turn in batches; return success and the share of valid actions by task."""
    episodes = [begin(task) for task in tasks()[: limit or None]]
    ends = end_ids(tokenizer, model)
    while running := [episode for episode in episodes if not episode.is_over]:
        for start in range(0, len(running), _BATCH):
            _play_turn(running[start : start + _BATCH], model, tokenizer, ends)
    return {
        "success": {episode.task.id: float(succeeded(episode)) for episode in episodes},
        "valid_actions": {episode.task.id: episode.num_valid / episode.num_turns for episode in episodes},
    }


def _play_turn(
    episodes: Sequence[Episode], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]
) -> None:
    jobs = [AnswerJob(encode_prompt(tokenizer, tuple(episode.messages)), ()) for episode in episodes]
    outputs = answer_or_halve(model, jobs, _ACTION_TOKENS, ends, tokenizer.pad_token_id)
    for episode, job, output in zip(episodes, jobs, outputs, strict=True):
        act(episode, answer_text(tokenizer, job.prompt_ids, output.token_ids))
