"""Export targets: what an export is made of, how it is written, how it is run, and how much disk it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from tunewright.models.chat_template import answer_text, apply, end_ids
from tunewright.models.generation import AnswerJob, answer_or_halve, batches, next_log_probs
from tunewright.recipe import Recipe
from tunewright.records import Message, Question, Sample

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_BATCH_SIZE = 16


@dataclass(frozen=True)
class Limit:
    """Text that a program treats differently from training, whatever artifact it loads.

    Attributes:
        text: what the program does not do, in words.
        avoid: rewrites a text so that the program treats it as training does.
    """

    text: str
    avoid: Callable[[str], str]


class Runner(Protocol):
    """A loaded artifact. Token ids are those of the student's vocabulary."""

    @property
    def limits(self) -> Sequence[Limit]:
        """What the program cannot do with any artifact."""
        ...

    @property
    def name(self) -> str:
        """The program that computes the model, and the type of its numbers."""
        ...

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt that this program renders with the artifact's own template."""
        ...

    def log_probs(self, prompts: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
        """Yield the log-probabilities of the token after each prompt: [vocabulary], natural logarithms."""
        ...

    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """Return the greedy answer to each prompt."""
        ...


class HFRunner:
    """A transformers model, used as any program uses it that loads it: with the tokenizer's own template."""

    limits: Sequence[Limit] = ()

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.name = f"transformers, {str(model.dtype).removeprefix('torch.')} on {model.device}"

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt of the tokenizer's template, rendered without variables."""
        text = apply(self.tokenizer, [message.as_turn() for message in messages], True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def log_probs(self, prompts: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
        """Yield the log-probabilities of the next token, [vocabulary], fp32, in the order of the prompts."""
        jobs = [AnswerJob(prompt, ()) for prompt in prompts]
        by_number: dict[int, np.ndarray] = {}
        for numbers in batches(jobs, _BATCH_SIZE):
            rows = next_log_probs(self.model, [jobs[number] for number in numbers], self.tokenizer.pad_token_id)
            by_number.update(zip(numbers, rows, strict=True))
        yield from (by_number[number] for number in range(len(jobs)))

    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """Return the greedy answers, without special tokens."""
        jobs = [AnswerJob(prompt, ()) for prompt in prompts]
        ends = end_ids(self.tokenizer, self.model)
        texts: dict[int, str] = {}
        for numbers in batches(jobs, 3 * _BATCH_SIZE):
            batch = [jobs[number] for number in numbers]
            outputs = answer_or_halve(self.model, batch, max_new_tokens, ends, self.tokenizer.pad_token_id)
            for number, output in zip(numbers, outputs, strict=True):
                texts[number] = answer_text(self.tokenizer, prompts[number], output.token_ids)
        return [texts[number] for number in range(len(jobs))]


Base = Literal["trained", "original"]  # the base as training loaded it (quantized), or as its files have it


@dataclass(frozen=True)
class ExportRequest:
    """What an export is made of.

    Attributes:
        adapter: the run's trained weights: an adapter, or a whole model.
        recipe: the run's.
        questions: the exam's; empty where the run has no exam.
        dtype: type of the exported numbers, one of the target's; empty where the target has no choice.
        samples: of the training set, for an importance matrix.
        base: which base the adapter is merged into or tried on.
    """

    adapter: Path
    recipe: Recipe
    questions: Sequence[Question] = ()
    dtype: str = ""
    base: Base = "trained"
    samples: Sequence[Sample] = ()


@dataclass(frozen=True)
class Target:
    """A format to export to.

    Attributes:
        write: fills an empty folder with the artifact.
        runner: opens the written folder as other programs do, to compare it with the evaluated model.
        num_bytes: estimate of the disk that the artifact and the temporary files of the export take together.
        dtypes: the types of number that it can be written in, the default first; empty where there is no choice.
    """

    write: Callable[[ExportRequest, Path], None]
    runner: Callable[[ExportRequest, Path], AbstractContextManager[Runner]]
    num_bytes: Callable[[ExportRequest], int]
    dtypes: tuple[str, ...] = ()
