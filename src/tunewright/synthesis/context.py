"""What every task works on and returns: Work, Written, and what the tasks share."""

from __future__ import annotations

import json
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tunewright.models.chat_template import chat
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Message, Rejection, Sample, Span, digest
from tunewright.synthesis.questions import Evidence, short_title
from tunewright.teacher.protocol import Asks, Reply, Request
from tunewright.text.prompts import fill, load_prompt

QUESTION_TOKENS = 64  # room for one question
STAGE = "synth"
NO_SENTENCE = "document has no sentence to ask about"


@dataclass(frozen=True)
class Work:
    """What a task works on: the training documents with their chunks and near-duplicate groups."""

    recipe: Recipe
    teacher: Asks
    documents: Sequence[Document]
    chunks: dict[str, list[Chunk]]
    groups: dict[str, str] = field(default_factory=dict)

    def request(
        self,
        messages: tuple[Message, ...],
        max_tokens: int,
        schema: dict[str, Any] | None = None,
        temperature: float | None = None,
    ) -> Request:
        """Return a request with the recipe's seed, and its temperature where none is given."""
        warmth = self.recipe.teacher.temperature if temperature is None else temperature
        return Request(messages, max_tokens, warmth, self.recipe.seed, schema)

    @cached_property
    def chunk_by_id(self) -> dict[str, Chunk]:
        """All chunks by identifier."""
        return {chunk.id: chunk for group in self.chunks.values() for chunk in group}

    @cached_property
    def _ring(self) -> list[tuple[str, str]]:
        return sorted((digest(self.recipe.seed, identity), identity) for identity in self.chunk_by_id)

    def others(self, sample: Sample, number: int) -> list[Chunk]:
        """Return up to that many chunks from other groups of near duplicates, without the sample's evidence.

        They are the next on a ring of digests, so that an edited document changes little else.
        """
        own = sample.document or ""
        start = bisect(self._ring, (digest(self.recipe.seed, sample.id), ""))
        found: list[Chunk] = []
        for step in range(len(self._ring)):
            if len(found) == number:
                break
            chunk = self.chunk_by_id[self._ring[(start + step) % len(self._ring)][1]]
            same = chunk.document == own or self.groups.get(chunk.document, chunk.document) == self.groups.get(own, own)
            if not same and not (sample.evidence and sample.evidence.quote in chunk.text):
                found.append(chunk)
        return found


@dataclass
class Written:
    """A task's samples, and what it had to reject: each thing tried ends as one or the other."""

    task: str
    num_tried: int = 0
    figures: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)

    def reject(self, identity: str, reason: str, detail: str = "") -> None:
        """Count something that will be no sample."""
        self.rejections.append(
            Rejection(stage=STAGE, id=identity, reason=reason, detail=whole_characters(detail[:500]), task=self.task)
        )


Task = Callable[[Work, Sequence[Sample]], Written]


def ask_questions(
    work: Work, prompt: str, wanted: Sequence[tuple[Document, Evidence]], label: str
) -> list[Reply | None]:
    """Ask for one question per evidence sentence, with a prompt of prompts/."""
    turns = load_prompt(prompt)
    filled = [
        fill(turns, title=short_title(document.title), sentence=evidence.sentence) for document, evidence in wanted
    ]
    return work.teacher.ask_all([work.request(messages, QUESTION_TOKENS) for messages in filled], label)


def reply_fault(reply: Reply | None) -> str | None:
    """Return why a reply cannot be used at all, or None."""
    if reply is None:
        return "teacher call failed"
    if reply.finish == "length":
        return "teacher reply cut"
    if reply.finish == "other":  # a content filter, a tool call, or nothing said: none of them is a whole answer
        return "teacher reply not finished"
    return None if reply.text.strip() else "teacher reply empty"


def sample_id(task: str, document: str, question: str, answer: str) -> str:
    """Return a sample's identifier, from its content alone."""
    return digest(task, document, question, answer)


def plain_sample(
    work: Work,
    task: str,
    document: str,
    question: str,
    answer: str,
    chunk: str,
    evidence: Sequence[Span],
    kind: str = "",
) -> Sample:
    """Return a sample of one question and its answer, without a passage in its prompt."""
    return Sample(
        id=sample_id(task, document, question, answer),
        task=task,
        kind=kind,
        messages=chat(work.recipe.system_prompt, question, answer=answer),
        document=document,
        chunk=chunk,
        evidence=evidence[0],
        further_evidence=tuple(evidence[1:]),
    )


def read_items(text: str) -> list[Any]:
    """Return the list of items in a reply: {"items": [...]}, a bare list, or either inside a code fence.

    Raises:
        ValueError: there is no such list.
    """
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=0)
    content, _ = json.JSONDecoder().raw_decode(text, start)
    items = content.get("items") if isinstance(content, dict) else content
    if not isinstance(items, list):
        raise ValueError("no list of items")
    return [whole_characters(item) for item in items]


def whole_characters(value: Any) -> Any:
    """Return a JSON value whose texts can be written as UTF-8: half surrogates, as of a cut emoji, are replaced."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [whole_characters(one) for one in value]
    if isinstance(value, dict):
        return {whole_characters(key): whole_characters(one) for key, one in value.items()}
    return value
