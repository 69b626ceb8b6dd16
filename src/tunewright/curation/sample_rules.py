"""The rules for a single sample, the cheapest first: format, wording, evidence, support, declining."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from tunewright.curation.grounding import Claim, claim_fault
from tunewright.recipe import Recipe
from tunewright.records import GENERAL, OWN, VIEW, Chunk, Document, Message, Sample, Span
from tunewright.text.normalization import find_quote, normalize, question_fault
from tunewright.text.prompts import split_prompt

UNGROUNDED = (OWN, GENERAL)  # tasks whose samples have no document
CORRECTS = "false-premise"  # the task whose question holds a wrong premise
PREMISES = (CORRECTS, "true-premise")
_DECLINES = ("refusal", "unanswerable")  # the tasks that teach to decline
_COPIED = ("answer-first",)  # the tasks whose answer is the evidence, word for word
_DOUBTED = re.compile(r"Are you sure\?")  # a dialogue's user doubts an answer, with a wrong figure


@dataclass(frozen=True)
class SampleSources:
    """The sources of the samples: the recipe, and the documents and chunks by identifier.

    ``answered`` holds the evidence that answers a question, by normalized question (:func:`answered_quotes`).
    """

    recipe: Recipe
    documents: Mapping[str, Document] = field(default_factory=dict)
    chunks: Mapping[str, Chunk] = field(default_factory=dict)
    answered: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def _chunks_of(self) -> dict[str, list[Chunk]]:
        chunks: dict[str, list[Chunk]] = defaultdict(list)
        for chunk in self.chunks.values():
            chunks[chunk.document].append(chunk)
        return chunks

    def chunk_of(self, span: Span, first: str | None) -> Chunk | None:
        """Return the chunk that holds a span; the chunk named ``first`` is preferred."""
        named = self.chunks.get(first or "")
        candidates = [named] if named and named.document == span.document else []
        candidates += self._chunks_of.get(span.document, [])
        holding = (c for c in candidates if c.start <= span.start and span.end <= c.end)
        return next(holding, named if named and named.document == span.document else None)


_normal_refusal = lru_cache(maxsize=8)(normalize)


def teaches_refusal(sample: Sample, refusal: str) -> bool:
    """Return whether a sample teaches to decline: by its task, or as its answer is the recipe's refusal sentence."""
    return sample.task in _DECLINES or normalize(sample.answer) == _normal_refusal(refusal)


def turn_fault(messages: Sequence[Message]) -> str | None:
    """Return why the turns are no conversation to train on, or None.

    A system turn may come first; then user and assistant alternate, and the assistant has the last turn.
    """
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    if not turns:
        return "no turns"
    if any(not message.content.strip() for message in messages):
        return "empty turn"
    if any(m.role != ("user", "assistant")[n % 2] for n, m in enumerate(turns)):
        return "turns do not alternate"
    if turns[-1].role != "assistant":
        return "does not end with an assistant turn"
    return None


def anchor_evidence(sample: Sample, sources: SampleSources) -> Sample | None:
    """Return the sample with its evidence at its true offsets in the document, or None when it does not occur.

    The stored offsets count when the quote is there (equal after normalization). Else the quote is searched in the
    sample's chunk, or in the document when the sample names no chunk, with the recipe's ``evidence_match`` as bound.
    """
    span = sample.evidence
    document = sources.documents.get(span.document) if span else None
    if span is None or document is None:
        return None
    stored = document.text[span.start : span.end]
    if stored == span.quote and stored:
        return sample
    start, end = span.start, span.end
    if not stored or normalize(stored) != normalize(span.quote):
        chunk = sources.chunks.get(sample.chunk or "")
        stretch, offset = (chunk.text, chunk.start) if chunk else (document.text, 0)
        match = find_quote(span.quote, stretch, sources.recipe.curation.evidence_match)
        if match is None:
            return None
        start, end = match[0] + offset, match[1] + offset
    true = Span(document=document.id, start=start, end=end, quote=document.text[start:end])
    return sample.model_copy(update={"evidence": true})


def format_fault(sample: Sample, sources: SampleSources) -> str | None:
    """Roles must alternate, and no turn may be empty."""
    del sources
    return turn_fault(sample.messages)


def wording_fault(sample: Sample, sources: SampleSources) -> str | None:
    """The synthesized question (of a dialogue the first) must be fit; a refusal's answer is not compared with it."""
    if sample.task in UNGROUNDED or sample.task in (VIEW, "extraction"):
        return None
    question = next(turn.content for turn in sample.messages if turn.role == "user")
    answer = next(turn.content for turn in sample.messages if turn.role == "assistant")
    # A question about a claim holds its answer, or all but a word of it, on purpose.
    hides_nothing = teaches_refusal(sample, sources.recipe.refusal) or sample.task in PREMISES
    return question_fault(split_prompt(question)[1], "" if hides_nothing else answer)


