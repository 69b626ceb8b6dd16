"""The teacher's checks of samples: round trip, judge, and whether a question rephrases an exam question."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tunewright.curation.boilerplate import NO_BOILERPLATE, Boilerplate
from tunewright.curation.decontamination import questions_of
from tunewright.curation.grounding import NEGATORS, Claim, stems
from tunewright.curation.sample_rules import SampleSources, claims_of
from tunewright.curation.text_vectors import SifVectors
from tunewright.curation.workers import in_order
from tunewright.models.tensors import TokenVectors
from tunewright.records import VIEW, Message, Question, Rejection, Sample
from tunewright.teacher.llm_judge import JudgedAnswer, judge_support
from tunewright.teacher.protocol import Reply, Request, TeacherLike
from tunewright.text.normalization import normalize, words
from tunewright.text.prompts import fill, load_prompt
from tunewright.text.quantities import quantities

_STAGE = "curate"
_PACKAGE = "tunewright.curation"
_ANSWER_TOKENS = 96
_LEAST_F1 = 0.5  # of content words; from here on two answers that state the same numbers agree
_DETAIL_CHARACTERS = 400

Doubted = Sequence[tuple[Sample, Claim]]
Figures = dict[str, float | int | str]


@dataclass
class Checked:
    """The result of one check by the teacher: reason and remark of each rejected sample, and the figures."""

    reasons: dict[str, tuple[str, str]] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)


def check_by_teacher(
    samples: Sequence[Sample], sources: SampleSources, teacher: TeacherLike
) -> tuple[list[Sample], list[Rejection], Figures]:
    """Return the samples kept, in their order, the rejections, and the figures of the checks in ``curation.checks``.

    Samples without a passage (the user's own data, samples that decline) are not checked. A reply that fails, is cut
    or cannot be parsed is no verdict: it is counted and rejects nothing.

    Raises:
        TeacherError: the teacher cannot be used, or most calls fail; the replies so far are journaled.
    """
    kept, rejections, figures = list(samples), list[Rejection](), Figures()
    for name in sources.recipe.curation.checks:
        doubted = [
            (sample, claim)
            for sample in kept
            for claim in claims_of(sample, sources)[:1]  # of a dialogue the first answer: the later ones depend on it
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
    """Return whether a reply agrees with an answer.

    Both or neither must have a negation. The content words of either must be among the other's, or the two share
    enough of them (F1) and the reply has only the answer's numbers.
    """
    if NEGATORS.isdisjoint(words(reply)) != NEGATORS.isdisjoint(words(answer)):
        return False
    replied, expected = stems(reply), stems(answer)
    if not replied or not expected:
        return False
    if set(replied) <= set(expected) or set(expected) <= set(replied):
        return True
    values, known = ({quantity.value for quantity in quantities(text)} for text in (reply, answer))
    same_numbers = values <= known and bool(values) == bool(known)
    return (
        same_numbers
        and 2 * (Counter(replied) & Counter(expected)).total() / (len(replied) + len(expected)) >= _LEAST_F1
    )


def answerable(doubted: Doubted, teacher: TeacherLike, seed: int) -> Checked:
    """Let the teacher answer each question with its passage and without it (Alberti et al. 2019, round trip).

    With the passage the reply must agree with the sample's answer. Without it, it should not; questions that the
    teacher answers anyway are kept, and counted. ``context_gain`` is P(agrees | passage) - P(agrees | no passage),
    over the questions with both replies.
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
    num_right, num_known = (sum(pair[index] for pair in both) for index in (0, 1))
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


def judged(doubted: Doubted, teacher: TeacherLike, seed: int) -> Checked:
    """Let the teacher judge each answer that does not occur in its passage word for word."""
    open_cases = [
        (sample, claim) for sample, claim in doubted if normalize(claim.answer) not in normalize(claim.passage)
    ]
    items = [judged_claim(claim) for _, claim in open_cases]
    verdicts = judge_support(items, teacher, seed)
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


def judged_claim(claim: Claim) -> JudgedAnswer:
    """Return a claim as the judge reads it, with the passage under its title."""
    passage = "\n".join(filter(None, (claim.title, claim.passage)))
    return JudgedAnswer(claim.question, claim.answer, passage)


_REASONS = {
    "contradicted": "contradicted by its passage",
    "not mentioned": "says what its passage does not mention",
}

CHECKS_BY_TEACHER: dict[str, Callable[[Doubted, TeacherLike, int], Checked]] = {
    "answerable": answerable,
    "judge": judged,
}


# Of the example documents' 194 training questions, all 4 at 0.94 and above asked what the exam asked, and 1 of the 2
# between 0.84 and 0.86; the teacher decides below.
SAME = 0.94
_NEAREST = 3  # training questions per exam question that the teacher decides on
_PIECE = 20_000
_YES_NO_TOKENS = 4
_PROMPT = """Do these two questions ask for the same fact, so that whoever knows the answer to one knows the other's?

Question 1: {exam}
Question 2: {training}

Answer with one word, yes or no."""


class NearQuestion(NamedTuple):
    """A training question near an exam question: both indices, their cosine, and the training question."""

    sample: int
    question: int
    cosine: float
    text: str


class QuestionSimilarity:
    """The cosines of training questions to exam questions, from one set of vectors."""

    def __init__(
        self,
        samples: Sequence[Sample],
        exam: Sequence[Question],
        vectors: TokenVectors,
        boilerplate: Boilerplate = NO_BOILERPLATE,
    ) -> None:
        distinctive = boilerplate.distinctive
        self._samples = samples
        self._owners, self._turns = array("I"), array("I")  # of each question: its sample, and its number in it

        def texts() -> Iterator[str]:
            for index, questions in enumerate(in_order(parts, len(samples))):
                self._owners.extend([index] * len(questions))
                self._turns.extend(range(len(questions)))
                yield from questions
            yield from (distinctive(question.question) for question in exam)

        def parts(index: int) -> list[str]:
            return list(map(distinctive, questions_of(samples[index])))

        self._vectors = SifVectors(texts(), vectors)
        self._exam = self._vectors[len(self._owners) :]

    def _text(self, number: int) -> str:
        """Return a training question; a million of them would fill the memory."""
        return questions_of(self._samples[self._owners[number]])[self._turns[number]]

    def _pieces(self) -> Any:
        num = len(self._owners)
        for start in range(0, num, _PIECE):
            yield start, self._vectors[start : min(start + _PIECE, num)] @ self._exam.T

    def same(self) -> dict[int, NearQuestion]:
        """Return the samples whose nearest exam question has a cosine of 0.94 or more, by index."""
        matches: dict[int, NearQuestion] = {}
        for start, cosines in self._pieces():
            best = cosines.argmax(axis=1)
            top = cosines[np.arange(len(best)), best]
            for at in np.flatnonzero(top >= SAME):
                owner = self._owners[start + at]
                matches.setdefault(owner, NearQuestion(owner, int(best[at]), float(top[at]), self._text(start + at)))
        return matches

    def doubtful(self) -> list[NearQuestion]:
        """Return, for each exam question, the three nearest training questions below 0.94, each pair once."""
        near: list[list[NearQuestion]] = [[] for _ in self._exam]
        for start, cosines in self._pieces():
            cosines = np.where(cosines < SAME, cosines, -2)
            for number, column in enumerate(cosines.T):
                for at in np.argsort(-column, kind="stable")[:_NEAREST]:
                    if column[at] > -2:
                        turn = start + int(at)
                        owner = self._owners[turn]
                        near[number].append(NearQuestion(owner, number, float(column[at]), self._text(turn)))
        chosen = [pair for pairs in near for pair in sorted(pairs, key=lambda pair: -pair.cosine)[:_NEAREST]]
        return list({(pair.text, pair.question): pair for pair in chosen}.values())


def confirmed_by_teacher(
    pairs: Sequence[NearQuestion], exam: Sequence[Question], teacher: TeacherLike, seed: int
) -> tuple[dict[int, NearQuestion], int]:
    """Let the teacher decide whether both questions of each pair ask the same; return the samples that do, by index.

    Yang et al. 2023, "Rethinking benchmark and contamination for language models with rephrased samples" (arXiv
    2311.04850): candidates by embedding, then judged by a model.

    Returns:
        the samples, and the number of pairs whose reply was neither yes nor no.
    """
    requests = []
    for pair in pairs:
        content = _PROMPT.format(exam=exam[pair.question].question, training=pair.text)
        requests.append(Request((Message(role="user", content=content),), _YES_NO_TOKENS, 0.0, seed))
    replies = teacher.ask_all(requests, "comparing with the exam")
    confirmed: dict[int, NearQuestion] = {}
    unclear = 0
    for pair, reply in zip(pairs, replies, strict=True):
        word = (reply.text if reply else "").strip().strip("*\"'.").casefold()
        if word.startswith("yes"):
            confirmed.setdefault(pair.sample, pair)
        unclear += not word.startswith(("yes", "no"))
    return confirmed, unclear
