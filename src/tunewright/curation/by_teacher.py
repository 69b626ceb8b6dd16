"""Checks that cost teacher calls, for what the free checks leave in doubt: the round trip, and the judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tunewright.curation.quantities import quantities
from tunewright.curation.rules import Sources, claims_of
from tunewright.curation.verify import NEGATORS, Claim, stems
from tunewright.prompting import fill, load_prompt
from tunewright.records import VIEW, Rejection, Sample
from tunewright.teacher.judging import Judged, judge
from tunewright.teacher.protocol import Asks, Reply, Request
from tunewright.text import normalize, words

_STAGE = "curate"
_PACKAGE = "tunewright.curation"
_ANSWER_TOKENS = 96
_LEAST_F1 = 0.5  # of content words; from here on two answers that state the same numbers agree
_DETAIL_CHARACTERS = 400

Doubted = Sequence[tuple[Sample, Claim]]
Figures = dict[str, float | int | str]


@dataclass
class Checked:
    """What one check by the teacher found: a reason for each sample that it rejects, and its figures."""

    reasons: dict[str, tuple[str, str]] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)


def check_by_teacher(
    samples: Sequence[Sample], sources: Sources, teacher: Asks
) -> tuple[list[Sample], list[Rejection], Figures]:
    """Return the samples kept, in their order, the rejections, and the figures of the checks in ``curation.checks``.

    What needs no passage (the user's own data, samples that decline) passes untouched. A reply that fails, is cut or
    cannot be read is no verdict: it is counted and rejects nothing.

    Raises:
        TeacherError: the teacher cannot be used, or most calls fail; what was answered is journaled.
    """
    kept, rejections, figures = list(samples), list[Rejection](), Figures()
    for name in sources.recipe.curation.checks:
        doubted = [
            (sample, claim)
            for sample in kept
            for claim in claims_of(sample, sources)[:1]  # of a dialogue the first answer: the later ones lean on it
            if claim.question and sample.task != VIEW
        ]
        checked = CHECKS_BY_TEACHER[name](doubted, teacher, sources.recipe.seed)
        for sample, claim in doubted:
            if sample.id in checked.reasons:
                reason, remark = checked.reasons[sample.id]
                detail = f"Q: {claim.question} | A: {claim.answer} | {remark}"[:_DETAIL_CHARACTERS]
                rejections.append(Rejection(stage=_STAGE, id=sample.id, reason=reason, detail=detail, task=sample.task))
        kept = [sample for sample in kept if sample.id not in checked.reasons]
        figures |= checked.figures
    return kept, rejections, figures


def agrees(reply: str, answer: str) -> bool:
    """Tell whether a reply says what an answer says.

    Both or neither deny something, and of their content words either one's are all the other's, or they share enough
    (F1) and the reply's numbers are the answer's.
    """
    if NEGATORS.isdisjoint(words(reply)) != NEGATORS.isdisjoint(words(answer)):
        return False
    said, meant = stems(reply), stems(answer)
    if not said or not meant:
        return False
    if set(said) <= set(meant) or set(meant) <= set(said):
        return True
    values, known = ({quantity.value for quantity in quantities(text)} for text in (reply, answer))
    same_numbers = values <= known and bool(values) == bool(known)
    return same_numbers and 2 * (Counter(said) & Counter(meant)).total() / (len(said) + len(meant)) >= _LEAST_F1


def answerable(doubted: Doubted, teacher: Asks, seed: int) -> Checked:
    """Let the teacher answer each question with its passage and without it (Alberti et al. 2019, round trip).

    With the passage the reply must agree with the sample's answer; without it, it should not: what the teacher knows
    anyway is kept, and counted. ``context_gain`` is P(agrees | passage) - P(agrees | no passage), over the questions
    with both replies.
    """
    with_passage, alone = (load_prompt(name, _PACKAGE) for name in ("answer-with-passage", "answer-alone"))
    requests = []
    for _, claim in doubted:
        passage = "\n".join(filter(None, (claim.title, claim.passage)))
        requests.append(
            Request(fill(with_passage, passage=passage, question=claim.question), _ANSWER_TOKENS, 0.0, seed)
        )
        requests.append(Request(fill(alone, question=claim.question), _ANSWER_TOKENS, 0.0, seed))
    replies = teacher.ask_all(requests, "answering again") if requests else []
    checked, both = Checked(), list[tuple[bool, bool]]()
    for (sample, claim), shown, blind in zip(doubted, replies[::2], replies[1::2], strict=True):
        right, known = _agreement(shown, claim.answer), _agreement(blind, claim.answer)
        if right is False and shown is not None:
            checked.reasons[sample.id] = ("not answered from its passage", f"teacher: {normalize(shown.text)}")
        if right is not None and known is not None:
            both.append((right, known))
    num_right, num_known = (sum(pair[place] for pair in both) for place in (0, 1))
    checked.figures = {
        "round_trips": len(both),
        "no_round_trip": len(doubted) - len(both),
        "answered_with_passage": num_right,
        "answered_without_passage": num_known,
    }
    if both:
        checked.figures["context_gain"] = round((num_right - num_known) / len(both), 4)
    return checked


def _agreement(reply: Reply | None, answer: str) -> bool | None:
    return None if reply is None or reply.finish != "stop" else agrees(reply.text, answer)


def judged(doubted: Doubted, teacher: Asks, seed: int) -> Checked:
    """Ask for a verdict on each claim of the answers that do not stand in their passage word for word."""
    open_cases = [
        (sample, claim) for sample, claim in doubted if normalize(claim.answer) not in normalize(claim.passage)
    ]
    items = [judged_claim(claim) for _, claim in open_cases]
    verdicts = judge(items, teacher, seed)
    checked = Checked()
    for (sample, _), verdict in zip(open_cases, verdicts, strict=True):
        if verdict in ("contradicted", "not mentioned"):
            checked.reasons[sample.id] = (_REASONS[verdict], "by the judge")
    num_judged = sum(verdict is not None for verdict in verdicts)
    checked.figures = {
        "judged": num_judged,
        "judged_supported": verdicts.count("supported"),
        "no_verdict": len(verdicts) - num_judged,
        "not_judged_verbatim": len(doubted) - len(open_cases),
    }
    return checked


def judged_claim(claim: Claim) -> Judged:
    """Return what the judge is shown of a claim: the passage under its title."""
    passage = "\n".join(filter(None, (claim.title, claim.passage)))
    return Judged(claim.question, claim.answer, passage)


_REASONS = {
    "contradicted": "contradicted by its passage",
    "not mentioned": "says what its passage does not mention",
}

CHECKS_BY_TEACHER: dict[str, Callable[[Doubted, Asks, int], Checked]] = {"answerable": answerable, "judge": judged}
