"""An engine with training's own tokens: chats in, the answers of ``chat`` out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from tunewright.errors import ModelError, StageError
from tunewright.models.chat_template import encode_prompt, opens_reasoning
from tunewright.serving.canary import Canary
from tunewright.serving.engine import Engine, Piece
from tunewright.serving.requests import ChatRequest, RequestError
from tunewright.text.reasoning import OPENING, stream_without_reasoning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ServedModel:
    """The tuned model as clients see it.

    Attributes:
        engine: continues token ids.
        tokenizer: the student's.
        system_prompt: of the training; added to a chat without a system turn.
        strips_reasoning: whether the block of reasoning before an answer is removed, as in training and exam.
    """

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    system_prompt: str
    strips_reasoning: bool

    def prompt_ids(self, request: ChatRequest) -> list[int]:
        """Return the tokens that training would make of a chat.

        Raises:
            RequestError: the model's template refuses the turns.
        """
        try:
            return encode_prompt(self.tokenizer, request.conversation(self.system_prompt))
        except ModelError as error:
            raise RequestError(
                400, "invalid_request", f"the model's template refuses the turns: {error.cause}"
            ) from error

    def answer(self, prompt_ids: list[int], request: ChatRequest) -> Iterator[Piece]:
        """Yield an answer as ``chat`` would print it."""
        pieces = self.engine.answer(prompt_ids, request)
        first = next(pieces)
        if self.engine.keeps_first_space and first.text.startswith(" ") and self._strips_first_space:
            first = Piece(first.text[1:], first.finish, first.num_tokens)
        opened = opens_reasoning(self.tokenizer, prompt_ids)
        if self.strips_reasoning:
            yield from _without_reasoning(chain((first,), pieces), opened)
        else:
            if opened:
                yield Piece(OPENING)
            yield first
            yield from pieces

    def canary_answers(self, canaries: Sequence[Canary], max_new_tokens: int) -> Iterator[str]:
        """Yield the engine's answers to the canaries.

        Raises:
            StageError: the engine does not answer.
        """
        content = {"messages": [{"role": "user", "content": ""}], "max_tokens": max_new_tokens}
        request = ChatRequest.model_validate(content)
        for canary in canaries:
            try:
                yield "".join(piece.text for piece in self.answer(canary.prompt_ids, request)).strip()
            except RequestError as error:
                headline = f"{self.engine.name} does not answer"
                raise StageError(headline, error.message, "try: tunewright doctor") from error

    @cached_property
    def _strips_first_space(self) -> bool:
        """Whether the tokenizer's decoder drops the space before a text, as SentencePiece's does."""
        tokens = self.tokenizer.get_vocab()
        with_space = next((id for token, id in tokens.items() if token[:1] == "\u2581" and token[1:].isalpha()), None)
        return with_space is not None and not self.tokenizer.decode([with_space]).startswith(" ")


def _without_reasoning(pieces: Iterator[Piece], opened: bool) -> Iterator[Piece]:
    """Yield an answer without its block of reasoning, then an empty piece with the reason of its end."""
    last = Piece("")

    def texts() -> Iterator[str]:
        nonlocal last
        for last in pieces:
            yield last.text

    for text in stream_without_reasoning(texts(), opened):
        yield Piece(text)
    yield Piece("", last.finish, last.num_tokens)
