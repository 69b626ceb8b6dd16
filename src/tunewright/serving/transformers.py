"""The examined model itself as the engine: chat's own computation in this process, one answer after the other."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewright.models.chat_template import end_ids
from tunewright.models.generation import Sampling, argmax, decode_stream, draw_tokens, generate_tokens
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.recipe import Recipe
from tunewright.serving.engine import Piece, room_for
from tunewright.serving.requests import ChatRequest


@contextmanager
def examined_engine(recipe: Recipe, adapter: Path) -> Iterator[ExaminedEngine]:
    """Load the base as training saw it, with the adapter on it, while the block lasts.

    Raises:
        ModelError: the model is missing or damaged, or the adapter does not fit it.
    """
    memory, weights = ModelPool(), ModelWeights.of(recipe, adapter)
    with memory.holding(weights) as model:
        yield ExaminedEngine(model, memory.tokenizer(weights))


class ExaminedEngine:
    """Answers with the very numbers that sat the exam: a greedy answer is that of ``chat``, token for token.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: the student's.
    """

    name = "transformers"
    keeps_first_space = False  # the answer is decoded as a whole

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._ends = end_ids(tokenizer, model)
        self._context: int = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        self._turn = threading.Lock()

    def is_well(self) -> bool:
        """Return whether it can answer: it lives and dies with this process."""
        return True

    def answer(self, prompt_ids: list[int], request: ChatRequest) -> Iterator[Piece]:
        """Yield an answer piece by piece, once those before it are told.

        Raises:
            RequestError: the prompt does not fit.
        """
        most = min(request.most_tokens, room_for(prompt_ids, self._context))
        ids: list[int] = []
        with self._turn:
            tokens = generate_tokens(
                self._model, prompt_ids, most, self._ends, self._tokenizer.pad_token_id, token_chooser(request)
            )
            stopped = yield from cut_at_stops(decode_stream(self._tokenizer, _noted(tokens, ids)), request.stop)
        yield Piece("", "stop" if stopped or len(ids) < most else "length", len(ids))


def _noted(tokens: Iterator[int], ids: list[int]) -> Iterator[int]:
    for token in tokens:
        ids.append(token)
        yield token


def token_chooser(request: ChatRequest) -> Any:
    """Return what takes the next token from logits [1, vocabulary] and the tokens so far, as the client asks for it.

    The penalties are OpenAI's: the logit of a token falls with how often it was written, and once if it was at all.
    """
    import torch

    generator = torch.Generator().manual_seed(secrets.randbits(63) if request.seed is None else request.seed)
    sampling = Sampling(request.temperature, request.top_p)

    def choose(logits: Any, ids: Sequence[int]) -> int:
        if ids and (request.presence_penalty or request.frequency_penalty):
            written = torch.bincount(torch.tensor(ids, device=logits.device), minlength=logits.shape[-1])
            logits = logits - request.frequency_penalty * written - request.presence_penalty * (written > 0)
        if not request.temperature:
            return argmax(logits, ids)
        chance = torch.rand(1, generator=generator).to(logits.device)
        return int(draw_tokens(logits, chance, sampling)[0])

    return choose


def cut_at_stops(pieces: Iterator[str], stops: Sequence[str]) -> Generator[Piece, None, bool]:
    """Yield a text up to the first of these words, which is not told; return whether there was one.

    What may be the beginning of one waits for the next piece.
    """
    held = ""
    for piece in pieces:
        held += piece
        if places := [held.index(stop) for stop in stops if stop in held]:
            yield Piece(held[: min(places)])
            return True
        waiting = max((k for stop in stops for k in range(1, len(stop)) if held.endswith(stop[:k])), default=0)
        told, held = held[: len(held) - waiting], held[len(held) - waiting :]
        if told:
            yield Piece(told)
    if held:
        yield Piece(held)
    return False
