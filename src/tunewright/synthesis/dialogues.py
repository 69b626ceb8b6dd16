"""Dialogues of several turns: planned from verified answers, with follow-up questions and user push-back."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunewright.records import Message, Sample, Span, digest
from tunewright.synthesis.context import PACKAGE, QUESTION_TOKENS, TaskContext, TaskResult, reply_fault, seeded_order
from tunewright.synthesis.questions import clean_question, subjects
from tunewright.teacher.protocol import Reply
from tunewright.text.normalization import words
from tunewright.text.perturbation import false_versions
from tunewright.text.prompts import fill, load_prompt

_TASK = "dialogue"
_MAX_TURNS = 3
_TITLE_REFERENCE = re.compile(r'^In "[^"]+", (\w)|, according to "[^"]+"(?=\?$)')


def dialogue(context: TaskContext, answered: Sequence[Sample]) -> TaskResult:
    """Return dialogues of two or three answered samples of one document, in the order of their evidence.

    The first question is unchanged; the teacher rewords each later one as a follow-up to the turn before. In every
    second dialogue the user doubts the last answer, and the assistant repeats the evidence. Each turn has its own
    evidence.
    """
    recipe, result = context.recipe, TaskResult(_TASK)
    plans = plan_dialogues(context, answered)
    result.num_tried = len(plans)
    turns = [(before, after) for samples in plans for before, after in zip(samples, samples[1:], strict=False)]
    prompt = load_prompt("follow-up", PACKAGE)
    requests = [
        context.request(
            fill(prompt, before=before.question, answer=before.answer, question=without_title(after.question)),
            QUESTION_TOKENS,
        )
        for before, after in turns
    ]
    replies = dict(
        zip(((a.id, b.id) for a, b in turns), context.teacher.ask_all(requests, "writing dialogues"), strict=True)
    )
    for number, samples in enumerate(plans):
        messages = [*_turns(samples[0].question, samples[0].answer)]
        for before, after in zip(samples, samples[1:], strict=False):
            messages += _turns(follow_up(before, after, replies[before.id, after.id]), after.answer)
        spans = [sample.evidence for sample in samples if sample.evidence]
        last, chunk = spans[-1], context.chunk_by_id[samples[-1].chunk or ""]
        doubt = push_back(last, chunk.text, recipe.seed) if number % 2 == 0 else None
        if doubt:
            messages += _turns(doubt, f"Yes. {samples[-1].answer}")
            spans.append(last)
        system = [Message(role="system", content=recipe.system_prompt)] if recipe.system_prompt else []
        result.samples.append(
            Sample(
                id=digest(_TASK, [turn.content for turn in messages]),
                task=_TASK,
                messages=(*system, *messages),
                document=samples[0].document,
                chunk=samples[0].chunk,
                evidence=spans[0],
                further_evidence=tuple(spans[1:]),
            )
        )
    return result


def plan_dialogues(context: TaskContext, answered: Sequence[Sample]) -> list[list[Sample]]:
    """Return the samples of each dialogue: of one document, in the order of their evidence; no sample is used twice."""
    number = round(context.recipe.synthesis.refusal_share * len(answered))
    by_document: dict[str, list[Sample]] = {}
    for sample in seeded_order(context, answered, _TASK):
        if sample.evidence and not sample.further_evidence:
            by_document.setdefault(sample.document or "", []).append(sample)
    plans: list[list[Sample]] = []
    for group in by_document.values():
        size = 2 + int(digest(context.recipe.seed, _TASK, group[0].id), 16) % (_MAX_TURNS - 1)
        for start in range(0, len(group) - 1, size):
            chosen = group[start : start + size]
            if len(chosen) > 1:
                plans.append(sorted(chosen, key=lambda sample: sample.evidence.start if sample.evidence else 0))
    return sorted(plans, key=lambda samples: digest(context.recipe.seed, _TASK, samples[0].id))[:number]


def without_title(question: str) -> str:
    """Return a question without the reference to its title that ``stand_alone`` added."""
    bare = _TITLE_REFERENCE.sub(lambda match: match[1] or "", question)
    return bare[:1].upper() + bare[1:]


def follow_up(before: Sample, after: Sample, reply: Reply | None) -> str:
    """Return the teacher's follow-up if it still asks for the same, else the question without its title.

    A follow-up must keep every subject that is new in its question, and may name none that neither turn names.
    """
    plain = without_title(after.question)
    fallback = f"And {plain[:1].lower()}{plain[1:]}" if plain != after.question else plain
    if reply_fault(reply) or reply is None:
        return fallback
    reworded = clean_question(reply.text)
    new = subjects(plain) - subjects(before.question) - subjects(before.answer)
    allowed = subjects(f"{before.question} {before.answer} {after.question}")
    is_about_it = new <= subjects(reworded) <= allowed
    fits = reworded.endswith("?") and is_about_it and 3 <= len(words(reworded)) <= len(words(plain)) + 4
    return reworded if fits else fallback


def push_back(span: Span, source: str, seed: int) -> str | None:
    """Return a user's doubt that quotes the evidence with a wrong number or comparison; None if it holds neither."""
    truth = " ".join(span.quote.split())
    false = next(false_versions(truth, source, seed), None)
    return f'Are you sure? I have read: "{false}" Which is right?' if false else None


def _turns(question: str, answer: str) -> list[Message]:
    return [Message(role="user", content=question), Message(role="assistant", content=answer)]
