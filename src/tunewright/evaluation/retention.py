"""The third ring: base and tuned on general questions, formats and texts that have nothing to do with the documents.

A choice is scored as lm-evaluation-harness does for "acc_norm": each option's text is put behind the question as the
assistant's answer, and the option with the highest log-likelihood per character is the chosen one. Asked for the
letter of a listed option instead, the embedded 135M model answers at chance, and there would be nothing to forget.
Questions, formats and options go through the tokenizer's own chat template, without the recipe's system text; passages
are raw text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jsonschema

from tunewright.errors import UserError
from tunewright.evaluation.generation import Batch, Outputs, batch_size
from tunewright.evaluation.results import Difference, RetentionGroup, RetentionResult
from tunewright.metrics import read_object, unfenced
from tunewright.models.chat_template import IGNORED, encode, encode_prompt
from tunewright.models.generation import AnswerJob, Decoder, answer_or_halve
from tunewright.models.hardware import or_halve
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.records import Message, RetentionAnswer, RetentionItem, digest
from tunewright.settings import Arm
from tunewright.statistics.intervals import paired, sign_flip
from tunewright.text.normalization import sentences

_NUMBERED = re.compile(r"(\d+)[.)]\s+\S")
_BULLET = re.compile(r"[-*•]\s+\S")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]*]*$")
_AROUND_A_CHOICE = " .!\"'`*"  # what may stand around an answer that is one of a few words


def passes(answer: str, checks: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether an answer passes all of its checks; an empty answer passes none.

    White space around the answer and at the ends of its lines does not count.

    Args:
        answer: the model's text.
        checks: at least one check, each with its ``kind`` from ``CHECKS`` and that kind's parameters.

    Raises:
        UserError: there is no check, or a kind is unknown.
    """
    if not checks:
        raise UserError("a format prompt has no check", hint='give "checks" at least one entry')
    text = "\n".join(line.rstrip() for line in answer.strip().splitlines())
    # All are run, so that a wrong check is told of whatever the answer.
    verdicts = [_check(check["kind"])(text, **{k: v for k, v in check.items() if k != "kind"}) for check in checks]
    return bool(text) and all(verdicts)


def _check(kind: str) -> Callable[..., bool]:
    if kind not in CHECKS:
        raise UserError(f'unknown format check "{kind}"', f"known checks: {', '.join(CHECKS)}", "correct the kind")
    return CHECKS[kind]


def is_json(text: str, schema: Mapping[str, Any]) -> bool:
    """Tell whether the text is a JSON object that follows the schema (2020-12), bare or as one code block."""
    found = read_object(unfenced(text))
    return found is not None and jsonschema.Draft202012Validator(schema).is_valid(found)


def matches(text: str, pattern: str) -> bool:
    """Tell whether the whole text matches the regular expression."""
    return re.fullmatch(pattern, text) is not None


def has_words(text: str, min: int = 1, max: int | None = None) -> bool:
    """Tell whether the number of words, parted by white space, lies within both bounds; bare marks are no words."""
    count = sum(any(map(str.isalnum, word)) for word in text.split())
    return min <= count and (max is None or count <= max)


def has_lines(text: str, count: int) -> bool:
    """Tell whether the text has so many lines, empty ones apart."""
    return len(_lines(text)) == count


def has_sentences(text: str, count: int) -> bool:
    """Tell whether the text has so many sentences, the last one ended too."""
    return _SENTENCE_END.search(text) is not None and len(sentences(text)) == count


def is_numbered_list(text: str, count: int) -> bool:
    """Tell whether every line is an item and the items are numbered from 1 to the count."""
    numbers = [found[1] if (found := _NUMBERED.match(line)) else "" for line in _lines(text)]
    return numbers == [str(number) for number in range(1, count + 1)]


def is_bullet_list(text: str, count: int) -> bool:
    """Tell whether every line is an item with a bullet, and there are as many as the count."""
    lines = _lines(text)
    return len(lines) == count and all(map(_BULLET.match, lines))


def contains_all(text: str, texts: Sequence[str]) -> bool:
    """Tell whether every one of the texts occurs, in upper or lower case."""
    return all(part.casefold() in text.casefold() for part in texts)


def contains_none(text: str, texts: Sequence[str]) -> bool:
    """Tell whether none of the texts occurs, in upper or lower case, inside of words too."""
    return not any(part.casefold() in text.casefold() for part in texts)


def is_one_of(text: str, texts: Sequence[str]) -> bool:
    """Tell whether the text is one of the given ones and nothing else; case, quotes and a full stop do not count."""
    return text.strip(_AROUND_A_CHOICE).casefold() in {choice.casefold() for choice in texts}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


