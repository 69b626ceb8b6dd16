"""Dialogues of several turns: a plan of verified answers, follow-ups that lean on the turn before, and push-back."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunewright.records import Message, Sample, Span, digest
from tunewright.synthesis.context import QUESTION_TOKENS, Work, Written, reply_fault
from tunewright.synthesis.questions import clean_question, subjects
from tunewright.teacher.protocol import Reply
from tunewright.text.normalization import words
from tunewright.text.perturbation import false_versions
from tunewright.text.prompts import fill, load_prompt

TASK = "dialogue"
_MOST_TURNS = 3
_NAMED = re.compile(r'^In "[^"]+", (\w)|, according to "[^"]+"(?=\?$)')


def dialogue(work: Work, answered: Sequence[Sample]) -> Written:
    """Join verified answers on one document to a conversation.

    The plan is two or three answered samples of a document, in the order of their evidence. The first question stays;
    the teacher rewords each later one as a follow-up that leans on the turn before. Every second dialogue ends with
    the user doubting the last answer, and the assistant keeping to the evidence. Every turn has its own evidence.
    """
    recipe, written = work.recipe, Written(TASK)
    plans = plan(work, answered)
    written.num_tried = len(plans)
    turns = [(before, after) for samples in plans for before, after in zip(samples, samples[1:], strict=False)]
    prompt = load_prompt("follow-up")
    requests = [
        work.request(
            fill(prompt, before=one.question, answer=one.answer, question=unnamed(two.question)), QUESTION_TOKENS
        )
        for one, two in turns
    ]
    replies = dict(
        zip(((a.id, b.id) for a, b in turns), work.teacher.ask_all(requests, "writing dialogues"), strict=True)
    )
    for number, samples in enumerate(plans):
        said = [*_turns(samples[0].question, samples[0].answer)]
        for before, after in zip(samples, samples[1:], strict=False):
            said += _turns(follow_up(before, after, replies[before.id, after.id]), after.answer)
        spans = [sample.evidence for sample in samples if sample.evidence]
        last, chunk = spans[-1], work.chunk_by_id[samples[-1].chunk or ""]
        doubt = push_back(last, chunk.text, recipe.seed) if number % 2 == 0 else None
        if doubt:
            said += _turns(doubt, f"Yes. {samples[-1].answer}")
            spans.append(last)
        system = [Message(role="system", content=recipe.system_prompt)] if recipe.system_prompt else []
        written.samples.append(
            Sample(
                id=digest(TASK, [turn.content for turn in said]),
                task=TASK,
                messages=(*system, *said),
                document=samples[0].document,
                chunk=samples[0].chunk,
                evidence=spans[0],
                further_evidence=tuple(spans[1:]),
            )
        )
    return written


def plan(work: Work, answered: Sequence[Sample]) -> list[list[Sample]]:
    """Return the samples of each dialogue: of one document, in the order of their evidence, each sample used once."""
    number = round(work.recipe.synthesis.refusal_share * len(answered))
    by_document: dict[str, list[Sample]] = {}
    for sample in sorted(answered, key=lambda one: digest(work.recipe.seed, TASK, one.id)):
        if sample.evidence and not sample.further_evidence:
            by_document.setdefault(sample.document or "", []).append(sample)
    plans: list[list[Sample]] = []
    for group in by_document.values():
        size = 2 + int(digest(work.recipe.seed, TASK, group[0].id), 16) % (_MOST_TURNS - 1)
        for start in range(0, len(group) - 1, size):
            chosen = group[start : start + size]
            if len(chosen) > 1:
                plans.append(sorted(chosen, key=lambda one: one.evidence.start if one.evidence else 0))
    return sorted(plans, key=lambda samples: digest(work.recipe.seed, TASK, samples[0].id))[:number]


def unnamed(question: str) -> str:
    """Return a question without the title that makes it stand alone."""
    bare = _NAMED.sub(lambda match: match[1] or "", question)
    return bare[:1].upper() + bare[1:]


def follow_up(before: Sample, after: Sample, reply: Reply | None) -> str:
    """Return the teacher's follow-up when it still asks for the same, else the question without its title.

    It must keep every subject that is new in it, and may name nothing that neither turn names.
    """
    plain = unnamed(after.question)
    fallback = f"And {plain[:1].lower()}{plain[1:]}" if plain != after.question else plain
    if reply_fault(reply) or reply is None:
        return fallback
    asked = clean_question(reply.text)
    new = subjects(plain) - subjects(before.question) - subjects(before.answer)
    known = subjects(f"{before.question} {before.answer} {after.question}")
    fits = asked.endswith("?") and new <= subjects(asked) <= known and 3 <= len(words(asked)) <= len(words(plain)) + 4
    return asked if fits else fallback


def push_back(span: Span, source: str, seed: int) -> str | None:
    """Return a user's doubt that names a wrong figure or comparison, or None when the sentence offers none."""
    truth = " ".join(span.quote.split())
    false = next(false_versions(truth, source, seed), None)
    return f'Are you sure? I have read: "{false}" Which is right?' if false else None


def _turns(question: str, answer: str) -> list[Message]:
    return [Message(role="user", content=question), Message(role="assistant", content=answer)]
