"""The third ring: base and tuned on general questions, formats and texts that have nothing to do with the documents.

A choice is scored as lm-evaluation-harness does for "acc_norm": each option's text is put behind the question as the
assistant's answer, and the option with the highest log-likelihood per character is the chosen one. Asked for the
letter of a listed option instead, the embedded 135M model answers at chance, and there would be nothing to forget.
Questions, formats and options go through the tokenizer's own chat template, without the recipe's system text; passages
are raw text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tunewright.evaluation.format_checks import passes
from tunewright.evaluation.sitting import Batch, Outputs, batch_size
from tunewright.evaluation.weights import Memory, Weights
from tunewright.models.generate import Decoder, Job, answer_or_halve
from tunewright.models.memory import or_halve
from tunewright.models.template import IGNORED, encode, encode_prompt
from tunewright.records import KeptAnswer, KeptItem, Message, digest

FORMAT_TOKENS = 64  # a format is kept or broken within so many tokens; what is longer is cut there
PASSAGE_TOKENS = 64  # of a passage that are read: more would make the bound no sharper, and cost time on a CPU
_ROWS_OF = {"choice": 4, "format": 1, "passage": 6}  # how much of a batch one item takes


@dataclass(frozen=True)
class Task:
    """An item in tokens: a prompt, and what is scored behind it; without any, the prompt is answered."""

    item: KeptItem
    prompt_ids: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return len(self.prompt_ids) + max((len(ids) for ids in self.continuations), default=0)


class ThirdRing:
    """The ring's items as base and tuned sit them, each with its own weights."""

    def __init__(self, items: Sequence[KeptItem], sitting: Mapping[str, Weights], memory: Memory) -> None:
        self._sitting, self._memory = sitting, memory
        self._tasks = {arm: [task_of(item, memory.tokenizer(sitting[arm])) for item in items] for arm in sitting}

    def plan(self) -> list[Batch]:
        """Return the batches, a pure function of the items: those of the base, then those of the tuned model."""
        return [
            Batch(weights, tuple(_key(weights, task) for task in tasks), partial(answer_tasks, tokenizer, tasks))
            for arm, weights in self._sitting.items()
            for tokenizer in (self._memory.tokenizer(weights),)
            for tasks in _in_batches(self._tasks[arm], batch_size())
        ]

    def answers(self, told: Mapping[str, Any]) -> list[KeptAnswer]:
        """Return the answers of base and tuned, in the order of the items."""
        return [
            kept_answer(task.item, arm, told[_key(weights, task)])
            for arm, weights in self._sitting.items()
            for task in self._tasks[arm]
        ]


def _key(weights: Weights, task: Task) -> str:
    limit = [] if task.continuations else [FORMAT_TOKENS]
    return digest("kept", weights.identity, *limit, list(task.prompt_ids), [list(c) for c in task.continuations])


def task_of(item: KeptItem, tokenizer: Any) -> Task:
    """Return an item as tokens. A passage's first token, or the one that begins every text, is given."""
    if item.kind == "passage":
        ids = tokenizer(item.text)["input_ids"][:PASSAGE_TOKENS]
        return Task(item, tuple(ids[:1]), (tuple(ids[1:]),))
    asked = (Message(role="user", content=item.text),)
    prompt_ids = encode_prompt(tokenizer, asked)

    def option_ids(text: str) -> tuple[int, ...]:
        whole = encode(tokenizer, (*asked, Message(role="assistant", content=text)))
        ids = [label for label in whole.labels[len(prompt_ids) :] if label != IGNORED]
        return tuple(ids[:-1] if whole.ends_supervised else ids)  # the option alone, not the end of the turn

    return Task(item, tuple(prompt_ids), tuple(option_ids(option) for option in item.options))


def _in_batches(tasks: Sequence[Task], size: int) -> Iterator[list[Task]]:
    """Yield tasks of one kind and similar length, longest first."""
    for kind, rows in _ROWS_OF.items():
        own = sorted((t for t in tasks if t.item.kind == kind), key=lambda task: (-task.length, task.item.id))
        step = max(1, size // rows)
        yield from (own[start : start + step] for start in range(0, len(own), step))


def answer_tasks(tokenizer: Any, tasks: Sequence[Task], model: Any, ends: Sequence[int]) -> Outputs:
    """Score or answer tasks of one kind: the nats of each continuation, or a greedy text."""
    if tasks[0].continuations:
        found = or_halve(partial(_nats, model, tokenizer.pad_token_id), tasks)
        return [{"nll": n, "num_tokens": [len(c) for c in t.continuations]} for t, n in zip(tasks, found, strict=True)]
    jobs = [Job(task.prompt_ids, ()) for task in tasks]
    told = answer_or_halve(model, jobs, FORMAT_TOKENS, ends, tokenizer.pad_token_id)
    return [{"text": tokenizer.decode(output.token_ids, skip_special_tokens=True).strip()} for output in told]


def _nats(model: Any, pad_id: int, tasks: Sequence[Task]) -> list[list[float]]:
    """Return the negative log-likelihood of each task's continuations; each prompt is computed once."""
    import torch

    rows = [place for place, task in enumerate(tasks) for _ in task.continuations]
    golds = [ids for task in tasks for ids in task.continuations]
    with torch.inference_mode():
        decoder = Decoder(model, [task.prompt_ids for task in tasks], pad_id)
        decoder.keep_rows(torch.tensor(rows, device=decoder.mask.device))
        means = decoder.score(golds)
    found: list[list[float]] = [[] for _ in tasks]
    for place, ids, mean in zip(rows, golds, means, strict=True):
        found[place].append(mean * len(ids))
    return found


def kept_answer(item: KeptItem, arm: str, output: Mapping[str, Any]) -> KeptAnswer:
    """Return an item's answer, judged."""
    value, text, nll = 0.0, "", tuple(float(nats) for nats in output.get("nll", ()))
    if item.kind == "format":
        text = str(output["text"])
        value = float(passes(text, item.checks))
    elif item.kind == "passage":
        value = nll[0] / max(1, output["num_tokens"][0])
    else:
        per_character = [nats / len(option) for nats, option in zip(nll, item.options, strict=True)]
        chosen = per_character.index(min(per_character))
        value, text = float(chosen == item.right), item.options[chosen]
    return KeptAnswer(item=item.id, arm=arm, kind=item.kind, topic=item.topic, value=value, text=text, nll=nll)
