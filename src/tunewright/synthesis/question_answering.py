"""Free questions and answers with quoted evidence, by kind, for strong teachers; multi-hop over two chunks."""

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
    NO_SENTENCE,
    Work,
    Written,
    ask_questions,
    plain_sample,
    read_items,
    reply_fault,
    sample_id,
)
from tunewright.synthesis.questions import Evidence, clean_question, ranked_evidence, sentence_fault, stand_alone
from tunewright.synthesis.taxonomy import KINDS, MULTI_HOP, allot, kind_of, read_quotas
from tunewright.teacher.protocol import Request
from tunewright.text.normalization import find_quote
from tunewright.text.prompts import fill, load_prompt


def chosen_evidence(work: Work, document: Document) -> list[Evidence]:
    """Return the sentences of a document that are asked about: by rank, and by the recipe's quotas where it has some.

    Where a quota finds no sentence in the document, the next by rank takes its place.
    """
    settings = work.recipe.synthesis
    ranked = ranked_evidence(document, work.chunks.get(document.id, ()), work.recipe.seed)
    number, quotas = settings.samples_per_document, read_quotas(settings)
    if not quotas:
        return ranked[:number]
    chosen: list[Evidence] = []
    for quota in allot(quotas, min(number, len(ranked)), work.recipe.seed, document.source):
        left = [one for one in ranked if one not in chosen]
        fitting = [one for one in left if quota.fits(kind_of(one.sentence), one.chunk)]
        chosen.append((fitting or left)[0])
    return chosen


def answer_first(work: Work, answered: Sequence[Sample]) -> Written:
    """Ask for the question that an evidence sentence answers; the answer is the sentence, word for word."""
    del answered
    written = Written("answer-first")
    wanted: list[tuple[Document, Evidence]] = []
    for document in work.documents:
        chosen = chosen_evidence(work, document)
        if not chosen:
            written.reject(document.id, NO_SENTENCE, document.source)
        written.num_tried += len(chosen) or 1
        wanted += [(document, evidence) for evidence in chosen]
    replies = ask_questions(work, "answer-first", wanted, "writing questions")
    for (document, evidence), reply in zip(wanted, replies, strict=True):
        answer = evidence.sentence
        question = clean_question(reply.text) if reply else ""
        fault = reply_fault(reply) or sentence_fault(question, document.title, answer)
        question = stand_alone(question, document.title)
        if fault:
            identity = sample_id("answer-first", document.id, question, answer)
            written.reject(identity, fault, f"{question} <- {answer}")
            continue
        kind = kind_of(answer)
        span = (evidence.span,)
        written.samples.append(
            plain_sample(work, "answer-first", document.id, question, answer, evidence.chunk.id, span, kind)
        )
    return written


_ITEM_TOKENS = 200  # room for one question, answer and quote as JSON
_PER_CALL = 2  # questions asked for at once, about; more of a passage repeat each other


class _Item(BaseModel):
    question: str
    answer: str
    quotes: list[str]


def _schema() -> dict[str, Any]:
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
class Ask:
    """One call: the chunks it shows (two for multi-hop) and the kinds of its questions ("" is any)."""

    document: Document
    chunks: tuple[Chunk, ...]
    kinds: tuple[str, ...]


def free_qa(work: Work, answered: Sequence[Sample]) -> Written:
    """Ask for questions, answers and quotes as JSON; each quote must occur in its chunk."""
    del answered
    written = Written("free-qa")
    asks = [ask for document in work.documents for ask in asks_of(work, document)]
    replies = work.teacher.ask_all([_request(work, ask) for ask in asks], "writing questions and answers")
    for ask, reply in zip(asks, replies, strict=True):
        fault = reply_fault(reply)
        if fault or reply is None:
            written.num_tried += 1
            written.reject(ask.chunks[0].id, fault or "")
            continue
        try:
            items = read_items(reply.text)
        except (ValueError, RecursionError) as error:
            written.num_tried += 1
            written.reject(ask.chunks[0].id, "teacher reply is not the JSON asked for", f"{error}: {reply.text}")
            continue
        written.num_tried += len(items)
        for number, item in enumerate(items):
            if number >= len(ask.kinds):
                written.reject(digest(ask.chunks[0].id, item), "more items than asked for")
                continue
            _add_item(work, ask, ask.kinds[number], item, written)
    return written


