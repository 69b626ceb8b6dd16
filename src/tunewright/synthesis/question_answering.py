"""Question answering by free questions and answers with quoted evidence, as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from tunewright.metrics import is_refusal
from tunewright.records import Chunk, Document, Sample, Span, digest
from tunewright.synthesis.context import (
    PACKAGE,
    TaskContext,
    TaskResult,
    in_language,
    plain_sample,
    read_items,
    reply_fault,
    sample_id,
)
from tunewright.synthesis.questions import (
    clean_question,
)
from tunewright.synthesis.taxonomy import MULTI_HOP, QUESTION_KINDS, allocate, read_quotas
from tunewright.teacher.protocol import Request
from tunewright.text.normalization import find_quote
from tunewright.text.prompts import fill, load_prompt

_ITEM_TOKENS = 200  # room for one question, answer and quote as JSON
_QUESTIONS_PER_CALL = 2  # about; more questions on one passage repeat each other


class _ReplyItem(BaseModel):
    question: str
    answer: str
    quotes: list[str]


def _reply_schema() -> dict[str, Any]:
    fields: dict[str, Any] = {name: {"type": "string"} for name in ("question", "answer")}
    fields["quotes"] = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    item = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {
        "type": "object",
        "properties": {"items": {"type": "array", "items": item}},
        "required": ["items"],
        "additionalProperties": False,
    }


@dataclass(frozen=True)
class QuestionCall:
    """One teacher call: the chunks that it shows (two for multi-hop) and the kinds of its questions ("" is any)."""

    document: Document
    chunks: tuple[Chunk, ...]
    kinds: tuple[str, ...]


def free_qa(context: TaskContext, answered: Sequence[Sample]) -> TaskResult:
    """Ask for questions, answers and quotes as JSON; each quote must occur in its chunk."""
    del answered
    result = TaskResult("free-qa")
    calls = [call for document in context.documents for call in calls_about(context, document)]
    replies = context.teacher.ask_all([_request(context, call) for call in calls], "writing questions and answers")
    for call, reply in zip(calls, replies, strict=True):
        fault = reply_fault(reply)
        if fault or reply is None:
            result.num_tried += 1
            result.reject(call.chunks[0].id, fault or "")
            continue
        try:
            items = read_items(reply.text)
        except (ValueError, RecursionError) as error:
            result.num_tried += 1
            result.reject(call.chunks[0].id, "teacher reply is not the JSON asked for", f"{error}: {reply.text}")
            continue
        result.num_tried += len(items)
        for number, item in enumerate(items):
            if number >= len(call.kinds):
                result.reject(digest(call.chunks[0].id, item), "more items than asked for")
                continue
            _add_item(context, call, call.kinds[number], item, result)
    return result


def calls_about(context: TaskContext, document: Document) -> list[QuestionCall]:
    """Return the calls that distribute a document's questions over its chunks, about two to a call, by quota.

    The seed chooses the chunks if not all are needed. A document without a chunk in a quota's section takes any chunk;
    a document of one chunk takes a question of any kind in place of a multi-hop question.
    """
    settings, seed = context.recipe.synthesis, context.recipe.seed
    ranked = sorted(context.chunks.get(document.id, ()), key=lambda c: digest(seed, document.source, c.text))
    if not ranked or not settings.samples_per_document:
        return []
    kinds: dict[tuple[Chunk, ...], list[str]] = {}
    quotas = read_quotas(settings)
    num_by_section: Counter[str] = Counter()
    num_calls = min(len(ranked), max(1, settings.samples_per_document // _QUESTIONS_PER_CALL))
    if not quotas:
        share, more = divmod(settings.samples_per_document, num_calls)
        return [
            QuestionCall(document, (chunk,), ("",) * (share + (index < more)))
            for index, chunk in enumerate(ranked[:num_calls])
        ]
    for quota in allocate(quotas, settings.samples_per_document, seed, document.source):
        fitting = [chunk for chunk in ranked if quota.in_section(chunk)] or ranked
        first = fitting[num_by_section[quota.section] // _QUESTIONS_PER_CALL % len(fitting)]
        num_by_section[quota.section] += 1
        hops = quota.kind == MULTI_HOP and len(ranked) > 1
        passages = (first, ranked[(ranked.index(first) + 1) % len(ranked)]) if hops else (first,)
        kinds.setdefault(passages, []).append(quota.kind if hops or quota.kind != MULTI_HOP else "")
    return [QuestionCall(document, passages, tuple(of_call)) for passages, of_call in kinds.items()]


def _request(context: TaskContext, call: QuestionCall) -> Request:
    hops = MULTI_HOP in call.kinds
    lines = [f"- Question {n} {QUESTION_KINDS[kind]}." for n, kind in enumerate(call.kinds, 1) if kind and not hops]
    passage = "\n\n".join(
        f"[{number}] {chunk.text}" if hops else chunk.text for number, chunk in enumerate(call.chunks, 1)
    )
    messages = fill(
        load_prompt("multi-hop" if hops else "free-qa", PACKAGE),
        title=call.document.title,
        passage=passage,
        count=str(len(call.kinds)),
        kinds="".join(f"{line}\n" for line in lines),
    )
    messages = in_language(messages, context.languages[call.document.id])
    return context.request(messages, len(call.kinds) * _ITEM_TOKENS, _reply_schema())


def _with_quotes(content: object) -> object:
    """Return the item with "quotes" in place of "quote", which many teachers write."""
    if isinstance(content, Mapping) and isinstance(content.get("quote"), str):
        return {**content, "quotes": [content["quote"]]}
    return content


def _add_item(context: TaskContext, call: QuestionCall, kind: str, content: object, result: TaskResult) -> None:
    """Turn one item of a reply into a sample, or reject it with the reason."""
    try:
        item = _ReplyItem.model_validate(_with_quotes(content))
    except ValidationError:
        identity = digest(call.chunks[0].id, content)
        result.reject(identity, "item lacks question, answer or quote", json.dumps(content, ensure_ascii=False))
        return
    question, answer = clean_question(item.question), " ".join(item.answer.split())
    document = call.document.id
    identity = sample_id("free-qa", document, question, answer)
    if not question or not answer:
        result.reject(identity, "item with an empty question or answer", item.question)
        return
    if is_refusal(answer, context.recipe.refusal):
        result.reject(identity, "answer declines", question)
        return
    evidence_match = context.recipe.curation.evidence_match
    spans = [span for quote in item.quotes if (span := _quote_span(quote, call.chunks, evidence_match))]
    if not spans or len(spans) < len(item.quotes):
        result.reject(identity, "quote not in the passage", " | ".join(item.quotes))
        return
    if kind == MULTI_HOP and len({_chunk_index(span, call.chunks) for span in spans}) < len(call.chunks):
        result.reject(identity, "multi-hop answer without a quote from each passage", " | ".join(item.quotes))
        return
    chunk = call.chunks[_chunk_index(spans[0], call.chunks)].id
    result.samples.append(plain_sample(context, "free-qa", document, question, answer, chunk, spans, kind))


def _chunk_index(span: Span, chunks: Sequence[Chunk]) -> int:
    """Return the index of the chunk that holds a span."""
    return next(n for n, chunk in enumerate(chunks) if chunk.start <= span.start and span.end <= chunk.end)


def _quote_span(quote: str, chunks: Sequence[Chunk], evidence_match: float) -> Span | None:
    """Return the span of a quote in the chunk that holds it best, or None."""
    matches = [(match, chunk) for chunk in chunks if (match := find_quote(quote, chunk.text, evidence_match))]
    if not matches:
        return None
    (start, end, _), chunk = max(matches, key=lambda pair: pair[0][2])
    text = chunk.text[start:end]
    return Span(document=chunk.document, start=chunk.start + start, end=chunk.start + end, quote=text)
