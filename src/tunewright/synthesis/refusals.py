"""When to decline: a passage of another document, or the own passage without its evidence. Needs no call."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz import fuzz

from tunewright.models.chat_template import chat, passage_text
from tunewright.records import Chunk, Sample, digest
from tunewright.synthesis.context import Work, Written, plain_sample, sample_id
from tunewright.synthesis.questions import stand_alone, subjects
from tunewright.text.normalization import normalize, sentences
from tunewright.text.perturbation import false_versions

_OPENINGS = ("Is it right to say: {}?", "Is it correct that the finding was: {}?", "Would you agree with: {}?")
_MOST_WORDS = 40  # of the claim: the question around it must stay readable


def premise(work: Work, answered: Sequence[Sample]) -> Written:
    """Ask whether a claim holds: the evidence sentence with one number or comparison changed, or as it is.

    As many true claims as false ones, so that neither "No" nor "Yes" is learned as such. The answer is the evidence
    sentence word for word behind that word, so it is as well grounded as the sample it comes from.
    """
    recipe, written = work.recipe, Written("premise")
    number = round(recipe.synthesis.refusal_share * len(answered))
    ranked = sorted(answered, key=lambda sample: digest(recipe.seed, "premise", sample.id))
    titles = {document.id: document.title for document in work.documents}
    made = 0
    for sample in ranked:
        if made == 2 * number:
            break
        span, chunk = sample.evidence, work.chunk_by_id[sample.chunk or ""]
        if span is None or sample.further_evidence:
            continue
        truth = " ".join(span.quote.split())
        false = next(false_versions(truth, chunk.text, recipe.seed), None)
        if false is None or len(truth.split()) > _MOST_WORDS:
            continue
        claim, word, task = (false, "No", "false-premise") if made % 2 == 0 else (truth, "Yes", "true-premise")
        opening = _OPENINGS[int(digest(recipe.seed, sample.id), 16) % len(_OPENINGS)]
        question = stand_alone(opening.format(claim.rstrip(".!")), titles.get(sample.document or "", ""))
        written.samples.append(
            plain_sample(work, task, span.document, question, f"{word}. {truth}", chunk.id, (span,), sample.kind)
        )
        made += 1
    written.num_tried = made
    return written


_GROUNDED_PER_REFUSAL = 2
_MOST_SAID_ELSEWHERE = 0.5  # of the evidence's subjects, in any other sentence of its passage
_MOST_ALIKE = 60  # rapidfuzz token_set_ratio of evidence and any other sentence, of 100


def _ranked(work: Work, answered: Sequence[Sample], task: str) -> list[Sample]:
    """Return the answered samples in the seeded order of a task; an edited document changes little else."""
    return sorted(answered, key=lambda sample: digest(work.recipe.seed, task, sample.id))


def refusal(work: Work, answered: Sequence[Sample]) -> Written:
    """Show some questions with a passage of another document (decline), and twice as many with their own (answer).

    A declined question is answered too, with its own passage, so that a passage as such means neither: what it says
    decides. Answers outnumber refusals, since a small student soon declines whatever comes with a passage. With
    ``synthesis.distractors``, as many passages of other documents stand beside.
    """
    recipe, written = work.recipe, Written("refusal")
    number = round(recipe.synthesis.refusal_share * len(answered))
    for place, sample in enumerate(_ranked(work, answered, "refusal")[: _GROUNDED_PER_REFUSAL * number]):
        own = work.chunk_by_id[sample.chunk or ""]
        others = work.others(sample, 1 + recipe.synthesis.distractors)
        beside = others[: recipe.synthesis.distractors]
        if not sample.further_evidence:
            grounded = shown(work, "grounded", sample.question, own, sample.answer, beside)
            written.samples.append(grounded.model_copy(update={"chunk": own.id, "evidence": sample.evidence}))
            written.num_tried += 1
        if place >= number:
            continue
        written.num_tried += 1
        if len(others) < 1 + recipe.synthesis.distractors:
            written.reject(sample.id, "no other document to refuse from")
        else:
            written.samples.append(shown(work, "refusal", sample.question, others[-1], recipe.refusal, beside))
    return written


def shown(
    work: Work, task: str, question: str, chunk: Chunk, answer: str, beside: Sequence[Chunk] = (), text: str = ""
) -> Sample:
    """Return a sample whose prompt shows a chunk, with others beside it in an order that their digests decide.

    Args:
        work: gives the system prompt and the seed.
        task: of the sample.
        question: what is asked.
        chunk: what the answer is about.
        answer: what is said.
        beside: passages that do not help.
        text: what is shown of the chunk; all of it when empty.
    """
    passages = {one.id: passage_text(one) for one in beside}
    passages[chunk.id] = passage_text(chunk.model_copy(update={"text": text or chunk.text}))
    order = sorted(passages, key=lambda identity: digest(work.recipe.seed, question, identity))
    return Sample(
        id=sample_id(task, chunk.document, question, answer),
        task=task,
        messages=chat(work.recipe.system_prompt, question, [passages[identity] for identity in order], answer),
        document=chunk.document,
    )


def unanswerable(work: Work, answered: Sequence[Sample]) -> Written:
    """Show a question with its own passage from which the evidence is cut out: the right answer is to decline.

    The rest must not answer in other words: no other sentence of the passage may share half of the evidence's
    subjects. Deleting the evidence is the strictest kind of unanswerable question: topic, style and title stay.
    """
    recipe, written = work.recipe, Written("unanswerable")
    number = round(recipe.synthesis.refusal_share * len(answered))
    for sample in _ranked(work, answered, "unanswerable"):
        if len(written.samples) >= number:
            break
        own, span = work.chunk_by_id[sample.chunk or ""], sample.evidence
        if span is None or sample.further_evidence:
            continue
        written.num_tried += 1
        rest = without(own.text, span.start - own.start, span.end - own.start)
        if not rest or says_it_elsewhere(span.quote, rest):
            written.reject(sample.id, "passage may answer without its evidence", sample.question)
            continue
        written.samples.append(shown(work, "unanswerable", sample.question, own, recipe.refusal, text=rest))
    return written


def without(text: str, start: int, end: int) -> str:
    """Return the text without a stretch, single spaces at the seam; empty when no sentence is left."""
    left, right = text[:start].rstrip(), text[end:].lstrip()
    rest = f"{left}\n{right}" if "\n" in text[len(left) : start] else f"{left} {right}"
    return rest.strip()


def says_it_elsewhere(evidence: str, rest: str) -> bool:
    """Tell whether a sentence of the rest may say what the evidence says."""
    wanted = subjects(evidence)
    for start, end in sentences(rest):
        sentence = rest[start:end]
        if len(wanted & subjects(sentence)) > _MOST_SAID_ELSEWHERE * len(wanted):
            return True
        if fuzz.token_set_ratio(normalize(evidence), normalize(sentence)) >= _MOST_ALIKE:
            return True
    return False
