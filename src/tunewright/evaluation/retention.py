"""The retention suite: base and tuned on general questions, formats and texts unrelated to the documents.

A choice is scored as lm-evaluation-harness does for "acc_norm": each option's text follows the question as the
assistant's answer, and the option with the highest log-likelihood per character is chosen. When it has to name the
letter of a listed option instead, the embedded 135M model answers at chance: there would be nothing to forget.
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
from tunewright.evaluation.generation import AnswerBatch, Outputs, batch_size
from tunewright.evaluation.results import Difference, RetentionGroup, RetentionResult
from tunewright.metrics import read_object, unfenced
from tunewright.models.chat_template import answer_ids, answer_text, encode_prompt
from tunewright.models.generation import AnswerJob, answer_or_halve
from tunewright.models.hardware import or_halve
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.models.separate_rows import open_decoder
from tunewright.records import Message, RetentionAnswer, RetentionItem, digest
from tunewright.settings import Arm
from tunewright.statistics.intervals import difference_interval, paired, sign_flip
from tunewright.text.choices import likeliest_option
from tunewright.text.reasoning import text_to_score
from tunewright.text.sentences import sentences

_NUMBERED = re.compile(r"(\d+)[.)]\s+\S")
_BULLET = re.compile(r"[-*•]\s+\S")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]*]*$")
_AROUND_A_CHOICE = " .!\"'`*"  # allowed around an answer that is one of a few words


def passes(answer: str, checks: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether an answer passes all of its checks; an empty answer passes none.

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
    # All are run, so that a wrong check raises its error whatever the answer.
    verdicts = [_check(check["kind"])(text, **{k: v for k, v in check.items() if k != "kind"}) for check in checks]
    return bool(text) and all(verdicts)


def _check(kind: str) -> Callable[..., bool]:
    if kind not in CHECKS:
        raise UserError(f'unknown format check "{kind}"', f"known checks: {', '.join(CHECKS)}", "correct the kind")
    return CHECKS[kind]


def is_json(text: str, schema: Mapping[str, Any]) -> bool:
    """Return whether the text is a JSON object that follows the schema (2020-12), bare or as one code block."""
    content = read_object(unfenced(text))
    return content is not None and jsonschema.Draft202012Validator(schema).is_valid(content)


def matches(text: str, pattern: str) -> bool:
    """Return whether the whole text matches the regular expression."""
    return re.fullmatch(pattern, text) is not None


def has_words(text: str, min: int = 1, max: int | None = None) -> bool:
    """Return whether the number of words, split at white space, is within both bounds; punctuation alone is no word."""
    count = sum(any(map(str.isalnum, word)) for word in text.split())
    return min <= count and (max is None or count <= max)


def has_lines(text: str, count: int) -> bool:
    """Return whether the text has exactly this number of lines, without the empty lines."""
    return len(_lines(text)) == count


def has_sentences(text: str, count: int) -> bool:
    """Return whether the text has exactly this number of sentences and the last sentence ends."""
    return _SENTENCE_END.search(text) is not None and len(sentences(text)) == count


def is_numbered_list(text: str, count: int) -> bool:
    """Return whether every line is an item and the items are numbered from 1 to the count."""
    numbers = [match[1] if (match := _NUMBERED.match(line)) else "" for line in _lines(text)]
    return numbers == [str(number) for number in range(1, count + 1)]


def is_bullet_list(text: str, count: int) -> bool:
    """Return whether every line is an item with a bullet, and their number is the count."""
    lines = _lines(text)
    return len(lines) == count and all(map(_BULLET.match, lines))


def contains_all(text: str, texts: Sequence[str]) -> bool:
    """Return whether all of the texts occur, in upper or lower case."""
    return all(part.casefold() in text.casefold() for part in texts)


def contains_none(text: str, texts: Sequence[str]) -> bool:
    """Return whether none of the texts occurs, in upper or lower case, inside of words too."""
    return not any(part.casefold() in text.casefold() for part in texts)


def equals_any(text: str, texts: Sequence[str]) -> bool:
    """Return whether the text is one of the texts and nothing else; case, quotes and a full stop do not count."""
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
    "one_of": equals_any,  # texts
    "uppercase": str.isupper,
    "lowercase": str.islower,
}


ACCURACY, CROSS_ENTROPY = "kept_accuracy", "kept_cross_entropy"

AnswerPair = tuple[RetentionAnswer, RetentionAnswer]  # base's and tuned's, to one item


def measure_retention(answers: Sequence[RetentionAnswer], level: float = 0.95) -> RetentionResult | None:
    """Return how much general ability was retained; None where base and tuned have no item in common.

    The unit is the item, and each is its own cluster: the items were written one by one and share no source.

    Args:
        answers: of base and tuned to the retention items.
        level: confidence level of the intervals.
    """
    of_tuned = {answer.item: answer for answer in answers if answer.arm == Arm.TUNED}
    pairs = [(a, of_tuned[a.item]) for a in answers if a.arm == Arm.BASE and a.item in of_tuned]
    if not pairs:
        return None
    judged = [pair for pair in pairs if pair[0].kind != "passage"]
    passages = [pair for pair in pairs if pair[0].kind == "passage"]
    return RetentionResult(
        accuracy=_difference(judged, ACCURACY, level),
        cross_entropy=_difference(passages, CROSS_ENTROPY, level),
        groups=tuple(_groups(pairs)),
        num_lost=sum(tuned.value < base.value for base, tuned in judged),
        num_gained=sum(tuned.value > base.value for base, tuned in judged),
    )


def _difference(pairs: Sequence[AnswerPair], measure: str, level: float) -> Difference | None:
    if not pairs:
        return None
    values, items = [tuned.value - base.value for base, tuned in pairs], [base.item for base, _ in pairs]
    return Difference(
        first=Arm.TUNED,
        second=Arm.BASE,
        measure=measure,
        interval=(paired if measure == CROSS_ENTROPY else difference_interval)(values, items, level),
        sign_flip_p=sign_flip(values, items),
    )


def _groups(pairs: Sequence[AnswerPair]) -> list[RetentionGroup]:
    """Return the means by kind, each followed by those of its topics."""
    groups: dict[tuple[str, str], list[AnswerPair]] = {}
    for base, tuned in pairs:
        groups.setdefault((base.kind, ""), []).append((base, tuned))
        groups.setdefault((base.kind, base.topic), []).append((base, tuned))
    return [
        RetentionGroup(
            kind=group[0][0].kind,
            topic=topic,
            num=len(group),
            base=math.fsum(base.value for base, _ in group) / len(group),
            tuned=math.fsum(tuned.value for _, tuned in group) / len(group),
        )
        for (_, topic), group in sorted(groups.items())
    ]


FORMAT_TOKENS = 64  # a format is met or missed within this many tokens; longer answers are cut
PASSAGE_TOKENS = 64  # read of a passage: more would make the interval no narrower, and cost time on a CPU
_ROWS_OF = {"choice": 4, "format": 1, "passage": 6}  # rows of a batch that an item takes


@dataclass(frozen=True)
class ItemTokens:
    """An item in tokens: a prompt, and the continuations to score; without any, the prompt is answered."""

    item: RetentionItem
    prompt_ids: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return len(self.prompt_ids) + max((len(ids) for ids in self.continuations), default=0)


class RetentionExam:
    """The retention items as base and tuned answer them, each with its own weights."""

    def __init__(
        self, items: Sequence[RetentionItem], weights_by_arm: Mapping[str, ModelWeights], pool: ModelPool
    ) -> None:
        self._weights, self._pool = weights_by_arm, pool
        self._tokens = {
            arm: [item_tokens(item, pool.tokenizer(weights)) for item in items]
            for arm, weights in weights_by_arm.items()
        }

    def plan(self) -> list[AnswerBatch]:
        """Return the batches, a pure function of the items: those of the base, then those of the tuned model."""
        return [
            AnswerBatch(
                weights, tuple(_key(weights, entry) for entry in batch), partial(answer_items, tokenizer, batch)
            )
            for arm, weights in self._weights.items()
            for tokenizer in (self._pool.tokenizer(weights),)
            for batch in _in_batches(self._tokens[arm], batch_size())
        ]

    def answers(self, outputs: Mapping[str, Any]) -> list[RetentionAnswer]:
        """Return the answers of base and tuned, in the order of the items."""
        return [
            retention_answer(entry.item, arm, outputs[_key(weights, entry)])
            for arm, weights in self._weights.items()
            for entry in self._tokens[arm]
        ]


def _key(weights: ModelWeights, entry: ItemTokens) -> str:
    limit = [] if entry.continuations else [FORMAT_TOKENS]
    return digest("kept", weights.identity, *limit, list(entry.prompt_ids), [list(c) for c in entry.continuations])


def item_tokens(item: RetentionItem, tokenizer: Any) -> ItemTokens:
    """Return an item as tokens. Of a passage, the first token (BOS if any) is the prompt; the rest is scored."""
    if item.kind == "passage":
        ids = tokenizer(item.text)["input_ids"][:PASSAGE_TOKENS]
        return ItemTokens(item, tuple(ids[:1]), (tuple(ids[1:]),))
    question = (Message(role="user", content=item.text),)
    prompt_ids = encode_prompt(tokenizer, question)

    options = tuple(tuple(answer_ids(tokenizer, question, len(prompt_ids), text, False)) for text in item.options)
    return ItemTokens(item, tuple(prompt_ids), options)


def _in_batches(items: Sequence[ItemTokens], size: int) -> Iterator[list[ItemTokens]]:
    """Yield items of one kind and similar length, longest first."""
    for kind, rows in _ROWS_OF.items():
        own = sorted((t for t in items if t.item.kind == kind), key=lambda entry: (-entry.length, entry.item.id))
        step = max(1, size // rows)
        yield from (own[start : start + step] for start in range(0, len(own), step))


def answer_items(tokenizer: Any, items: Sequence[ItemTokens], model: Any, ends: Sequence[int]) -> Outputs:
    """Score or answer items of one kind: the nats of each continuation, or a greedy text."""
    if items[0].continuations:
        nats = or_halve(partial(_nats, model, tokenizer.pad_token_id), items)
        return [{"nll": n, "num_tokens": [len(c) for c in t.continuations]} for t, n in zip(items, nats, strict=True)]
    jobs = [AnswerJob(entry.prompt_ids, ()) for entry in items]
    outputs = answer_or_halve(model, jobs, FORMAT_TOKENS, ends, tokenizer.pad_token_id)
    answered = zip(jobs, outputs, strict=True)
    return [{"text": answer_text(tokenizer, job.prompt_ids, output.token_ids)} for job, output in answered]


def _nats(model: Any, pad_id: int, items: Sequence[ItemTokens]) -> list[list[float]]:
    """Return the negative log-likelihood of each item's continuations; each prompt is computed once."""
    import torch

    rows = [index for index, entry in enumerate(items) for _ in entry.continuations]
    golds = [ids for entry in items for ids in entry.continuations]
    with torch.inference_mode():
        decoder = open_decoder(model, [entry.prompt_ids for entry in items], pad_id)
        decoder.keep_rows(torch.tensor(rows, device=decoder.logits.device))
        means = decoder.score(golds)
    nats: list[list[float]] = [[] for _ in items]
    for index, ids, mean in zip(rows, golds, means, strict=True):
        nats[index].append(mean * len(ids))
    return nats


def retention_answer(item: RetentionItem, arm: str, output: Mapping[str, Any]) -> RetentionAnswer:
    """Return an item's answer with its value, from an output of ``answer_items``."""
    value, text, nll = 0.0, "", tuple(float(nats) for nats in output.get("nll", ()))
    if item.kind == "format":
        text = str(output["text"])
        value = float(passes(text_to_score(text), item.checks))
    elif item.kind == "passage":
        value = nll[0] / max(1, output["num_tokens"][0])
    else:
        chosen = likeliest_option(nll, item.options)
        value, text = float(chosen == item.right), item.options[chosen]
    return RetentionAnswer(item=item.id, arm=arm, kind=item.kind, topic=item.topic, value=value, text=text, nll=nll)
