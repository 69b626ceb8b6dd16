"""A conversation of several voices: what each was asked and heard, and how it reads on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunewright.records import Message


@dataclass(frozen=True)
class Turn:
    """A question and the answers to it, by voice."""

    question: str
    answers: Mapping[str, str]

    def heard_by(self, voice: str) -> str:
        """Return the voice's own answer; where it was silent, what another one said in its place."""
        return self.answers.get(voice) or next(iter(self.answers.values()))


def prompt_for(voice: str, question: str, turns: Sequence[Turn], system_prompt: str) -> tuple[Message, ...]:
    """Return what a voice is asked to continue: the system prompt, the conversation as it heard it, the question."""
    messages = [Message(role="system", content=system_prompt)] if system_prompt else []
    for turn in turns:
        messages += [
            Message(role="user", content=turn.question),
            Message(role="assistant", content=turn.heard_by(voice)),
        ]
    return (*messages, Message(role="user", content=question))


def as_markdown(title: str, turns: Sequence[Turn]) -> str:
    """Return the conversation for a page: each question, and each answer under its voice's name."""
    parts = [f"# {title}"]
    for turn in turns:
        parts.append(f"**you**\n\n{turn.question}")
        parts += [f"**{voice}**\n\n{answer}" for voice, answer in turn.answers.items()]
    return "\n\n".join(parts) + "\n"


def append_to(path: Path, text: str) -> bool:
    """Write text to a file, behind what stands there already; return whether something stood there."""
    existed = path.exists() and path.stat().st_size > 0
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n" + text if existed else text)
    return existed
