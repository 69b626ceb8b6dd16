"""Questions that hold a claim: a false one is corrected, a true one confirmed, from the same evidence; no call."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.edits import false_versions
from tunewright.records import Sample, digest
from tunewright.synthesis.wording import stand_alone
from tunewright.synthesis.work import Work, Written, plain_sample

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