def asks_of(work: Work, document: Document) -> list[Ask]:
    """Share out a document's questions over its chunks, about two to a call, by the recipe's quotas.

    A seeded choice of chunks when not all are needed. Where a document has no chunk in a quota's section, any will
    do; a document of one chunk gets no multi-hop question but one of any kind.
    """
    settings, seed = work.recipe.synthesis, work.recipe.seed
    ranked = sorted(work.chunks.get(document.id, ()), key=lambda c: digest(seed, document.source, c.text))
    if not ranked or not settings.samples_per_document:
        return []
    kinds: dict[tuple[Chunk, ...], list[str]] = {}
    quotas = read_quotas(settings)
    turn: Counter[str] = Counter()
    num_calls = min(len(ranked), max(1, settings.samples_per_document // _PER_CALL))
    if not quotas:
        share, more = divmod(settings.samples_per_document, num_calls)
        return [Ask(document, (chunk,), ("",) * (share + (n < more))) for n, chunk in enumerate(ranked[:num_calls])]
    for quota in allot(quotas, settings.samples_per_document, seed, document.source):
        fitting = [chunk for chunk in ranked if quota.in_section(chunk)] or ranked
        place = turn[quota.section] // _PER_CALL
        turn[quota.section] += 1
        first = fitting[place % len(fitting)]
        hops = quota.kind == MULTI_HOP and len(ranked) > 1
        shown = (first, ranked[(ranked.index(first) + 1) % len(ranked)]) if hops else (first,)
        kinds.setdefault(shown, []).append(quota.kind if hops or quota.kind != MULTI_HOP else "")
    return [Ask(document, shown, tuple(asked)) for shown, asked in kinds.items()]


def _request(work: Work, ask: Ask) -> Request:
    hops = MULTI_HOP in ask.kinds
    lines = [f"- Question {n} {KINDS[kind]}." for n, kind in enumerate(ask.kinds, 1) if kind and not hops]
    passage = "\n\n".join(
        f"[{number}] {chunk.text}" if hops else chunk.text for number, chunk in enumerate(ask.chunks, 1)
    )
    messages = fill(
        load_prompt("multi-hop" if hops else "free-qa"),
        title=ask.document.title,
        passage=passage,
        count=str(len(ask.kinds)),
        kinds="".join(f"{line}\n" for line in lines),
    )
    return work.request(messages, len(ask.kinds) * _ITEM_TOKENS, _schema())


def _quotes(content: object) -> object:
    """Accept "quote" for "quotes", as many teachers write it."""
    if isinstance(content, Mapping) and isinstance(content.get("quote"), str):
        return {**content, "quotes": [content["quote"]]}
    return content


def _add_item(work: Work, ask: Ask, kind: str, content: object, written: Written) -> None:
    """Turn one item of a reply into a sample, or reject it with the reason."""
    try:
        item = _Item.model_validate(_quotes(content))
    except ValidationError:
        identity = digest(ask.chunks[0].id, content)
        written.reject(identity, "item lacks question, answer or quote", json.dumps(content, ensure_ascii=False))
        return
    question, answer = clean_question(item.question), " ".join(item.answer.split())
    document = ask.document.id
    identity = sample_id("free-qa", document, question, answer)
    if not question or not answer:
        written.reject(identity, "item with an empty question or answer", item.question)
        return
    if is_refusal(answer, work.recipe.refusal):
        written.reject(identity, "answer declines", question)
        return
    spans = [_span(quote, ask.chunks, work.recipe.curation.evidence_match) for quote in item.quotes]
    if not spans or None in spans:
        written.reject(identity, "quote not in the passage", " | ".join(item.quotes))
        return
    found = [span for span in spans if span is not None]
    if kind == MULTI_HOP and len({_holder(span, ask.chunks) for span in found}) < len(ask.chunks):
        written.reject(identity, "multi-hop answer without a quote from each passage", " | ".join(item.quotes))
        return
    chunk = ask.chunks[_holder(found[0], ask.chunks)].id
    written.samples.append(plain_sample(work, "free-qa", document, question, answer, chunk, found, kind))


def _holder(span: Span, chunks: Sequence[Chunk]) -> int:
    """Return the place of the chunk that holds a span."""
    return next(n for n, chunk in enumerate(chunks) if chunk.start <= span.start and span.end <= chunk.end)


def _span(quote: str, chunks: Sequence[Chunk], bound: float) -> Span | None:
    """Return where a quote stands in one of the chunks, the best of them, or None."""
    places = [(place, chunk) for chunk in chunks if (place := find_quote(quote, chunk.text, bound))]
    if not places:
        return None
    (start, end, _), chunk = max(places, key=lambda found: found[0][2])
    text = chunk.text[start:end]
    return Span(document=chunk.document, start=chunk.start + start, end=chunk.start + end, quote=text)
