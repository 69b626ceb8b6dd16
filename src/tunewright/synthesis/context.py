"""The input and the output of every task, and the helpers that tasks share."""

from __future__ import annotations

import json
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tunewright.models.chat_template import chat
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Message, Record, Rejection, Sample, Span, digest
from tunewright.settings import EMBEDDED
from tunewright.synthesis.questions import EvidenceSentence, short_title
from tunewright.teacher.protocol import Reply, Request, TeacherLike
from tunewright.text.languages import ENGLISH, LANGUAGES, document_languages
from tunewright.text.normalization import replace_lone_surrogates
from tunewright.text.prompts import fill, load_prompt

PACKAGE = "tunewright.synthesis"  # of the files in prompts/
QUESTION_TOKENS = 64  # room for one question
EXAM_STAGE, SYNTH_STAGE = "exam", "synth"
NO_SENTENCE = "document has no sentence to ask about"


class Focus(Record):
    """A sentence to ask about: where it begins, the first view of its questions, and a question not to repeat."""

    document: str
    start: int
    view: int = 0
    avoid: str = ""


@dataclass(frozen=True)
class TaskContext:
    """The input of a task: the recipe, the teacher, and the documents with their chunks and near-duplicate groups.

    ``focus``, by document and start, holds the sentences to ask about; None is all.
    """

    recipe: Recipe
    teacher: TeacherLike
    documents: Sequence[Document]
    chunks: dict[str, list[Chunk]]
    groups: dict[str, str] = field(default_factory=dict)
    focus: Mapping[tuple[str, int], Focus] | None = None

    def request(
        self,
        messages: tuple[Message, ...],
        max_tokens: int,
        schema: dict[str, Any] | None = None,
        temperature: float | None = None,
    ) -> Request:
        """Return a request with the recipe's seed, and with the recipe's temperature unless another is given."""
        temperature = self.recipe.teacher.temperature if temperature is None else temperature
        return Request(messages, max_tokens, temperature, self.recipe.seed, schema)

    @cached_property
    def languages(self) -> dict[str, str]:
        """The code of each document's language."""
        return document_languages({document.id: document.text for document in self.documents})

    def is_ruled(self, document: str) -> bool:
        """Return whether rules write all questions on a document: the embedded teacher writes English alone."""
        small = self.recipe.teacher.url == EMBEDDED or self.recipe.writer.model == EMBEDDED
        return self.languages[document] != ENGLISH.code and small

    @cached_property
    def chunk_by_id(self) -> dict[str, Chunk]:
        """All chunks by identifier."""
        return {chunk.id: chunk for group in self.chunks.values() for chunk in group}

    @cached_property
    def _digest_order(self) -> list[tuple[str, str]]:
        return sorted((digest(self.recipe.seed, identity), identity) for identity in self.chunk_by_id)

    def other_chunks(self, sample: Sample, number: int) -> list[Chunk]:
        """Return up to ``number`` chunks from other near-duplicate groups that do not hold the sample's evidence.

        They follow the sample in a circular order of digests, so that an edited document changes few other samples.
        """
        own = sample.document or ""
        order = self._digest_order
        start = bisect(order, (digest(self.recipe.seed, sample.id), ""))
        chosen: list[Chunk] = []
        for step in range(len(order)):
            if len(chosen) == number:
                break
            chunk = self.chunk_by_id[order[(start + step) % len(order)][1]]
            same = chunk.document == own or self.groups.get(chunk.document, chunk.document) == self.groups.get(own, own)
            if not same and not (sample.evidence and sample.evidence.quote in chunk.text):
                chosen.append(chunk)
        return chosen


@dataclass
class TaskResult:
    """The output of a task: each of the ``num_tried`` attempts ends as a sample or as a rejection."""

    task: str
    num_tried: int = 0
    figures: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)

    def reject(self, identity: str, reason: str, detail: str = "") -> None:
        """Add a rejection; its detail is cut to 500 characters."""
        detail = replace_lone_surrogates(detail[:500])
        self.rejections.append(Rejection(stage=SYNTH_STAGE, id=identity, reason=reason, detail=detail, task=self.task))


TaskFunction = Callable[[TaskContext, Sequence[Sample]], TaskResult]


