"""Runners: a model asked for prompts, next-token distributions and answers, whatever program computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tunewright.models.generate import Job, answer_or_halve, batches, next_log_probs
from tunewright.models.template import end_ids
from tunewright.records import Message

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
        jobs = [Job(prompt, ()) for prompt in prompts]
        told: dict[int, np.ndarray] = {}
        for numbers in batches(jobs, _BATCH_SIZE):
            rows = next_log_probs(self.model, [jobs[number] for number in numbers], self.tokenizer.pad_token_id)
            told.update(zip(numbers, rows, strict=True))
        yield from (told[number] for number in range(len(jobs)))

    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """Return the greedy answers, without special tokens."""
        jobs = [Job(prompt, ()) for prompt in prompts]
        ends = end_ids(self.tokenizer, self.model)
        told: dict[int, str] = {}
        for numbers in batches(jobs, 3 * _BATCH_SIZE):
            batch = [jobs[number] for number in numbers]
            outputs = answer_or_halve(self.model, batch, max_new_tokens, ends, self.tokenizer.pad_token_id)
            for number, output in zip(numbers, outputs, strict=True):
                told[number] = self.tokenizer.decode(output.token_ids, skip_special_tokens=True).strip()
        return [told[number] for number in range(len(jobs))]
