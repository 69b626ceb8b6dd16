"""The named rules that samples pass in order, the cheapest first, and what each of them drops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from tunewright import console
from tunewright.curation import privacy, teacher_checks
from tunewright.curation.decontamination import Leaks, instructions
from tunewright.curation.deduplication import Duplicates, answered_prompts, embedding_duplicates, prompt_key
from tunewright.curation.sample_rules import RULES, SampleSources, anchor_evidence, teaches_refusal
from tunewright.models.tensors import TokenVectors
from tunewright.records import OWN, Question, Rejection, Sample
from tunewright.teacher.protocol import TeacherLike
from tunewright.text.injection import PLANTED, control_token, injection_fault
from tunewright.text.prompts import split_prompt

_fault = lru_cache(maxsize=10_000)(injection_fault)  # a passage is shown by many samples


def address(sample: Sample) -> str | None:
    """Return how a sample's question, answer, evidence or shown passage addresses a model, or None.

    The system turn is the recipe's own. The user's own chats may ask for a role or give orders, as chats do: of
    these, control tokens alone count, which would break the template.
    """
    said = [message.content for message in sample.messages if message.role != "system"]
    if sample.task == OWN:
        found = next(filter(None, map(control_token, said)), None)
        return f"control token: {found}" if found else None
    quote = [sample.evidence.quote] if sample.evidence and sample.evidence.quote not in said else []
    return next(filter(None, map(_fault, [*said, *quote])), None)


STAGE = "curate"
_DETAIL_CHARACTERS = 200


class Drop(NamedTuple):
    """Why a sample leaves: a reason that is counted, and a remark such as the sample that it repeats."""

    reason: str
    remark: str = ""
    is_leak: bool = False


FilterResult = Sample | Drop  # the sample goes on, as it was or mended; or it leaves


class SampleFilter(NamedTuple):
    """A named rule: the verdict on each of the samples that came so far, in their order."""

    name: str
    judge: Callable[[Sequence[Sample]], list[FilterResult]]


@dataclass
class Filtered:
    """What the rules left, what they dropped, and how many each of them dropped; every rule is counted, 0 too."""

    kept: list[Sample]
    rejections: list[Rejection] = field(default_factory=list)
    dropped_by: dict[str, int] = field(default_factory=dict)
    leaks: Counter[str] = field(default_factory=Counter)


def each_sample(judge: Callable[[Sample], FilterResult]) -> Callable[[Sequence[Sample]], list[FilterResult]]:
    """Return a rule's judge that looks at each sample for itself."""
    return lambda samples: [judge(sample) for sample in samples]


def _own_rules(sources: SampleSources) -> list[SampleFilter]:
    """Return the rules of rules.py; the one for evidence also puts it at its true place."""

    def judge(name: str) -> Callable[[Sample], FilterResult]:
        rule = RULES[name]

        def verdict(sample: Sample) -> FilterResult:
            reason = rule(sample, sources)
            if reason:
                return Drop(reason)
            return (anchor_evidence(sample, sources) or sample) if name == "evidence" else sample

        return verdict

    return [SampleFilter(name, each_sample(judge(name))) for name in RULES]


def _personal(how: str) -> Callable[[Sample], FilterResult]:
    def verdict(sample: Sample) -> FilterResult:
        found = privacy.kinds(sample)
        if not found:
            return sample
        return privacy.masked(sample) if how == "mask" else Drop(f"personal data: {found[0]}", ", ".join(found))

    return verdict


def _addressed(sample: Sample) -> FilterResult:
    fault = address(sample)
    return Drop(PLANTED, fault) if fault else sample


def _duplicates(samples: Sequence[Sample], sources: SampleSources) -> list[SampleFilter]:
    """Return the rules for refusals that contradict, and for exact and near duplicates."""
    duplicates = Duplicates(sources.recipe.curation.near_duplicate)
    answered = answered_prompts(samples, sources.recipe.refusal)

    def contradicts(sample: Sample) -> FilterResult:
        refused = teaches_refusal(sample, sources.recipe.refusal) and prompt_key(sample) in answered
        return Drop("refuses what another sample answers") if refused else sample

    def repeats(sample: Sample) -> FilterResult:
        found = duplicates.find(sample)
        return Drop(found[0], f"repeats {found[1]}") if found else sample

    return [SampleFilter("contradiction", each_sample(contradicts)), SampleFilter("duplicates", each_sample(repeats))]


