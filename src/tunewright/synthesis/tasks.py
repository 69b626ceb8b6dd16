"""The tasks that write training samples: answer-first, free-qa, refusal; a new task is an entry in TASKS."""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from tunewright.models.prompts import chat, passage_text
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Message, Rejection, Sample, Span, digest
from tunewright.synthesis.evidence import Evidence, ranked_evidence
from tunewright.synthesis.prompting import fill, load_prompt
from tunewright.synthesis.wording import clean_question, sentence_fault, short_title, stand_alone
from tunewright.teacher.protocol import Asks, Reply, Request
from tunewright.text import find_quote

QUESTION_TOKENS = 64  # room for one question
_ITEM_TOKENS = 200  # room for one question, answer and quote as JSON
_GROUNDED_PER_REFUSAL = 2
_MOST_ITEMS = 12  # asked for in one call
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

    def request(self, messages: tuple[Message, ...], max_tokens: int, schema: dict[str, Any] | None = None) -> Request:
        """Return a request with the recipe's temperature and seed."""
        return Request(messages, max_tokens, self.recipe.teacher.temperature, self.recipe.seed, schema)


@dataclass
class Written:
    """A task's samples, and what it had to reject."""

    samples: list[Sample] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)

    def reject(self, identity: str, reason: str, detail: str = "") -> None:
        """Count something that will be no sample."""
        self.rejections.append(Rejection(stage=STAGE, id=identity, reason=reason, detail=detail[:500]))


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


def answer_first(work: Work, answered: Sequence[Sample]) -> Written:
    """Ask for the question that an evidence sentence answers; the answer is the sentence, word for word."""
    del answered
    settings = work.recipe.synthesis
    written = Written()
    wanted: list[tuple[Document, Evidence]] = []
    for document in work.documents:
        ranked = ranked_evidence(document, work.chunks.get(document.id, ()), work.recipe.seed)
        if not ranked:
            written.reject(document.id, NO_SENTENCE, document.source)
        wanted += [(document, evidence) for evidence in ranked[: settings.samples_per_document]]
    replies = ask_questions(work, "answer-first", wanted, "writing questions")
    for (document, evidence), reply in zip(wanted, replies, strict=True):
        answer = evidence.sentence
        question = clean_question(reply.text) if reply else ""
        fault = reply_fault(reply) or sentence_fault(question, document.title, answer)
        question = stand_alone(question, document.title)
        identity = sample_id("answer-first", document.id, question, answer)
        if fault:
            written.reject(identity, fault, f"{question} <- {answer}")
            continue
        written.samples.append(
            Sample(
                id=identity,
                task="answer-first",
                messages=chat(work.recipe.system_prompt, question, answer=answer),
                document=document.id,
                chunk=evidence.chunk.id,
                evidence=evidence.span,
            )
        )
    return written


class _Item(BaseModel):
    question: str
    answer: str
    quote: str


_SCHEMA = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("question", "answer", "quote")},
                "required": ["question", "answer", "quote"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["items"],
    "additionalProperties": False,
}


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
    return items


def free_qa(work: Work, answered: Sequence[Sample]) -> Written:
    """Ask for several questions, answers and quotes per chunk as JSON; a quote must occur in its chunk."""
    del answered
    turns, written = load_prompt("free-qa"), Written()
    asked: list[tuple[Document, Chunk, int]] = []
    for document in work.documents:
        asked += [(document, chunk, count) for chunk, count in _shares(work, document)]
    requests = [
        work.request(
            fill(turns, title=document.title, passage=chunk.text, count=str(count)), count * _ITEM_TOKENS, _SCHEMA
        )
        for document, chunk, count in asked
    ]
    replies = work.teacher.ask_all(requests, "writing questions and answers")
    for (_, chunk, count), reply in zip(asked, replies, strict=True):
        fault = reply_fault(reply)
        if fault or reply is None:
            written.reject(chunk.id, fault or "")
            continue
        try:
            items = read_items(reply.text)
        except (ValueError, RecursionError) as error:
            written.reject(chunk.id, "teacher reply is not the JSON asked for", f"{error}: {reply.text}")
            continue
        for item in items[:count]:
            _add_item(work, chunk, item, written)
    return written


