"""Ollama's Modelfile, with a template that renders the prompts of the exam.

No Python library renders Go templates, so the few actions that exported templates need are interpreted here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewright.errors import ModelError
from tunewright.export.comparison import short_conversations
from tunewright.models.chat_template import end_ids, render
from tunewright.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ACTION = re.compile(r'\{\{\s*((?:"(?:\\.|[^"\\])*"|[^"}]|\}(?!\}))*?)\s*\}\}', re.DOTALL)
_ESCAPE = re.compile(r'\\(?:([nt"\\])|u([0-9a-f]{4})|U([0-9a-f]{8}))')
_LAST = "eq (len (slice $.Messages $i)) 1"


@dataclass
class _Block:
    """An if or a range: its condition, its body, and the body of its else."""

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

    Ollama joins neighbors of one role with an empty line between them. It gives all system texts, joined in the same
    way, as .System, and keeps the system turns among .Messages.

    Raises:
        ValueError: the template has an action that exported templates do not use.
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
        code = action[1]
        if code.startswith(("if ", "range ")):
            block = _Block(code)
            open_blocks[-1][1].append(block)
            open_blocks.append((block, block.inside))
        elif code == "else":
            open_blocks[-1] = (open_blocks[-1][0], open_blocks[-1][0].otherwise)
        elif code == "end":
            open_blocks.pop()
        else:
            open_blocks[-1][1].append(code)
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


def _action(code: str, values: dict[str, Any]) -> str:
    if code.startswith('"'):
        return _unquote(code)
    if code == ".Content":
        return str(values["message"].content)
    if code == "$.System":
        return str(values["System"])
    variable = re.fullmatch(r"(\$[a-z]+) :?= (.+)", code)
    if variable is None:
        raise ValueError(f"unknown action {code!r}")
    values[variable[1]] = _condition(variable[2], values)
    return ""


def _condition(code: str, values: dict[str, Any]) -> bool:
    role = re.fullmatch(r'eq \.Role "([a-z]+)"', code)
    if role:
        return bool(values["message"].role == role[1])
    if code == _LAST:
        return bool(values["$i"] == len(values["Messages"]) - 1)
    if code in ("true", "false"):
        return code == "true"
    if code == "$.System":
        return bool(values["System"])
    if code in values:
        return bool(values[code])
    raise ValueError(f"unknown condition {code!r}")


_SYSTEM = "QsystemQ"  # a text that no template writes or changes
_MOST_TURNS = 4


@dataclass(frozen=True)
class TurnPosition:
    """The position of a user's turn: first or not, last or not, in a conversation with a system turn or without."""

    first: bool
    last: bool
    system: bool


@dataclass(frozen=True)
class ChatShape:
    """The texts that a template writes around a conversation.

    Attributes:
        before_user: by the turn's position, the text between the turn before (or the beginning) and the user's text:
            two pieces where the system text is between them, else one.
        before_answer: the text between a user's text and its answer in an earlier turn.
        before_last_answer: the text after the last user's text: the prompt ends with it.
        trimmed: the roles whose text loses the white space at its ends.
    """

    before_user: Mapping[TurnPosition, tuple[str, ...]]
    before_answer: str
    before_last_answer: str
    trimmed: frozenset[str]


def shape_of_template(tokenizer: PreTrainedTokenizerBase) -> ChatShape:
    """Return the texts that the template writes around a conversation.

    Raises:
        ModelError: they depend on more than a turn's position.
    """
    before_user: dict[TurnPosition, tuple[str, ...]] = {}
    middles: set[str] = set()
    ends: set[str] = set()
    for system in (False, True):
        for num_turns in range(1, _MOST_TURNS + 1):
            texts = _between(tokenizer, num_turns, system)
            for number, text in enumerate(texts[:-1:2]):
                position = TurnPosition(number == 0, number == num_turns - 1, system)
                pieces = tuple(text.split(_SYSTEM))
                if before_user.setdefault(position, pieces) != pieces or len(pieces) > 2:
                    raise _inexpressible("the text before a question depends on more than the question's position")
            middles.update(texts[1:-1:2])
            ends.add(texts[-1])
    if len(middles) > 1 or len(ends) > 1:
        raise _inexpressible("the text before an answer depends on the answer's position")
    return ChatShape(before_user, middles.pop(), ends.pop(), _trimmed(tokenizer))


def _inexpressible(why: str) -> ModelError:
    return ModelError(
        "the chat template cannot be converted to an Ollama template",
        why,
        "serve the GGUF with llama.cpp, which reads the template itself: tunewright export DIR --to gguf",
    )


def _conversation(num_turns: int, system: bool) -> list[Message]:
    turns = [Message(role="system", content=_SYSTEM)] if system else []
    for number in range(num_turns):
        turns.append(Message(role="user", content=f"Quser{number}Q"))
        turns.append(Message(role="assistant", content=f"Qanswer{number}Q"))
    return turns[:-1]


