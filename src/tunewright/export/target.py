"""What an export target is: how it is written, how it is run again, and how much room it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tunewright.models.chat_template import end_ids
from tunewright.models.generation import AnswerJob, answer_or_halve, batches, next_log_probs
from tunewright.recipe import Recipe
from tunewright.records import Message
from tunewright.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np


_BATCH_SIZE = 16


@dataclass(frozen=True)
class Limit:
    """Text that a program treats otherwise than training did, whatever artifact it is given.

    Attributes:
        told: what it does not do, in words.
        avoid: returns a text as a user would have to write it for the program to treat it alike.
    """

    told: str
    avoid: Callable[[str], str]


class Runner(Protocol):
    """A loaded artifact. Tokens are numbers of the student's vocabulary."""

    @property
    def limits(self) -> Sequence[Limit]:
        """What the program itself cannot do."""
        ...

    @property
    def name(self) -> str:
        """What computes the model, and in which type."""
        ...

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return a conversation's prompt as this program makes it from the artifact's own template."""
        ...

    def log_probs(self, prompts: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
        """Yield the distribution of the token after each prompt: natural logarithms over the vocabulary, [token]."""
        ...

    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """Return the greedy answer to each prompt."""
        ...


class HFRunner:
    """A transformers model, asked as any program asks that loads it: the tokenizer's template as it stands."""

    limits: Sequence[Limit] = ()

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.name = f"transformers, {str(model.dtype).removeprefix('torch.')} on {model.device}"

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt of the tokenizer's template, with no variables given."""
        turns = [message.model_dump() for message in messages]
        return list(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))

    def log_probs(self, prompts: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
        """Yield the next token's distribution, in fp32, in the order of the prompts."""
        jobs = [AnswerJob(prompt, ()) for prompt in prompts]
        told: dict[int, np.ndarray] = {}
        for numbers in batches(jobs, _BATCH_SIZE):
            rows = next_log_probs(self.model, [jobs[number] for number in numbers], self.tokenizer.pad_token_id)
            told.update(zip(numbers, rows, strict=True))
        yield from (told[number] for number in range(len(jobs)))

    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """Return the greedy answers, without special tokens."""
        jobs = [AnswerJob(prompt, ()) for prompt in prompts]
        ends = end_ids(self.tokenizer, self.model)
        told: dict[int, str] = {}
        for numbers in batches(jobs, 3 * _BATCH_SIZE):
            batch = [jobs[number] for number in numbers]
            outputs = answer_or_halve(self.model, batch, max_new_tokens, ends, self.tokenizer.pad_token_id)
            for number, output in zip(numbers, outputs, strict=True):
                told[number] = self.tokenizer.decode(output.token_ids, skip_special_tokens=True).strip()
        return [told[number] for number in range(len(jobs))]


Base = Literal["trained", "original"]  # the base as training saw it (quantized), or as its files have it

Write = Callable[[RunFolder, Recipe, Path, str, Base], None]  # (run, recipe, folder, dtype, base)
OpenRunner = Callable[[RunFolder, Recipe, Path, str, Base], AbstractContextManager[Runner]]


@dataclass(frozen=True)
class Target:
    """A format to export to.

    Attributes:
        write: fills an empty folder with the artifact.
        runner: opens the written folder the way other programs do, to be compared with the examined model.
        num_bytes: about how much disk the artifact and what is written on the way to it take together.
        dtypes: the types of number that it can be written in, the default first; empty where there is no choice.
    """

    write: Write
    runner: OpenRunner
    num_bytes: Callable[[RunFolder, Recipe, str], int]
    dtypes: tuple[str, ...] = ()