def _shares(work: Work, document: Document) -> list[tuple[Chunk, int]]:
    """Share out a document's questions over its chunks, about two each; a seeded choice when not all are needed."""
    wanted, seed = work.recipe.synthesis.samples_per_document, work.recipe.seed
    ranked = sorted(work.chunks.get(document.id, ()), key=lambda c: digest(seed, document.source, c.text))
    if not ranked or not wanted:
        return []
    num_calls = min(len(ranked), max(1, wanted // 2))
    counts = [wanted // num_calls + (number < wanted % num_calls) for number in range(num_calls)]
    return [(chunk, min(count, _MOST_ITEMS)) for chunk, count in zip(ranked, counts, strict=False)]


def _add_item(work: Work, chunk: Chunk, content: object, written: Written) -> None:
    """Turn one item of a free-qa reply into a sample, or reject it with the reason."""
    try:
        item = _Item.model_validate(content)
    except ValidationError:
        written.reject(chunk.id, "item lacks question, answer or quote", json.dumps(content, ensure_ascii=False))
        return
    question, answer = clean_question(item.question), " ".join(item.answer.split())
    identity = sample_id("free-qa", chunk.document, question, answer)
    if not question or not answer:
        written.reject(identity, "item with an empty question or answer", item.question)
        return
    place = find_quote(item.quote, chunk.text, work.recipe.curation.evidence_match)
    if place is None:
        written.reject(identity, "quote not in the passage", item.quote)
        return
    start, end, _ = place
    quote = chunk.text[start:end]
    span = Span(document=chunk.document, start=chunk.start + start, end=chunk.start + end, quote=quote)
    written.samples.append(
        Sample(
            id=identity,
            task="free-qa",
            messages=chat(work.recipe.system_prompt, question, answer=answer),
            document=chunk.document,
            chunk=chunk.id,
            evidence=span,
        )
    )


def refusal(work: Work, answered: Sequence[Sample]) -> Written:
    """Show some questions with a passage of another document (decline), and twice as many with their own (answer).

    A declined question is answered too, with its own passage, so that a passage as such means neither: what it says
    decides. Answers outnumber refusals, since a small student soon declines whatever comes with a passage. Needs no
    call. The questions are those with the least digests, and the other passage is the next on a ring of digests, so
    that an edited document changes little else.
    """
    recipe, written = work.recipe, Written()
    number = round(recipe.synthesis.refusal_share * len(answered))
    ranked = sorted(answered, key=lambda sample: digest(recipe.seed, "refusal", sample.id))
    chunks = {chunk.id: chunk for group in work.chunks.values() for chunk in group}
    ring = sorted((digest(recipe.seed, chunk.id), chunk.id) for chunk in chunks.values())
    for place, sample in enumerate(ranked[: _GROUNDED_PER_REFUSAL * number]):
        own = chunks[sample.chunk or ""]
        grounded = _shown(work, "grounded", sample.question, own, sample.answer)
        written.samples.append(grounded.model_copy(update={"chunk": own.id, "evidence": sample.evidence}))
        if place >= number:
            continue
        other = _other_chunk(work, sample, ring, chunks)
        if other is None:
            written.reject(sample.id, "no other document to refuse from")
        else:
            written.samples.append(_shown(work, "refusal", sample.question, other, recipe.refusal))
    return written


def _shown(work: Work, task: str, question: str, chunk: Chunk, answer: str) -> Sample:
    """Return a sample whose prompt shows a chunk."""
    return Sample(
        id=sample_id(task, chunk.document, question, answer),
        task=task,
        messages=chat(work.recipe.system_prompt, question, (passage_text(chunk),), answer),
        document=chunk.document,
    )


def _other_chunk(work: Work, sample: Sample, ring: Sequence[tuple[str, str]], chunks: dict[str, Chunk]) -> Chunk | None:
    """Return the next chunk on the ring from another group of near duplicates, without the sample's evidence."""
    own = sample.document or ""
    start = bisect(ring, (digest(work.recipe.seed, sample.id), ""))
    for step in range(len(ring)):
        chunk = chunks[ring[(start + step) % len(ring)][1]]
        same = chunk.document == own or work.groups.get(chunk.document, chunk.document) == work.groups.get(own, own)
        if not same and not (sample.evidence and sample.evidence.quote in chunk.text):
            return chunk
    return None


Task = Callable[[Work, Sequence[Sample]], Written]

# Run in this order: refusals are made of what the others wrote.
TASKS: dict[str, Task] = {"answer-first": answer_first, "free-qa": free_qa, "refusal": refusal}
