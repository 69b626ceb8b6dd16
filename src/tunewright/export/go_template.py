"""The part of Go's text/template that exported templates are written in, rendered as Ollama does.

Only what `ollama.py` writes: literals, fields of the conversation, variables, if, range. Anything else is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright.records import Message

_ACTION = re.compile(r'\{\{\s*((?:"(?:\\.|[^"\\])*"|[^"}]|\}(?!\}))*?)\s*\}\}', re.DOTALL)
_ESCAPE = re.compile(r'\\(?:([nt"\\])|u([0-9a-f]{4})|U([0-9a-f]{8}))')
_LAST = "eq (len (slice $.Messages $i)) 1"


@dataclass
class _Block:
    """An if or a range: its condition, what is inside, and what is inside its else."""

    condition: str
    inside: list[Any] = field(default_factory=list)
    otherwise: list[Any] = field(default_factory=list)


def quote(text: str) -> str:
    """Return a Go string literal in ASCII."""
    short = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
    return '"' + "".join(short.get(character) or _escape(character) for character in text) + '"'


def _escape(character: str) -> str:
    number = ord(character)
    if 0x20 <= number < 0x7F:
        return character
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _unquote(literal: str) -> str:
    def character(match: re.Match[str]) -> str:
        if match[1]:
            return {"n": "\n", "t": "\t"}.get(match[1], match[1])
        return chr(int(match[2] or match[3], 16))

    return _ESCAPE.sub(character, literal[1:-1])


def render_go(template: str, messages: Sequence[Message]) -> str:
    """Render a conversation as Ollama does with such a template.

    Ollama joins neighbors of one role with an empty line between, and gives all system texts, joined likewise, as
    .System, while the system turns stay among .Messages.

    Raises:
        ValueError: the template has something that exported templates have not.
    """
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            joined[-1] = message.model_copy(update={"content": f"{joined[-1].content}\n\n{message.content}"})
        else:
            joined.append(message)
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    tree = _parse(template)
    return "".join(_run(tree, {"System": system, "Messages": joined}))


def _parse(template: str) -> list[Any]:
    root = _Block("")
    open_blocks = [(root, root.inside)]
    end = 0
    for action in _ACTION.finditer(template):
        open_blocks[-1][1].append(_Literal(template[end : action.start()]))
        end = action.end()
        words = action[1]
        if words.startswith(("if ", "range ")):
            block = _Block(words)
            open_blocks[-1][1].append(block)
            open_blocks.append((block, block.inside))
        elif words == "else":
            open_blocks[-1] = (open_blocks[-1][0], open_blocks[-1][0].otherwise)
        elif words == "end":
            open_blocks.pop()
        else:
            open_blocks[-1][1].append(words)
    if len(open_blocks) != 1 or "{{" in template[end:]:
        raise ValueError("the template's blocks do not close")
    return [*root.inside, _Literal(template[end:])]


class _Literal(str):
    """Text outside of actions."""


def _run(nodes: Sequence[Any], values: dict[str, Any]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, _Literal):
            yield str(node)
        elif isinstance(node, str):
            yield _action(node, values)
        elif node.condition == "range $i, $_ := .Messages":
            for number, message in enumerate(values["Messages"]):
                values |= {"message": message, "$i": number}
                yield from _run(node.inside, values)
        else:
            truth = _condition(node.condition.removeprefix("if "), values)
            yield from _run(node.inside if truth else node.otherwise, values)


def _action(words: str, values: dict[str, Any]) -> str:
    if words.startswith('"'):
        return _unquote(words)
    if words == ".Content":
        return str(values["message"].content)
    if words == "$.System":
        return str(values["System"])
    variable = re.fullmatch(r"(\$[a-z]+) :?= (.+)", words)
    if variable is None:
        raise ValueError(f"unknown action {words!r}")
    values[variable[1]] = _condition(variable[2], values)
    return ""


def _condition(words: str, values: dict[str, Any]) -> bool:
    role = re.fullmatch(r'eq \.Role "([a-z]+)"', words)
    if role:
        return bool(values["message"].role == role[1])
    if words == _LAST:
        return bool(values["$i"] == len(values["Messages"]) - 1)
    if words in ("true", "false"):
        return words == "true"
    if words == "$.System":
        return bool(values["System"])
    if words in values:
        return bool(values[words])
    raise ValueError(f"unknown condition {words!r}")
