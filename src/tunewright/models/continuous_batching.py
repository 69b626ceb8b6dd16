"""Continuous batching: a finished row leaves the batch at once, and a new prompt may join at any step."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tunewright.models.chat_template import visible_text
from tunewright.models.decoder import Decoding
from tunewright.models.separate_rows import open_decoder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class GenerationRow:
    """A prompt and its answer so far.

    Attributes:
        prompt_ids: the prompt's tokens.
        max_tokens: the answer is cut there, and then finishes with "length".
        temperature: 0 takes the likeliest token.
        seed: of the row's own random numbers, on which no other row has an effect.
        stop: texts that end the answer; they are not part of it.
        text: the answer, once ``finish`` is set.
        num_tokens: number of tokens written, the end token included.
    """

    prompt_ids: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    text: str = ""
    num_tokens: int = 0
    finish: Literal["", "stop", "length"] = ""
    _ids: list[int] = field(default_factory=list)
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._random.seed(self.seed)

    def draw(self) -> float:
        """Return the row's next random number, in [0, 1)."""
        return self._random.random()

    def add(self, token: int, end_ids: Collection[int], tokenizer: PreTrainedTokenizerBase) -> None:
        """Append a token; set ``finish`` and ``text`` if it ends the answer."""
        self.num_tokens += 1
        if token in end_ids:
            self.finish = "stop"
        else:
            self._ids.append(token)
        if self.stop or self.finish or self.num_tokens >= self.max_tokens:
            self.text = visible_text(tokenizer, self._ids)
        stops = [start for start in map(self.text.find, self.stop) if start >= 0]
        if stops:
            self.text, self.finish = self.text[: min(stops)], "stop"
        elif not self.finish and self.num_tokens >= self.max_tokens:
            self.finish = "length"


class RollingBatch:
    """The unfinished rows, in one cache. In exact arithmetic, an answer depends on its row alone.

    The idea is that of iteration-level scheduling (Yu et al. 2022, "Orca"), with one padded cache.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: the model's.
        end_ids: tokens that end an answer.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end_ids: Collection[int]) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._end_ids = frozenset(end_ids)
        self._decoder: Decoding | None = None
        self.rows: list[GenerationRow] = []

    def join(self, rows: Sequence[GenerationRow]) -> None:
        """Add rows; their prompts are computed together, apart from the rows in the batch."""
        newcomers = open_decoder(self._model, [row.prompt_ids for row in rows], self._tokenizer.pad_token_id)
        if self._decoder is None:
            self._decoder = newcomers
        else:
            self._decoder.join(newcomers)
        self.rows += rows

    def step(self) -> list[GenerationRow]:
        """Write a token in each row; return the rows that it finishes, which leave the batch."""
        import torch

        assert self._decoder is not None
        tokens = self._choose(self._decoder.logits)
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.add(token, self._end_ids, self._tokenizer)
        done = [row for row in self.rows if row.finish]
        active = [index for index, row in enumerate(self.rows) if not row.finish]
        self.rows = [self.rows[index] for index in active]
        if not active:
            self._decoder = None
            return done
        if done:
            keep = torch.tensor(active, device=tokens.device)
            self._decoder.keep_rows(keep)
            self._decoder.trim()
            tokens = tokens[keep]
        self._decoder.step(tokens)
        return done

    def _choose(self, logits: Tensor) -> Tensor:
        """Return the next token of each row [row] from logits [row, vocabulary]: the likeliest, or a drawn one.

        Tokens are drawn by inverting the cumulative distribution.
        """
        import torch

        greedy = logits.argmax(-1)
        drawn = [index for index, row in enumerate(self.rows) if row.temperature > 0]
        if drawn:
            temperatures = [self.rows[index].temperature for index in drawn]
            chances = [self.rows[index].draw() for index in drawn]
            scaled = (
                logits[drawn].double() / torch.tensor(temperatures, device=logits.device, dtype=torch.double)[:, None]
            )
            sums = scaled.softmax(-1).cumsum(-1)
            marks = torch.tensor(chances, device=logits.device, dtype=torch.double)[:, None] * sums[:, -1:]
            greedy[drawn] = torch.searchsorted(sums, marks, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
        return greedy

    def clear(self) -> None:
        """Drop all rows."""
        self.rows, self._decoder = [], None
