"""A rolling batch: a row that ends leaves at once, and another prompt may join at any step (continuous batching)."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tunewright.models.generation import Decoder


@dataclass
class GenerationRow:
    """A prompt and what is written to it so far.

    Attributes:
        prompt_ids: the prompt's tokens.
        max_tokens: the answer is cut there, and then finishes with "length".
        temperature: 0 takes the likeliest token.
        seed: of the row's own dice: no other row changes what they show.
        stop: texts that end the answer; they are not part of it.
        text: the answer, once ``finish`` is set.
        num_tokens: written, the end token included.
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
    _dice: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._dice.seed(self.seed)

    def roll(self) -> float:
        """Return the next number of the row's dice, from 0 up to 1."""
        return self._dice.random()

    def add(self, token: int, end_ids: Collection[int], tokenizer: Any) -> None:
        """Append a token, and see whether the answer is finished."""
        self.num_tokens += 1
        if token in end_ids:
            self.finish = "stop"
        else:
            self._ids.append(token)
        if self.stop or self.finish or self.num_tokens >= self.max_tokens:
            self.text = tokenizer.decode(self._ids, skip_special_tokens=True)
        places = [place for place in map(self.text.find, self.stop) if place >= 0]
        if places:
            self.text, self.finish = self.text[: min(places)], "stop"
        elif not self.finish and self.num_tokens >= self.max_tokens:
            self.finish = "length"


class RollingBatch:
    """The rows under way, in one cache. In exact arithmetic, an answer depends on its row alone.

    The idea is that of iteration-level scheduling (Yu et al. 2022, "Orca"), with one padded cache.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: the model's.
        end_ids: tokens that end an answer.
    """

    def __init__(self, model: Any, tokenizer: Any, end_ids: Collection[int]) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._end_ids = frozenset(end_ids)
        self._decoder: Decoder | None = None
        self.rows: list[GenerationRow] = []

    def join(self, rows: Sequence[GenerationRow]) -> None:
        """Take in new rows; their prompts are computed together, apart from the rows under way."""
        newcomers = Decoder(self._model, [row.prompt_ids for row in rows], self._tokenizer.pad_token_id)
        if self._decoder is None:
            self._decoder = newcomers
        else:
            self._decoder.join(newcomers)
        self.rows += rows

    def step(self) -> list[GenerationRow]:
        """Write one token in every row; return the rows that are finished by it, which leave the batch."""
        import torch

        assert self._decoder is not None
        tokens = self._choose(self._decoder.logits)
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.add(token, self._end_ids, self._tokenizer)
        done = [row for row in self.rows if row.finish]
        active = [place for place, row in enumerate(self.rows) if not row.finish]
        self.rows = [self.rows[place] for place in active]
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

    def _choose(self, logits: Any) -> Any:
        """Return the next token of each row: the likeliest, or drawn by inverting the cumulative distribution."""
        import torch

        greedy = logits.argmax(-1)
        drawn = [place for place, row in enumerate(self.rows) if row.temperature > 0]
        if drawn:
            heat = [self.rows[place].temperature for place in drawn]
            dice = [self.rows[place].roll() for place in drawn]
            scaled = logits[drawn].double() / torch.tensor(heat, device=logits.device, dtype=torch.double)[:, None]
            sums = scaled.softmax(-1).cumsum(-1)
            marks = torch.tensor(dice, device=logits.device, dtype=torch.double)[:, None] * sums[:, -1:]
            greedy[drawn] = torch.searchsorted(sums, marks, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
        return greedy

    def clear(self) -> None:
        """Let go of all rows."""
        self.rows, self._decoder = [], None
