"""The rules that a sample must pass on its own, cheapest first: form, wording, evidence, support."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tunewright.curation.verify import Claim, unsupported
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Message, Sample, Span
from tunewright.text import find_quote, normalize, question_fault

_LABEL = re.compile(r"^\s*(?:question|q)\s*:[ \t]*", re.IGNORECASE | re.MULTILINE)

OWN = "own"  # the task of the user's own data
CORRECTS = "false-premise"  # the task whose question holds a wrong premise
_DECLINES = ("refusal", "unanswerable")  # the tasks that teach to decline
_COPIED = ("answer-first",)  # the tasks whose answer is the evidence, word for word


@dataclass(frozen=True)
class Sources:
    """What the rules look samples up in: the recipe, and the documents and chunks by identifier.

    ``answered`` holds the evidence that answers a question, by normalized question (:func:`answered_quotes`).
    """

    recipe: Recipe
    documents: Mapping[str, Document] = field(default_factory=dict)
    chunks: Mapping[str, Chunk] = field(default_factory=dict)
    answered: Mapping[str, Sequence[str]] = field(default_factory=dict)


def split_prompt(turn: str) -> tuple[str, str]:
    """Return (context, question) of a user turn.

    A prompt with a passage holds it first and asks last: the question is what follows the last "Question:" that
    starts a line, else the last paragraph; the context is what stands before it.
    """
    turn = turn.strip()
    label = next(reversed(list(_LABEL.finditer(turn))), None)
    if label and turn[label.end() :].strip():
        return turn[: label.start()].strip(), turn[label.end() :].strip()
    context, _, question = turn.rpartition("\n\n")
    return context.strip(), question.strip()


def is_refusal(sample: Sample, recipe: Recipe) -> bool:
    """Tell whether the sample teaches to decline."""
    return sample.task in _DECLINES or normalize(sample.answer) == normalize(recipe.refusal)


def turn_fault(messages: Sequence[Message]) -> str | None:
    """Return why the turns are no conversation to learn from, or None.

    A system turn may come first; then user and assistant alternate, and the assistant has the last word.
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


def anchor(sample: Sample, sources: Sources) -> Sample | None:
    """Return the sample with its evidence at its true place in the document, or None when it does not occur.

    The stored offsets count when the quote stands there (exact after normalization). Else the quote is looked
    for in the sample's chunk, and in the whole document when it names none, with the recipe's
    ``evidence_match`` as the bound.
    """
    span = sample.evidence
    document = sources.documents.get(span.document) if span else None
    if span is None or document is None:
        return None
    there = document.text[span.start : span.end]
    if there == span.quote and there:
        return sample
    start, end = span.start, span.end
    if not there or normalize(there) != normalize(span.quote):
        chunk = sources.chunks.get(sample.chunk or "")
        stretch, offset = (chunk.text, chunk.start) if chunk else (document.text, 0)
        place = find_quote(span.quote, stretch, sources.recipe.curation.evidence_match)
        if place is None:
            return None
        start, end = place[0] + offset, place[1] + offset
    true = Span(document=document.id, start=start, end=end, quote=document.text[start:end])
    return sample.model_copy(update={"evidence": true})


def format_fault(sample: Sample, sources: Sources) -> str | None:
    """Roles in order, and no empty turn."""
    del sources
    return turn_fault(sample.messages)


def wording_fault(sample: Sample, sources: Sources) -> str | None:
    """What makes a written question unfit; a refusal's answer says nothing about its question."""
    if sample.task == OWN:
        return None
    answer = "" if is_refusal(sample, sources.recipe) else sample.answer
    return question_fault(split_prompt(sample.question)[1], answer)


def evidence_fault(sample: Sample, sources: Sources) -> str | None:
    """Evidence must be given, and must occur in its document."""
    if sample.task == OWN or is_refusal(sample, sources.recipe):
        return None
    if sample.evidence is None:
        return "no evidence"
    if sample.evidence.document not in sources.documents:
        return "evidence from an unknown document"
    return None if anchor(sample, sources) else "evidence does not occur in the document"


def support_fault(sample: Sample, sources: Sources) -> str | None:
    """The chunk, as it is now, must carry the answer: the free verifier, see :mod:`tunewright.curation.verify`."""
    claim = claim_of(sample, sources)
    return unsupported(claim) if claim else None


def claim_of(sample: Sample, sources: Sources) -> Claim | None:
    """Return what the verifier is to check of a sample; None for the user's own data and where nothing is answered."""
    if sample.task == OWN or is_refusal(sample, sources.recipe) or sample.evidence is None:
        return None
    chunk = sources.chunks.get(sample.chunk or "")
    document = sources.documents.get(sample.evidence.document)
    return Claim(
        question=split_prompt(sample.question)[1],
        answer=sample.answer,
        evidence=sample.evidence.quote,
        passage=chunk.text if chunk else document.text if document else sample.evidence.quote,
        title="\n".join([chunk.title, *chunk.section]) if chunk else document.title if document else "",
        copied=sample.task in _COPIED,
        corrects=sample.task == CORRECTS,
    )


def decline_fault(sample: Sample, sources: Sources) -> str | None:
    """A sample that declines must not show what answers its question elsewhere in the data."""
    if sample.task == OWN or not is_refusal(sample, sources.recipe):
        return None
    context, question = split_prompt(sample.question)
    shown = normalize(context)
    quotes = sources.answered.get(normalize(question), ())
    return "declines although its passage answers" if any(normalize(quote) in shown for quote in quotes) else None


def answered_quotes(samples: Iterable[Sample], recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Return the evidence of the answered samples, by normalized question: what ``Sources.answered`` holds."""
    quotes: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.evidence and sample.evidence.quote.strip() and not is_refusal(sample, recipe):
            quotes[normalize(split_prompt(sample.question)[1])].append(sample.evidence.quote)
    return {question: tuple(dict.fromkeys(found)) for question, found in quotes.items()}


Rule = Callable[[Sample, Sources], str | None]

RULES: dict[str, Rule] = {
    "format": format_fault,
    "wording": wording_fault,
    "evidence": evidence_fault,
    "support": support_fault,
    "decline": decline_fault,
}
