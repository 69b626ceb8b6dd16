"""The voices of a run: base and tuned over one loaded model, each answering token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.errors import UserError
from tunewright.models.chat_template import encode_prompt, end_ids
from tunewright.models.generation import MAX_NEW_TOKENS, stream
from tunewright.models.loading import for_inference, is_full, load_adapter, pick_device
from tunewright.models.student import student_base, student_tokenizer
from tunewright.pipeline import require
from tunewright.recipe import Recipe
from tunewright.records import Message
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm


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


class Voices:
    """Base and tuned, loaded when first heard; one base under both where an adapter makes the difference."""

    def __init__(self, run: RunFolder, recipe: Recipe) -> None:
        self._run, self._recipe = run, recipe

    @cached_property
    def tokenizer(self) -> Any:
        """The student's."""
        return student_tokenizer(self._recipe)

    @cached_property
    def _base(self) -> Any:
        console.line(f"loading {self._recipe.model.base}")
        return for_inference(student_base(self._recipe, pick_device(), self.tokenizer))

    @cached_property
    def _tuned(self) -> Any:
        return load_adapter(self._base, self._run.file(RunFile.ADAPTER))

    def load(self, voice: str) -> Any:
        """Return a voice's model.

        Raises:
            RunFolderError: the tuned voice is wanted of a run that has none yet.
            ModelError: the model is missing or damaged, or the adapter does not fit it.
        """
        if voice == Arm.BASE:
            return self._base
        require(self._run, RunFile.ADAPTER)
        return self._tuned

    def prompt_ids(self, voice: str, question: str, turns: Sequence[Turn]) -> list[int]:
        """Return the tokens of a question in its conversation; the oldest turns go where all do not fit the model.

        Raises:
            UserError: the question alone is too long.
        """
        config = self.load(voice).config.get_text_config()
        room = (getattr(config, "max_position_embeddings", None) or 1 << 30) - MAX_NEW_TOKENS
        for first in range(len(turns) + 1):
            ids = encode_prompt(self.tokenizer, prompt_for(voice, question, turns[first:], self._recipe.system_prompt))
            if len(ids) <= room:
                if first:
                    console.warning(f"{voice} has room for the last {len(turns) - first} of {len(turns)} turns")
                return ids
        raise UserError(
            f"the question is too long for {voice}", f"{len(ids)} tokens; there is room for {room}", "ask a shorter one"
        )

    def answer(self, voice: str, prompt_ids: Sequence[int]) -> Iterator[str]:
        """Yield a greedy answer piece by piece; between two pieces another voice may speak."""
        model = self.load(voice)
        pieces = stream(model, self.tokenizer, prompt_ids, MAX_NEW_TOKENS, end_ids(self.tokenizer, model))
        while True:
            with self._without_adapter(voice):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _without_adapter(self, voice: str) -> AbstractContextManager[Any]:
        shared = voice == Arm.BASE and "_tuned" in self.__dict__ and not is_full(self._run.file(RunFile.ADAPTER))
        return self._tuned.disable_adapter() if shared else nullcontext()
