"""Prompt files (chat turns under [system], [user] and [assistant] lines), and the parts of a user turn."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal, cast

from tunewright.records import Message

_TURN = re.compile(r"^\[(system|user|assistant)\]\n", re.MULTILINE)
_LABEL = re.compile(r"^\s*(?:question|q)\s*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_FIELD = re.compile(r"\{([a-z]+)\}")


@cache
def load_prompt(name: str, package: str) -> tuple[Message, ...]:
    """Return the turns of prompts/NAME.txt of a package; the text before the first turn is a comment."""
    pieces = _TURN.split(files(package).joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8"))
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    roles = Literal["system", "user", "assistant"]
    return tuple(Message(role=cast(roles, role), content=content.strip()) for role, content in turns)


def fill(prompt: tuple[Message, ...], **fields: str) -> tuple[Message, ...]:
    """Return the prompt with the {fields} of its last turn filled in; other braces are unchanged."""
    last = prompt[-1]
    content = _FIELD.sub(lambda match: fields.get(match[1], match[0]), last.content)
    return (*prompt[:-1], last.model_copy(update={"content": content}))


def split_prompt(turn: str) -> tuple[str, str]:
    """Return (context, question) of a user turn.

    A turn with a passage holds it before the question. The question is the text after the last "Question:" that starts
    a line, else the last paragraph; the context is the text before it.
    """
    turn = turn.strip()
    label = next(reversed(list(_LABEL.finditer(turn))), None)
    if label and turn[label.end() :].strip():
        return turn[: label.start()].strip(), turn[label.end() :].strip()
    context, _, question = turn.rpartition("\n\n")
    return context.strip(), question.strip()