def evidence_fault(sample: Sample, sources: SampleSources) -> str | None:
    """Evidence is required, and all of it must occur in its document."""
    if sample.task in UNGROUNDED or teaches_refusal(sample, sources.recipe.refusal):
        return None
    if sample.evidence is None:
        return "no evidence"
    if sample.evidence.document not in sources.documents:
        return "evidence from an unknown document"
    further = [sample.model_copy(update={"evidence": span, "chunk": None}) for span in sample.further_evidence]
    occurs = all(anchor_evidence(copy, sources) for copy in (sample, *further))
    return None if occurs else "evidence does not occur in the document"


def support_fault(sample: Sample, sources: SampleSources) -> str | None:
    """The chunk, as it is now, must support every answer (:mod:`tunewright.curation.grounding`)."""
    return next(filter(None, map(claim_fault, claims_of(sample, sources))), None)


def claims_of(sample: Sample, sources: SampleSources) -> list[Claim]:
    """Return the claims of a sample that the verifier checks: its answer, or each answer of a dialogue.

    A sample without a document, and one that declines, has no claim. The claims of an extraction are its quotes, which
    must occur in the document shown: its values were checked against them when it was written.
    """
    if sample.task in UNGROUNDED or teaches_refusal(sample, sources.recipe.refusal) or sample.evidence is None:
        return []
    spans = (sample.evidence, *sample.further_evidence)
    if sample.task == "extraction":
        shown = split_prompt(sample.question)[0]
        return [Claim(question="", answer=span.quote, evidence=span.quote, passage=shown) for span in spans]
    if sample.task == "dialogue":
        questions = [turn.content for turn in sample.messages if turn.role == "user"]
        answers = [turn.content for turn in sample.messages if turn.role == "assistant"]
        turns = zip(questions, answers, spans, strict=False)
        return [_claim(question, answer, (span,), sample, sources) for question, answer, span in turns]
    return [_claim(split_prompt(sample.question)[1], sample.answer, spans, sample, sources)]


def _claim(question: str, answer: str, spans: Sequence[Span], sample: Sample, sources: SampleSources) -> Claim:
    chunks = [sources.chunk_of(span, sample.chunk) for span in spans]
    document = sources.documents.get(spans[0].document)
    whole = document.text if document and not any(chunks) else ""
    texts = dict.fromkeys(chunk.text if chunk else span.quote for chunk, span in zip(chunks, spans, strict=True))
    titles = dict.fromkeys("\n".join([chunk.title, *chunk.section]) for chunk in chunks if chunk)
    return Claim(
        question=question,
        answer=answer,
        evidence=spans[0].quote,
        further=tuple(span.quote for span in spans[1:]),
        passage=whole or "\n".join(texts),
        title="\n".join(titles) or (document.title if document else ""),
        copied=sample.task in _COPIED,
        corrects=sample.task == CORRECTS or _DOUBTED.match(question) is not None,
    )


def decline_fault(sample: Sample, sources: SampleSources) -> str | None:
    """A sample that declines must not show the evidence by which another sample answers its question."""
    if sample.task in UNGROUNDED or not teaches_refusal(sample, sources.recipe.refusal):
        return None
    context, question = split_prompt(sample.question)
    shown = normalize(context)
    quotes = sources.answered.get(normalize(question), ())
    return "declines although its passage answers" if any(normalize(quote) in shown for quote in quotes) else None


def answered_quotes(samples: Sequence[Sample], refusal: str) -> dict[str, tuple[str, ...]]:
    """Return the evidence of the answered samples, by normalized question, for ``SampleSources.answered``.

    Only of the questions that other samples decline: no rule needs the others, which may be a million.
    """
    declined = {
        _question_key(sample)
        for sample in samples
        if sample.task not in UNGROUNDED and teaches_refusal(sample, refusal)
    }
    quotes: dict[str, list[str]] = defaultdict(list)
    for sample in samples if declined else ():
        question, quote = _question_key(sample), sample.evidence.quote if sample.evidence else ""
        if question in declined and quote.strip() and not teaches_refusal(sample, refusal):
            quotes[question].append(quote)
    return {question: tuple(dict.fromkeys(own)) for question, own in quotes.items()}


def _question_key(sample: Sample) -> str:
    return normalize(split_prompt(sample.question)[1])


SampleRule = Callable[[Sample, SampleSources], str | None]

RULES: dict[str, SampleRule] = {
    "format": format_fault,
    "wording": wording_fault,
    "evidence": evidence_fault,
    "support": support_fault,
    "decline": decline_fault,
}