# What asks for a further question on the same sentence, in turns; such questions are drawn, not the likeliest.
_VIEWS = (
    "Ask in other words than the sentence uses.",
    "Begin the question with another word than what, which or how.",
    "Ask as somebody who has never seen the text.",
    "Ask for the detail that is easiest to forget.",
)
_VIEW_TEMPERATURE = 0.7


def ask_questions(
    context: TaskContext, prompt: str, pairs: Sequence[tuple[Document, EvidenceSentence]], label: str, view: int = 0
) -> list[Reply | None]:
    """Return the teacher's reply for each evidence sentence: a question that the sentence answers.

    Args:
        context: supplies the teacher, the seed and the temperature.
        prompt: the name of a file in prompts/.
        pairs: each sentence with its document.
        label: the text of the progress bar.
        view: 0 for the likeliest question; a higher number asks for another one, in other words.
    """
    turns = load_prompt(prompt, PACKAGE)
    filled = [
        in_language(
            fill(turns, title=short_title(document.title), sentence=evidence.sentence), context.languages[document.id]
        )
        for document, evidence in pairs
    ]
    requests = [context.request(messages, QUESTION_TOKENS) for messages in filled]
    if view:
        more = _VIEWS[(view - 1) % len(_VIEWS)]
        temperature = max(_VIEW_TEMPERATURE, context.recipe.teacher.temperature)
        requests = [
            replace(
                request,
                messages=with_line(request.messages, more),
                temperature=temperature,
                seed=context.recipe.seed + view,
            )
            for request in requests
        ]
    return context.teacher.ask_all(requests, label)


def with_line(prompt: tuple[Message, ...], line: str) -> tuple[Message, ...]:
    """Return a prompt whose last turn ends with a further line."""
    last = prompt[-1]
    return (*prompt[:-1], last.model_copy(update={"content": f"{last.content}\n{line}"}))


def in_language(prompt: tuple[Message, ...], code: str) -> tuple[Message, ...]:
    """Return a prompt that asks for a text in this language; in English, the prompt itself."""
    if code == ENGLISH.code:
        return prompt
    name = LANGUAGES[code].name if code in LANGUAGES else f"the language with the code {code}"
    return with_line(prompt, f"Write in {name}, the language of the text.")


def reply_fault(reply: Reply | None) -> str | None:
    """Return why a reply cannot be used, or None."""
    if reply is None:
        return "teacher call failed"
    if reply.finish == "length":
        return "teacher reply cut"
    if reply.finish == "other":  # a content filter, a tool call, or no reason given: the answer may be incomplete
        return "teacher reply not finished"
    if reply.finish == "malformed":
        return "teacher reply holds half a character"
    return None if reply.text.strip() else "teacher reply empty"


def sample_id(task: str, document: str, question: str, answer: str) -> str:
    """Return a sample's identifier, which depends only on its content."""
    return digest(task, document, question, answer)


def seeded_order(context: TaskContext, samples: Sequence[Sample], task: str) -> list[Sample]:
    """Return the samples in an order that the seed, the task and their identifiers decide.

    The order of two samples does not depend on the others, so that an edited document changes few other samples.
    """
    return sorted(samples, key=lambda sample: digest(context.recipe.seed, task, sample.id))


def plain_sample(
    context: TaskContext,
    task: str,
    document: str,
    question: str,
    answer: str,
    chunk: str,
    evidence: Sequence[Span],
    kind: str = "",
) -> Sample:
    """Return a sample of one question and its answer; the prompt shows no passage."""
    return Sample(
        id=sample_id(task, document, question, answer),
        task=task,
        kind=kind,
        messages=chat(context.recipe.system_prompt, question, answer=answer),
        document=document,
        chunk=chunk,
        evidence=evidence[0],
        further_evidence=tuple(evidence[1:]),
    )


def read_items(text: str) -> list[Any]:
    """Return the items of a reply: of {"items": [...]}, of a bare list, or of either inside a code fence.

    Raises:
        ValueError: the reply holds no such list.
    """
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=0)
    content, _ = json.JSONDecoder().raw_decode(text, start)
    items = content.get("items") if isinstance(content, dict) else content
    if not isinstance(items, list):
        raise ValueError("no list of items")
    return [replace_lone_surrogates(item) for item in items]
