"""The rules that a sample must pass on its own, cheapest first: form, wording, evidence, support."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunewright.recipe import Recipe
from tunewright.records import GENERAL, OWN, VIEW, Chunk, Document, Message, Sample, Span
from tunewright.text import find_quote, normalize, question_fault, words

_LABEL = re.compile(r"^\s*(?:question|q)\s*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_TOKEN = re.compile(r"[^\W\d_][\w-]+")

UNGROUNDED = (OWN, GENERAL)  # tasks whose samples rest on no document
PREMISES = ("false-premise", "true-premise")


@dataclass(frozen=True)
class Sources:
    """What the rules look samples up in: the recipe, and the documents and chunks by identifier."""

    recipe: Recipe
    documents: Mapping[str, Document] = field(default_factory=dict)
    chunks: Mapping[str, Chunk] = field(default_factory=dict)


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
    return sample.task in ("refusal", "unanswerable") or normalize(sample.answer) == normalize(recipe.refusal)


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
    """What makes a written question unfit, the first of a dialogue; a refusal's answer says nothing about it."""
    if sample.task in UNGROUNDED or sample.task in (VIEW, "extraction"):
        return None
    asked = next(turn.content for turn in sample.messages if turn.role == "user")
    told = next(turn.content for turn in sample.messages if turn.role == "assistant")
    # A claim that is asked about holds its answer, or all but one word of it: that is its purpose.
    hides_nothing = is_refusal(sample, sources.recipe) or sample.task in PREMISES
    return question_fault(split_prompt(asked)[1], "" if hides_nothing else told)


def evidence_fault(sample: Sample, sources: Sources) -> str | None:
    """Evidence must be given, and all of it must occur in its document."""
    if sample.task in UNGROUNDED or is_refusal(sample, sources.recipe):
        return None
    if sample.evidence is None:
        return "no evidence"
    if sample.evidence.document not in sources.documents:
        return "evidence from an unknown document"
    further = [sample.model_copy(update={"evidence": span, "chunk": None}) for span in sample.further_evidence]
    found = all(anchor(one, sources) for one in (sample, *further))
    return None if found else "evidence does not occur in the document"


def support_fault(sample: Sample, sources: Sources) -> str | None:
    """The evidence must carry the answer.

    An answer-first answer is the evidence itself. Of any other answer, each number and each name (a
    capitalized word inside a sentence, or an acronym) must occur in the chunk, its title or the question:
    this finds invented figures and names, not wrong relations between true ones.
    """
    if sample.task in UNGROUNDED or is_refusal(sample, sources.recipe) or sample.evidence is None:
        return None
    if sample.task == "answer-first":
        pair = {normalize(text).rstrip(".!") for text in (sample.answer, sample.evidence.quote)}
        return None if len(pair) == 1 else "answer is not the evidence"
    chunk = sources.chunks.get(sample.chunk or "")
    shown = [chunk.text, chunk.title, *chunk.section] if chunk else [sample.evidence.quote]
    text = " ".join([*shown, split_prompt(sample.question)[1]])
    if not _numbers(sample.answer) <= _numbers(text):
        return "answer has a number that its source lacks"
    if not _names(sample.answer) <= set(words(text.replace("-", " "))):
        return "answer has a name that its source lacks"
    return None


def _numbers(text: str) -> set[str]:
    """Return the numbers of a text without thousands separators: 3,440 and 3440 are the same."""
    return {re.sub(r",(?=\d{3}\b)", "", number) for number in _NUMBER.findall(text)}


def _names(text: str) -> set[str]:
    """Return the normalized acronyms, and words whose capital does not start a sentence."""
    names: set[str] = set()
    for match in _TOKEN.finditer(text):
        token, before = match.group(), text[max(0, match.start() - 3) : match.start()].rstrip("\"'( \n")
        starts = match.start() == 0 or before.endswith((".", "!", "?", ":")) or not before
        if sum(map(str.isupper, token)) > 1 or (token[0].isupper() and not starts):
            names.update(words(token.replace("-", " ")))
    return names


Rule = Callable[[Sample, Sources], str | None]

RULES: dict[str, Rule] = {
    "format": format_fault,
    "wording": wording_fault,
    "evidence": evidence_fault,
    "support": support_fault,
}
