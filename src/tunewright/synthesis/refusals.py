"""Tasks without teacher calls: refusals, grounded answers, unanswerable questions, and claims to confirm or correct."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz import fuzz

from tunewright.models.chat_template import chat, passage_text
from tunewright.records import Chunk, Sample, digest
from tunewright.synthesis.context import TaskContext, TaskResult, plain_sample, sample_id, seeded_order
from tunewright.synthesis.questions import stand_alone, subjects
from tunewright.text.normalization import normalize
from tunewright.text.perturbation import false_versions
from tunewright.text.sentences import sentences

_OPENINGS = ("Is it right to say: {}?", "Is it correct that the finding was: {}?", "Would you agree with: {}?")
_MAX_CLAIM_WORDS = 40  # the question around the claim must stay readable


def premise(context: TaskContext, answered: Sequence[Sample]) -> TaskResult:
    """Return questions whether a claim holds: an evidence sentence, or the same with one number or comparison changed.

    True and false claims alternate, so that neither "No" nor "Yes" becomes the usual answer. The answer is "Yes" or
    "No", then the evidence sentence word for word.
    """
    recipe, result = context.recipe, TaskResult("premise")
    number = round(recipe.synthesis.refusal_share * len(answered))
    titles = {document.id: document.title for document in context.documents}
    samples = result.samples
    for sample in seeded_order(context, answered, "premise"):
        if len(samples) == 2 * number:
            break
        span, chunk = sample.evidence, context.chunk_by_id[sample.chunk or ""]
        if span is None or sample.further_evidence:
            continue
        truth = " ".join(span.quote.split())
        false = next(false_versions(truth, chunk.text, recipe.seed), None)
        if false is None or len(truth.split()) > _MAX_CLAIM_WORDS:
            continue
        claim, word, task = (truth, "Yes", "true-premise") if len(samples) % 2 else (false, "No", "false-premise")
        opening = _OPENINGS[int(digest(recipe.seed, sample.id), 16) % len(_OPENINGS)]
        question = stand_alone(opening.format(claim.rstrip(".!")), titles.get(sample.document or "", ""))
        samples.append(
            plain_sample(context, task, span.document, question, f"{word}. {truth}", chunk.id, (span,), sample.kind)
        )
    result.num_tried = len(samples)
    return result


_GROUNDED_PER_REFUSAL = 2
# Limits of the likeness between the evidence and any other sentence of its passage:
_MAX_SHARED_SUBJECTS = 0.5  # as a share of the evidence's subjects
_MAX_TOKEN_SET_RATIO = 60  # rapidfuzz, 0 to 100; reaching it is too much


def refusal(context: TaskContext, answered: Sequence[Sample]) -> TaskResult:
    """Show some questions with a passage of another document (decline), and twice as many with their own (answer).

    Each declined question is also answered with its own passage, so that the student learns to decide by what the
    passage says, not by its presence. Answers outnumber refusals because a small student soon declines every question
    that comes with a passage. ``synthesis.distractors`` adds that many passages of other documents to each prompt.
    """
    recipe, result = context.recipe, TaskResult("refusal")
    number = round(recipe.synthesis.refusal_share * len(answered))
    ranked = seeded_order(context, answered, "refusal")
    for index, sample in enumerate(ranked[: _GROUNDED_PER_REFUSAL * number]):
        own = context.chunk_by_id[sample.chunk or ""]
        others = context.other_chunks(sample, 1 + recipe.synthesis.distractors)
        distractors = others[: recipe.synthesis.distractors]
        if not sample.further_evidence:
            grounded = passage_sample(context, "grounded", sample.question, own, sample.answer, distractors)
            result.samples.append(grounded.model_copy(update={"chunk": own.id, "evidence": sample.evidence}))
            result.num_tried += 1
        if index >= number:
            continue
        result.num_tried += 1
        if len(others) < 1 + recipe.synthesis.distractors:
            result.reject(sample.id, "no other document to refuse from")
        else:
            result.samples.append(
                passage_sample(context, "refusal", sample.question, others[-1], recipe.refusal, distractors)
            )
    return result


def passage_sample(
    context: TaskContext,
    task: str,
    question: str,
    chunk: Chunk,
    answer: str,
    distractors: Sequence[Chunk] = (),
    text: str = "",
) -> Sample:
    """Return a sample whose prompt shows a chunk among distractors, in an order that their digests decide.

    Args:
        context: supplies the system prompt and the seed.
        task: the sample's task.
        question: the last line of the prompt.
        chunk: the passage that the answer is about.
        answer: the sample's completion.
        distractors: passages that do not help to answer.
        text: the part of the chunk that the prompt shows; all of it when empty.
    """
    passages = {distractor.id: passage_text(distractor) for distractor in distractors}

    passages[chunk.id] = passage_text(chunk.model_copy(update={"text": text or chunk.text}))
    order = sorted(passages, key=lambda identity: digest(context.recipe.seed, question, identity))
    return Sample(
        id=sample_id(task, chunk.document, question, answer),
        task=task,
        messages=chat(context.recipe.system_prompt, question, [passages[identity] for identity in order], answer),
        document=chunk.document,
    )


def unanswerable(context: TaskContext, answered: Sequence[Sample]) -> TaskResult:
    """Show a question with its own passage, the evidence cut out: the right answer is to decline.

    The rest must not answer in other words, so no other sentence of the passage may share more than half of the
    evidence's subjects. This is the strictest kind of unanswerable question: topic, style and title are unchanged.
    """
    recipe, result = context.recipe, TaskResult("unanswerable")
    number = round(recipe.synthesis.refusal_share * len(answered))
    for sample in seeded_order(context, answered, "unanswerable"):
        if len(result.samples) >= number:
            break
        own, span = context.chunk_by_id[sample.chunk or ""], sample.evidence
        if span is None or sample.further_evidence:
            continue
        result.num_tried += 1
        rest = without_span(own.text, span.start - own.start, span.end - own.start)
        if not rest or may_still_answer(span.quote, rest):
            result.reject(sample.id, "passage may answer without its evidence", sample.question)
            continue
        result.samples.append(passage_sample(context, "unanswerable", sample.question, own, recipe.refusal, text=rest))
    return result


def without_span(text: str, start: int, end: int) -> str:
    """Return the text without the characters from ``start`` to ``end``, joined by one space or line break."""
    left, right = text[:start].rstrip(), text[end:].lstrip()
    rest = f"{left}\n{right}" if "\n" in text[len(left) : start] else f"{left} {right}"
    return rest.strip()


def may_still_answer(evidence: str, rest: str) -> bool:
    """Return whether a sentence of the rest may state the same as the evidence."""
    evidence_subjects = subjects(evidence)
    for start, end in sentences(rest):
        sentence = rest[start:end]
        if len(evidence_subjects & subjects(sentence)) > _MAX_SHARED_SUBJECTS * len(evidence_subjects):
            return True
        if fuzz.token_set_ratio(normalize(evidence), normalize(sentence)) >= _MAX_TOKEN_SET_RATIO:
            return True
    return False
