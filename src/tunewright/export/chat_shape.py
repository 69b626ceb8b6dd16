"""What a chat template writes around what is said, found out by rendering marked conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.errors import ModelError
from tunewright.models.template import render
from tunewright.records import Message

_SYSTEM = "QsystemQ"  # words that no template writes, and that none changes
_MOST_TURNS = 4


@dataclass(frozen=True)
class Place:
    """Where a user's turn stands: first or not, last or not, in a conversation with a system turn or without."""

    first: bool
    last: bool
    system: bool


@dataclass(frozen=True)
class ChatShape:
    """A template's words.

    Attributes:
        before_user: by place, what stands between the turn before (or the beginning) and the user's text: the pieces
            between which the system text stands; one piece where it does not.
        before_answer: what stands between a user's text and the answer to it in an earlier turn.
        before_last_answer: what stands behind the last user's text: the prompt ends with it.
        trimmed: the roles whose text loses the white space at its ends.
    """

    before_user: Mapping[Place, tuple[str, ...]]
    before_answer: str
    before_last_answer: str
    trimmed: frozenset[str]


def shape_of_template(tokenizer: Any) -> ChatShape:
    """Return the words that the template writes around a conversation.

    Raises:
        ModelError: they depend on more than a turn's place.
    """
    before_user: dict[Place, tuple[str, ...]] = {}
    middles: set[str] = set()
    ends: set[str] = set()
    for system in (False, True):
        for num_turns in range(1, _MOST_TURNS + 1):
            texts = _between(tokenizer, num_turns, system)
            for number, text in enumerate(texts[:-1:2]):
                place = Place(number == 0, number == num_turns - 1, system)
                pieces = tuple(text.split(_SYSTEM))
                if before_user.setdefault(place, pieces) != pieces or len(pieces) > 2:
                    raise _inexpressible("what it writes before a question depends on more than the question's place")
            middles.update(texts[1:-1:2])
            ends.add(texts[-1])
    if len(middles) > 1 or len(ends) > 1:
        raise _inexpressible("what it writes before an answer depends on the answer's place")
    return ChatShape(before_user, middles.pop(), ends.pop(), _trimmed(tokenizer))


def _inexpressible(why: str) -> ModelError:
    return ModelError(
        "the chat template cannot be written in Ollama's language",
        why,
        "serve the GGUF with llama.cpp, which reads the template itself: tunewright export DIR --to gguf",
    )


def _conversation(num_turns: int, system: bool) -> list[Message]:
    spoken = [Message(role="system", content=_SYSTEM)] if system else []
    for number in range(num_turns):
        spoken.append(Message(role="user", content=f"Quser{number}Q"))
        spoken.append(Message(role="assistant", content=f"Qanswer{number}Q"))
    return spoken[:-1]


def _between(tokenizer: Any, num_turns: int, system: bool) -> list[str]:
    """Return what stands before, between and behind the turns of users and assistants."""
    messages = _conversation(num_turns, system)
    rest = render(tokenizer, messages, add_generation_prompt=True)
    texts = []
    for message in messages[1 if system else 0 :]:
        before, found, rest = rest.partition(message.content)
        if not found:
            raise _inexpressible("it leaves out turns, or changes their text")
        texts.append(before)
    return [*texts, rest]


def _trimmed(tokenizer: Any) -> frozenset[str]:
    """Return the roles whose white space at the ends is taken away."""

    def spaced(role: str) -> Sequence[Message]:
        return [
            message.model_copy(update={"content": f"  {message.content}  "}) if message.role == role else message
            for message in _conversation(2, True)
        ]

    words = {"system": _SYSTEM, "user": "Quser0Q", "assistant": "Qanswer0Q"}
    rendered = {role: render(tokenizer, spaced(role), add_generation_prompt=True) for role in words}
    return frozenset(role for role, word in words.items() if f"  {word}  " not in rendered[role])
