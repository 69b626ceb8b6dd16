"""Base and tuned over one loaded model, each answering token by token; the turns of a chat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.errors import RunFolderError, UserError, command
from tunewright.models.chat_template import encode_prompt, end_ids, opens_reasoning
from tunewright.models.generation import MAX_NEW_TOKENS, stream
from tunewright.models.loading import for_inference, is_full, load_adapter, pick_device
from tunewright.models.student import student_base, student_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import Message
from tunewright.settings import Arm
from tunewright.text.reasoning import OPENING, stream_without_reasoning


@dataclass(frozen=True)
class Turn:
    """A question and its answers by arm."""

    question: str
    answers: Mapping[str, str]

    def answer_for(self, arm: str) -> str:
        """Return the arm's own answer; where it has none, another arm's."""
        return self.answers.get(arm) or next(iter(self.answers.values()))


def prompt_for(arm: str, question: str, turns: Sequence[Turn], system_prompt: str) -> tuple[Message, ...]:
    """Return the messages that an arm continues: system prompt, conversation with its own answers, question."""
    messages = [Message(role="system", content=system_prompt)] if system_prompt else []
    for turn in turns:
        messages += [
            Message(role="user", content=turn.question),
            Message(role="assistant", content=turn.answer_for(arm)),
        ]
    return (*messages, Message(role="user", content=question))


def as_markdown(title: str, turns: Sequence[Turn]) -> str:
    """Return the conversation as Markdown: each question, and each answer under its arm's name."""
    parts = [f"# {title}"]
    for turn in turns:
        parts.append(f"**you**\n\n{turn.question}")
        parts += [f"**{arm}**\n\n{answer}" for arm, answer in turn.answers.items()]
    return "\n\n".join(parts) + "\n"


def append_to(path: Path, text: str) -> bool:
    """Append text to a file; return whether the file had content before."""
    existed = path.exists() and path.stat().st_size > 0
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n" + text if existed else text)
    return existed


class ChatModels:
    """Base and tuned, loaded at first use; both share one base where the tuned model is an adapter.

    Args:
        recipe: the run's.
        adapter: the run's trained weights; they may be missing as long as only the base answers.
    """

    def __init__(self, recipe: Recipe, adapter: Path) -> None:
        self._recipe, self._adapter = recipe, adapter

    @cached_property
    def tokenizer(self) -> Any:
        """The student's tokenizer."""
        return student_tokenizer(self._recipe)

    @cached_property
    def _base(self) -> Any:
        console.line(f"loading {self._recipe.model.base}")
        return for_inference(student_base(self._recipe, pick_device(), self.tokenizer))

    @cached_property
    def _tuned(self) -> Any:
        return load_adapter(self._base, self._adapter)

    def load(self, arm: str) -> Any:
        """Return an arm's model.

        Raises:
            RunFolderError: the run has no tuned model yet.
            ModelError: the model is missing or damaged, or the adapter does not fit it.
        """
        if arm == Arm.BASE:
            return self._base
        if not self._adapter.exists():
            run = self._adapter.parent
            raise RunFolderError(
                f"{run} has no adapter yet", "the training has not finished", command("run", "RECIPE", "--dir", run)
            )
        return self._tuned

    def prompt_ids(self, arm: str, question: str, turns: Sequence[Turn]) -> list[int]:
        """Return the tokens of a question in its conversation; the oldest turns are dropped if they do not fit.

        Raises:
            UserError: the question alone is too long.
        """
        config = self.load(arm).config.get_text_config()
        room = (getattr(config, "max_position_embeddings", None) or 1 << 30) - MAX_NEW_TOKENS
        for first in range(len(turns) + 1):
            ids = encode_prompt(self.tokenizer, prompt_for(arm, question, turns[first:], self._recipe.system_prompt))
            if len(ids) <= room:
                if first:
                    console.warning(f"{arm} has room for the last {len(turns) - first} of {len(turns)} turns")
                return ids
        raise UserError(
            f"the question is too long for {arm}",
            f"{len(ids)} tokens; there is room for {room}",
            "ask a shorter question",
        )

    def answer(self, arm: str, prompt_ids: Sequence[int]) -> Iterator[str]:
        """Yield a greedy answer piece by piece, without its reasoning where the recipe strips it.

        Another arm may answer between two pieces.
        """
        pieces = self._raw_answer(arm, prompt_ids)
        opened = opens_reasoning(self.tokenizer, prompt_ids)
        if self._recipe.training.reasoning == "keep":
            return chain((OPENING,), pieces) if opened else pieces
        return stream_without_reasoning(pieces, opened)

    def _raw_answer(self, arm: str, prompt_ids: Sequence[int]) -> Iterator[str]:
        model = self.load(arm)
        pieces = stream(model, self.tokenizer, prompt_ids, MAX_NEW_TOKENS, end_ids(self.tokenizer, model))
        while True:
            with self._without_adapter(arm):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _without_adapter(self, arm: str) -> AbstractContextManager[Any]:
        shared = arm == Arm.BASE and "_tuned" in self.__dict__ and not is_full(self._adapter)
        return self._tuned.disable_adapter() if shared else nullcontext()