def _between(tokenizer: PreTrainedTokenizerBase, num_turns: int, system: bool) -> list[str]:
    """Return the texts before, between and after the turns of users and assistants."""
    messages = _conversation(num_turns, system)
    rest = render(tokenizer, messages, add_generation_prompt=True)
    texts = []
    for message in messages[1 if system else 0 :]:
        before, match, rest = rest.partition(message.content)
        if not match:
            raise _inexpressible("it leaves out turns, or changes their text")
        texts.append(before)
    return [*texts, rest]


def _trimmed(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Return the roles whose white space at the ends the template removes."""

    def spaced(role: str) -> Sequence[Message]:
        return [
            message.model_copy(update={"content": f"  {message.content}  "}) if message.role == role else message
            for message in _conversation(2, True)
        ]

    words = {"system": _SYSTEM, "user": "Quser0Q", "assistant": "Qanswer0Q"}
    rendered = {role: render(tokenizer, spaced(role), add_generation_prompt=True) for role in words}
    return frozenset(role for role, word in words.items() if f"  {word}  " not in rendered[role])


MODEL_FILE = "model.gguf"
_MOST_CONTEXT_TOKENS = 8192  # Ollama takes the memory for all of them at once


def modelfile(tokenizer: PreTrainedTokenizerBase, context_tokens: int, bos_added: bool, system_prompt: str = "") -> str:
    """Return the Modelfile: greedy decoding, without Ollama's penalty on repetition, which would change the answers.

    Args:
        tokenizer: with its chat template.
        context_tokens: the most tokens that the model computes correctly.
        bos_added: whether the GGUF makes llama.cpp add the beginning-of-text token to every prompt.
        system_prompt: Ollama adds it to a chat without a system turn, as chat and serve do.

    Raises:
        ModelError: Ollama's language cannot express the template, or a Modelfile the system prompt.
    """
    if '"""' in system_prompt:
        raise ModelError(
            "the system prompt cannot be written in a Modelfile",
            'it holds """, which ends a text in a Modelfile',
            "serve the GGUF with llama.cpp: tunewright export DIR --to gguf",
        )
    template, shape = go_template(tokenizer, bos_added)
    stops = [tokenizer.convert_ids_to_tokens(number) for number in end_ids(tokenizer, None)]
    lines = [f"FROM ./{MODEL_FILE}", f'TEMPLATE """{template}"""']
    lines += [f'SYSTEM """{system_prompt}"""'] if system_prompt else []
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_ctx {min(context_tokens, _MOST_CONTEXT_TOKENS)}",
    ]
    if shape.trimmed:
        roles = ", ".join(sorted(shape.trimmed))
        lines.insert(0, f"# Trained without white space at the ends of these turns: {roles}. Ollama sends it as it is.")
    return "\n".join(lines) + "\n"


def template_in(content: str) -> str:
    """Return the template of a Modelfile."""
    return content.partition('TEMPLATE """')[2].partition('"""\n')[0]


def go_template(tokenizer: PreTrainedTokenizerBase, bos_added: bool) -> tuple[str, ChatShape]:
    """Return the chat template in Ollama's language, tested on conversations, and the shape it was made from.

    Raises:
        ModelError: Ollama's language cannot express the template.
    """
    shape = shape_of_template(tokenizer)
    bos = tokenizer.bos_token if bos_added else ""
    template = _write(shape, bos)
    for messages in short_conversations():
        expected = render(tokenizer, messages, add_generation_prompt=True)
        if bos + render_go(template, messages) != expected:
            raise ModelError(
                "the chat template cannot be converted to an Ollama template",
                f"it renders {messages[-1].content[:40]!r} in its own way",
                "serve the GGUF with llama.cpp, which reads the template itself: tunewright export DIR --to gguf",
            )
    return template, shape


def _write(shape: ChatShape, bos: str) -> str:
    """Return the template on one line, its texts as literals: no white space of the file gets in."""
    first = _by_last(shape, True, bos)
    later = _by_last(shape, False, "")
    question = _choose("$first", first, later) + "{{ .Content }}"
    question += _choose("$last", _literal(shape.before_last_answer), _literal(shape.before_answer))
    return (
        "{{ $first := true }}{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{question}{{{{ $first = false }}}}{{{{ end }}}}'
        '{{ if eq .Role "assistant" }}{{ .Content }}{{ end }}{{ end }}'
    )


def _by_last(shape: ChatShape, first: bool, bos: str) -> str:
    last, not_last = (_by_system(shape, first, last, bos) for last in (True, False))
    return _choose("$last", last, not_last)


def _by_system(shape: ChatShape, first: bool, last: bool, bos: str) -> str:
    with_system, without = (
        _pieces(shape.before_user[TurnPosition(first, last, system)], bos) for system in (True, False)
    )
    return _choose("$.System", with_system, without)


def _pieces(pieces: tuple[str, ...], bos: str) -> str:
    head = _literal(pieces[0].removeprefix(bos))
    return head + "".join("{{ $.System }}" + _literal(piece) for piece in pieces[1:])


def _choose(condition: str, then: str, otherwise: str) -> str:
    if then == otherwise:
        return then
    return f"{{{{ if {condition} }}}}{then}{{{{ else }}}}{otherwise}{{{{ end }}}}"


def _literal(text: str) -> str:
    return f"{{{{ {quote(text)} }}}}" if text else ""
