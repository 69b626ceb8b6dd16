"""Answer-first questions: the teacher words the question, a sentence of the document is the answer."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.records import Document, Sample
from tunewright.synthesis.evidence import Evidence, ranked_evidence
from tunewright.synthesis.kinds import allot, kind_of, read_quotas
from tunewright.synthesis.wording import clean_question, sentence_fault, stand_alone
from tunewright.synthesis.work import NO_SENTENCE, Work, Written, ask_questions, plain_sample, reply_fault, sample_id


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