def _same_in_meaning(vectors: TokenVectors, threshold: float) -> SampleFilter:
    def judge(samples: Sequence[Sample]) -> list[FilterResult]:
        repeated = embedding_duplicates(samples, vectors, threshold)
        return [
            Drop("embedding duplicate", f"repeats {samples[repeated[place]].id}") if place in repeated else sample
            for place, sample in enumerate(samples)
        ]

    return SampleFilter("embedding duplicates", judge)


def _decontamination(exam: Sequence[Question], sources: SampleSources) -> SampleFilter:
    leaks = Leaks(exam, sources.recipe.curation.ngram)

    def leaked(sample: Sample) -> FilterResult:
        found = leaks.find(sample)
        return Drop(found.reason, f"exam question {found.question}", is_leak=True) if found else sample

    return SampleFilter("decontamination", each_sample(leaked))


def _exam_in_other_words(
    exam: Sequence[Question], vectors: TokenVectors, teacher: TeacherLike | None, seed: int
) -> SampleFilter:
    """Return the rule for questions near an exam question; with a teacher, it is asked of the doubtful ones."""

    def judge(samples: Sequence[Sample]) -> list[FilterResult]:
        nearness = teacher_checks.QuestionSimilarity(samples, exam, vectors)
        near = nearness.same()
        said: dict[int, teacher_checks.NearQuestion] = {}
        if teacher:
            doubtful = [pair for pair in nearness.doubtful() if pair.sample not in near]
            said, unclear = teacher_checks.confirmed_by_teacher(doubtful, exam, teacher, seed)
            if unclear:
                console.warning(
                    f"the teacher said neither yes nor no to {unclear} of {len(doubtful)} pairs of questions"
                )
        verdicts: list[FilterResult] = []
        for place, sample in enumerate(samples):
            found = near.get(place) or said.get(place)
            by = "near an exam question" if place in near else "asks what the exam asks, says the teacher"
            remark = f"exam question {exam[found.question].id}, cosine {found.cosine:.3f}" if found else ""
            verdicts.append(Drop(by, remark, is_leak=True) if found else sample)
        return verdicts

    return SampleFilter("exam in other words", judge)


def rules_for(
    samples: Sequence[Sample],
    sources: SampleSources,
    exam: Sequence[Question],
    vectors: TokenVectors | None = None,
    teacher: TeacherLike | None = None,
) -> list[SampleFilter]:
    """Return the rules in the order in which samples pass them, the cheapest first.

    Args:
        samples: all that will pass.
        sources: the recipe, and what samples are looked up in.
        exam: the sealed questions.
        vectors: of the student's tokens; without them, nothing is compared by meaning.
        teacher: is asked whether near questions ask the same; nobody is when None.
    """
    recipe, how = sources.recipe, sources.recipe.curation.privacy
    rules = _own_rules(sources)
    if how != "keep":
        rules.append(SampleFilter("privacy", each_sample(_personal(how))))
    rules.append(SampleFilter("injection", each_sample(_addressed)))
    rules += _duplicates(samples, sources)
    if vectors and recipe.curation.embedding_duplicate:
        rules.append(_same_in_meaning(vectors, recipe.curation.embedding_duplicate))
    rules.append(_decontamination(exam, sources))
    given = instructions(exam)
    exam = [question for question in exam if question.question not in given]
    if vectors and exam:
        asked = teacher if recipe.curation.paraphrase_check else None
        rules.append(_exam_in_other_words(exam, vectors, asked, recipe.seed))
    return rules


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _DETAIL_CHARACTERS else text[: _DETAIL_CHARACTERS - 1] + "…"


def _rejection(sample: Sample, drop: Drop) -> Rejection:
    """Return the record of a drop, with question and answer, so that the user sees what was dropped."""
    parts = [f"Q: {_shorten(split_prompt(sample.question)[1])}", f"A: {_shorten(sample.answer)}", drop.remark]
    return Rejection(
        stage=STAGE, id=sample.id, reason=drop.reason, detail=" | ".join(filter(None, parts)), task=sample.task
    )


def pass_through(samples: Sequence[Sample], rules: Sequence[SampleFilter]) -> Filtered:
    """Return what is left of the samples after all rules; each sample is kept, or dropped by one rule."""
    sifted = Filtered(list(samples))
    with console.progress("curate", len(rules)) as bar:
        for rule in rules:
            left: list[Sample] = []
            for sample, verdict in zip(sifted.kept, rule.judge(sifted.kept), strict=True):
                if isinstance(verdict, Sample):
                    left.append(verdict)
                else:
                    sifted.rejections.append(_rejection(sample, verdict))
                    sifted.leaks[verdict.reason] += verdict.is_leak
            sifted.dropped_by[rule.name] = len(sifted.kept) - len(left)
            sifted.kept = left
            bar.advance(1)
    return sifted
