"""Knowledge views: fixed rewrites of each passage, trained on as raw text beside the documents."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.records import VIEW, Message, Sample, Span
from tunewright.synthesis.context import Work, Written, reply_fault, sample_id
from tunewright.text.prompts import fill, load_prompt

# What a passage is rewritten as, in the order in which synthesis.views takes them. Raw passages teach little by
# repetition; a few fixed kinds of rewrite teach more and stay more varied than free ones (SPA, arXiv 2603.22213).
FORMS = (
    "a plain explanation for a reader who is new to the subject",
    "a list of its facts, one full sentence each",
    "questions with their answers, as a reader would ask them",
    "a talk between two colleagues, one of whom has read it",
    "an entry of an encyclopedia",
    "notes for an exam: each term with what is said of it",
)


def views(work: Work, answered: Sequence[Sample]) -> Written:
    """Ask for ``synthesis.views`` rewrites of every chunk; curation drops those with figures or names of their own."""
    del answered
    prompt = load_prompt("view")
    forms = FORMS[: work.recipe.synthesis.views]
    wanted = [(chunk, form) for group in work.chunks.values() for chunk in group for form in forms]
    written = Written(VIEW, len(wanted))
    requests = [
        work.request(fill(prompt, form=form, title=chunk.title, passage=chunk.text), 64 + 2 * chunk.num_tokens)
        for chunk, form in wanted
    ]
    replies = work.teacher.ask_all(requests, "rewriting passages")
    for (chunk, form), reply in zip(wanted, replies, strict=True):
        fault = reply_fault(reply)
        if fault or reply is None:
            written.reject(chunk.id, fault or "", form)
            continue
        text, asked = reply.text.strip(), f"Write about {chunk.title}: {form}."
        written.samples.append(
            Sample(
                id=sample_id(VIEW, chunk.document, asked, text),
                task=VIEW,
                messages=(Message(role="user", content=asked), Message(role="assistant", content=text)),
                document=chunk.document,
                chunk=chunk.id,
                evidence=Span(document=chunk.document, start=chunk.start, end=chunk.end, quote=chunk.text),
            )
        )
    return written
