"""Knowledge views: rewrites of each passage in fixed forms, trained on as raw text beside the documents."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.records import VIEW, Message, Sample, Span
from tunewright.synthesis.context import PACKAGE, TaskContext, TaskResult, reply_fault, sample_id
from tunewright.text.prompts import fill, load_prompt

# The forms of the rewrites, in the order in which synthesis.views takes them. Repeated raw passages teach little; a few
# fixed forms teach more and stay more varied than free rewrites (SPA, arXiv 2603.22213).
REWRITE_FORMS = (
    "a plain explanation for a reader who is new to the subject",
    "a list of its facts, one full sentence each",
    "questions with their answers, as a reader would ask them",
    "a talk between two colleagues, one of whom has read it",
    "an entry of an encyclopedia",
    "notes for an exam: each term with what is said of it",
)


def views(context: TaskContext, answered: Sequence[Sample]) -> TaskResult:
    """Ask for ``synthesis.views`` rewrites of every chunk; curation drops those that add figures or names."""
    del answered
    prompt = load_prompt("view", PACKAGE)
    forms = REWRITE_FORMS[: context.recipe.synthesis.views]
    pairs = [(chunk, form) for group in context.chunks.values() for chunk in group for form in forms]
    result = TaskResult(VIEW, len(pairs))
    requests = [
        context.request(fill(prompt, form=form, title=chunk.title, passage=chunk.text), 64 + 2 * chunk.num_tokens)
        for chunk, form in pairs
    ]
    replies = context.teacher.ask_all(requests, "rewriting passages")
    for (chunk, form), reply in zip(pairs, replies, strict=True):
        fault = reply_fault(reply)
        if fault or reply is None:
            result.reject(chunk.id, fault or "", form)
            continue
        text, instruction = reply.text.strip(), f"Write about {chunk.title}: {form}."
        result.samples.append(
            Sample(
                id=sample_id(VIEW, chunk.document, instruction, text),
                task=VIEW,
                messages=(Message(role="user", content=instruction), Message(role="assistant", content=text)),
                document=chunk.document,
                chunk=chunk.id,
                evidence=Span(document=chunk.document, start=chunk.start, end=chunk.end, quote=chunk.text),
            )
        )
    return result