CHECKS: Mapping[str, Callable[..., bool]] = {
    "json": is_json,  # schema
    "regex": matches,  # pattern
    "words": has_words,  # min, max
    "lines": has_lines,  # count
    "sentences": has_sentences,  # count
    "numbered_list": is_numbered_list,  # count
    "bullet_list": is_bullet_list,  # count
    "starts_with": lambda answer, text: answer.startswith(text),
    "ends_with": lambda answer, text: answer.endswith(text),
    "contains_all": contains_all,  # texts
    "contains_none": contains_none,  # texts
    "one_of": is_one_of,  # texts
    "uppercase": str.isupper,
    "lowercase": str.islower,
}


ACCURACY, CROSS_ENTROPY = "kept_accuracy", "kept_cross_entropy"

Pair = tuple[RetentionAnswer, RetentionAnswer]  # of base and of tuned, on one item


def measure_retention(answers: Sequence[RetentionAnswer], level: float = 0.95) -> RetentionResult | None:
    """Return what became of the general ability; None where base and tuned have no item in common.

    The unit is the item, and each is its own cluster: the items were written one by one and share no source.

    Args:
        answers: of base and tuned to the third ring.
        level: confidence level of the intervals.
    """
    of_tuned = {answer.item: answer for answer in answers if answer.arm == Arm.TUNED}
    pairs = [(a, of_tuned[a.item]) for a in answers if a.arm == Arm.BASE and a.item in of_tuned]
    if not pairs:
        return None
    judged = [pair for pair in pairs if pair[0].kind != "passage"]
    read = [pair for pair in pairs if pair[0].kind == "passage"]
    return RetentionResult(
        accuracy=_difference(judged, ACCURACY, level),
        cross_entropy=_difference(read, CROSS_ENTROPY, level),
        groups=tuple(_groups(pairs)),
        num_lost=sum(tuned.value < base.value for base, tuned in judged),
        num_gained=sum(tuned.value > base.value for base, tuned in judged),
    )


def _difference(pairs: Sequence[Pair], measure: str, level: float) -> Difference | None:
    if not pairs:
        return None
    values, items = [tuned.value - base.value for base, tuned in pairs], [base.item for base, _ in pairs]
    return Difference(
        first=Arm.TUNED,
        second=Arm.BASE,
        measure=measure,
        interval=paired(values, items, level),
        sign_flip_p=sign_flip(values, items),
    )


def _groups(pairs: Sequence[Pair]) -> list[RetentionGroup]:
    """Return the means by kind, each followed by those of its topics."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for base, tuned in pairs:
        groups.setdefault((base.kind, ""), []).append((base, tuned))
        groups.setdefault((base.kind, base.topic), []).append((base, tuned))
    return [
        RetentionGroup(
            kind=found[0][0].kind,
            topic=topic,
            num=len(found),
            base=math.fsum(base.value for base, _ in found) / len(found),
            tuned=math.fsum(tuned.value for _, tuned in found) / len(found),
        )
        for (_, topic), found in sorted(groups.items())
    ]


FORMAT_TOKENS = 64  # a format is kept or broken within so many tokens; what is longer is cut there
PASSAGE_TOKENS = 64  # of a passage that are read: more would make the bound no sharper, and cost time on a CPU
_ROWS_OF = {"choice": 4, "format": 1, "passage": 6}  # how much of a batch one item takes


@dataclass(frozen=True)
class Task:
    """An item in tokens: a prompt, and what is scored behind it; without any, the prompt is answered."""

    item: RetentionItem
    prompt_ids: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return len(self.prompt_ids) + max((len(ids) for ids in self.continuations), default=0)


class ThirdRing:
    """The ring's items as base and tuned sit them, each with its own weights."""

    def __init__(self, items: Sequence[RetentionItem], sitting: Mapping[str, ModelWeights], memory: ModelPool) -> None:
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

    def answers(self, told: Mapping[str, Any]) -> list[RetentionAnswer]:
        """Return the answers of base and tuned, in the order of the items."""
        return [
            retention_answer(task.item, arm, told[_key(weights, task)])
            for arm, weights in self._sitting.items()
            for task in self._tasks[arm]
        ]


def _key(weights: ModelWeights, task: Task) -> str:
    limit = [] if task.continuations else [FORMAT_TOKENS]
    return digest("kept", weights.identity, *limit, list(task.prompt_ids), [list(c) for c in task.continuations])


def task_of(item: RetentionItem, tokenizer: Any) -> Task:
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
    jobs = [AnswerJob(task.prompt_ids, ()) for task in tasks]
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


def retention_answer(item: RetentionItem, arm: str, output: Mapping[str, Any]) -> RetentionAnswer:
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
    return RetentionAnswer(item=item.id, arm=arm, kind=item.kind, topic=item.topic, value=value, text=text, nll=nll)
