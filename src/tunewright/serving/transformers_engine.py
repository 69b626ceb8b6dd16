"""The engine transformers: the evaluated model in this process, computed as in chat, one answer after the other."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.models.chat_template import end_ids
from tunewright.models.generation import Sampling, argmax, decode_stream, draw_tokens, generate_tokens
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.recipe import Recipe
from tunewright.serving.engine import MAX_REQUEST_S, Piece, room_for
from tunewright.serving.requests import ChatRequest, RequestError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@contextmanager
def transformers_engine(recipe: Recipe, adapter: Path) -> Iterator[TransformersEngine]:
    """Load the base as training saw it, with the adapter on it, while the block lasts.

    Raises:
        ModelError: the model is missing or damaged, or the adapter does not fit it.
    """
    memory, weights = ModelPool(), ModelWeights.of(recipe, adapter)
    with memory.holding(weights) as model:
        yield TransformersEngine(model, memory.tokenizer(weights))


class TransformersEngine:
    """Computes as the evaluation did: a greedy answer is that of ``chat``, token for token.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: the student's.
    """

    name = "transformers"
    keeps_first_space = False  # the answer is decoded as a whole

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._ends = end_ids(tokenizer, model)
        self._context: int = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        self._turn = threading.Lock()

    def is_healthy(self) -> bool:
        """Return whether it can answer: as long as this process runs."""
        return True

    def answer(self, prompt_ids: list[int], request: ChatRequest) -> Iterator[Piece]:
        """Yield an answer piece by piece, after the answers before it.

        Raises:
            RequestError: the prompt does not fit, or the engine is not free in time.
        """
        most = min(request.max_new_tokens, room_for(prompt_ids, self._context))
        ids: list[int] = []
        if not self._turn.acquire(timeout=MAX_REQUEST_S):
            raise RequestError(503, "engine_busy", f"no answer before this one ended within {MAX_REQUEST_S:g} s")
        try:
            tokens = generate_tokens(
                self._model, prompt_ids, most, self._ends, self._tokenizer.pad_token_id, token_chooser(request)
            )
            stopped = yield from cut_at_stops(decode_stream(self._tokenizer, _recorded(tokens, ids)), request.stop)
        finally:
            self._turn.release()
        yield Piece("", "stop" if stopped or len(ids) < most else "length", len(ids))


def _recorded(tokens: Iterator[int], ids: list[int]) -> Iterator[int]:
    """Yield the tokens, and append each to ``ids``."""
    for token in tokens:
        ids.append(token)
        yield token


def token_chooser(request: ChatRequest) -> Callable[[torch.Tensor, Sequence[int]], int]:
    """Return the function that chooses the next token from logits [1, vocabulary] and the answer's tokens so far.

    The penalties are OpenAI's: a token's logit falls by the frequency penalty for each time it was written, and by the
    presence penalty once.
    """
    import torch

    generator = torch.Generator().manual_seed(secrets.randbits(63) if request.seed is None else request.seed)
    sampling = Sampling(request.temperature, request.top_p)

    def choose(logits: torch.Tensor, ids: Sequence[int]) -> int:
        if ids and (request.presence_penalty or request.frequency_penalty):
            written = torch.bincount(torch.tensor(ids, device=logits.device), minlength=logits.shape[-1])
            logits = logits - request.frequency_penalty * written - request.presence_penalty * (written > 0)
        if not request.temperature:
            return argmax(logits, ids)
        chance = torch.rand(1, generator=generator).to(logits.device)
        return int(draw_tokens(logits, chance, sampling)[0])

    return choose


def cut_at_stops(pieces: Iterator[str], stops: Sequence[str]) -> Generator[Piece, None, bool]:
    """Yield a text up to the first stop, without it; return whether there was one.

    A possible beginning of a stop waits for the next piece.
    """
    pending = ""
    for piece in pieces:
        pending += piece
        if indices := [pending.index(stop) for stop in stops if stop in pending]:
            yield Piece(pending[: min(indices)])
            return True
        waiting = max((k for stop in stops for k in range(1, len(stop)) if pending.endswith(stop[:k])), default=0)
        text, pending = pending[: len(pending) - waiting], pending[len(pending) - waiting :]
        if text:
            yield Piece(text)
    if pending:
        yield Piece(pending)
    return False
