"""The named filters that samples pass, the cheapest first, and the rejections of each."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import groupby
from typing import NamedTuple

from tunewright import console
from tunewright.curation import privacy, teacher_checks
from tunewright.curation.boilerplate import Boilerplate
from tunewright.curation.decontamination import Leaks, instructions
from tunewright.curation.deduplication import Duplicates, contradicted_prompts, embedding_duplicates, prompt_key
from tunewright.curation.edits import OVERRIDABLE
from tunewright.curation.packed_samples import Selection
from tunewright.curation.sample_rules import RULES, SampleSources, anchor_evidence, teaches_refusal
from tunewright.curation.workers import in_order
from tunewright.models.tensors import TokenVectors
from tunewright.records import OWN, Question, Rejection, Sample
from tunewright.teacher.protocol import TeacherLike
from tunewright.text.injection import PLANTED, control_token, injection_fault
from tunewright.text.prompts import split_prompt

_fault = lru_cache(maxsize=10_000)(injection_fault)  # a passage is shown by many samples


def address(sample: Sample) -> str | None:
    """Return the text by which a sample's question, answer, evidence or passage addresses a model, or None.

    The system turn is the recipe's. The user's own chats may ask for a role or give orders: of these, only control
    tokens count, which would break the template.
    """
    texts = [message.content for message in sample.messages if message.role != "system"]
    if sample.task == OWN:
        token = next(filter(None, map(control_token, texts)), None)
        return f"control token: {token}" if token else None
    quote = [sample.evidence.quote] if sample.evidence and sample.evidence.quote not in texts else []
    return next(filter(None, map(_fault, [*texts, *quote])), None)


STAGE = "curate"
_DETAIL_CHARACTERS = 200


class Drop(NamedTuple):
    """Why a sample is dropped: a reason that is counted, and a remark such as the sample that it repeats."""

    reason: str
    remark: str = ""
    is_leak: bool = False


FilterResult = Sample | Drop  # the sample, unchanged or corrected, or why it is dropped
Judge = Callable[[Sample], FilterResult]


class SampleFilter(NamedTuple):
    """A named filter of the samples that passed the filters before it; one of the three that follow judges.

    Attributes:
        name: of the filter.
        alone: judges a sample by itself, perhaps in another process.
        in_turn: returns, for one pass, an index that compares each sample with those before it; it goes with the pass.
        together: returns why samples are dropped, by their number.
    """

    name: str
    alone: Judge | None = None
    in_turn: Callable[[], Duplicates] | None = None
    together: Callable[[Sequence[Sample]], Mapping[int, Drop]] | None = None


@dataclass
class Filtered:
    """The samples kept, the rejections, and the number of drops of each filter, also where it is 0."""

    kept: Sequence[Sample]
    rejections: list[Rejection] = field(default_factory=list)
    dropped_by: dict[str, int] = field(default_factory=dict)
    leaks: Counter[str] = field(default_factory=Counter)


def _own_rules(sources: SampleSources) -> list[SampleFilter]:
    """Return the filters of sample_rules.RULES; "evidence" also corrects its offsets."""

    def judge(name: str) -> Judge:
        rule = RULES[name]

        def verdict(sample: Sample) -> FilterResult:
            reason = rule(sample, sources)
            if reason:
                return Drop(reason)
            return (anchor_evidence(sample, sources) or sample) if name == "evidence" else sample

        return verdict

    return [SampleFilter(name, judge(name)) for name in RULES]


def _personal(how: str) -> Judge:
    def verdict(sample: Sample) -> FilterResult:
        kinds = privacy.kinds(sample)
        if not kinds:
            return sample
        return privacy.masked(sample) if how == "mask" else Drop(f"personal data: {kinds[0]}", ", ".join(kinds))

    return verdict


def _addressed(sample: Sample) -> FilterResult:
    fault = address(sample)
    return Drop(PLANTED, fault) if fault else sample


def _duplicates(samples: Sequence[Sample], sources: SampleSources, boilerplate: Boilerplate) -> list[SampleFilter]:
    """Return the filters for contradicting refusals, and for exact and near duplicates."""
    contradicted = contradicted_prompts(samples, sources.recipe.refusal)

    def contradicts(sample: Sample) -> FilterResult:
        refused = contradicted and teaches_refusal(sample, sources.recipe.refusal)
        is_answered = refused and prompt_key(sample) in contradicted
        return Drop("refuses what another sample answers") if is_answered else sample

    indexed = partial(Duplicates, sources.recipe.curation.near_duplicate, boilerplate)
    return [SampleFilter("contradiction", contradicts), SampleFilter("duplicates", in_turn=indexed)]


def _same_in_meaning(vectors: TokenVectors, threshold: float, boilerplate: Boilerplate) -> SampleFilter:
    def judge(samples: Sequence[Sample]) -> dict[int, Drop]:
        repeated = embedding_duplicates(samples, vectors, threshold, boilerplate)
        return {index: Drop("embedding duplicate", f"repeats {samples[first].id}") for index, first in repeated.items()}

    return SampleFilter("embedding duplicates", together=judge)


def _decontamination(exam: Sequence[Question], sources: SampleSources, boilerplate: Boilerplate) -> SampleFilter:
    leaks = Leaks(exam, sources.recipe.curation.ngram, boilerplate)

    def leaked(sample: Sample) -> FilterResult:
        leak = leaks.find(sample)
        return Drop(leak.reason, f"exam question {leak.question}", is_leak=True) if leak else sample

    return SampleFilter("decontamination", leaked)


def _exam_in_other_words(
    exam: Sequence[Question], vectors: TokenVectors, teacher: TeacherLike | None, seed: int, boilerplate: Boilerplate
) -> SampleFilter:
    """Return the filter for questions near an exam question; a teacher decides the doubtful pairs."""

    def judge(samples: Sequence[Sample]) -> dict[int, Drop]:
        nearness = teacher_checks.QuestionSimilarity(samples, exam, vectors, boilerplate)
        near = nearness.same()
        confirmed: dict[int, teacher_checks.NearQuestion] = {}
        if teacher:
            doubtful = [pair for pair in nearness.doubtful() if pair.sample not in near]
            confirmed, unclear = teacher_checks.confirmed_by_teacher(doubtful, exam, teacher, seed)
            if unclear:
                console.warning(
                    f"the teacher answered neither yes nor no to {unclear} of {len(doubtful)} pairs of questions"
                )
        drops: dict[int, Drop] = {}
        for index, match in {**confirmed, **near}.items():
            by = "near an exam question" if index in near else "asks what the exam asks, says the teacher"
            remark = f"exam question {exam[match.question].id}, cosine {match.cosine:.3f}"
            drops[index] = Drop(by, remark, is_leak=True)
        return drops

    return SampleFilter("exam in other words", together=judge)


def rules_for(
    samples: Sequence[Sample],
    sources: SampleSources,
    exam: Sequence[Question],
    vectors: TokenVectors | None = None,
    teacher: TeacherLike | None = None,
    boilerplate: Boilerplate | None = None,
) -> list[SampleFilter]:
    """Return the filters in the order in which samples pass them, the cheapest first.

    Args:
        samples: all samples.
        sources: the recipe, documents and chunks.
        exam: the sealed questions.
        vectors: of the student's tokens; without them, nothing is compared by meaning.
        teacher: decides whether near questions ask the same; None: nothing does.
        boilerplate: what many prompts share; it is left out of every comparison.
    """
    boilerplate = boilerplate or Boilerplate(samples, exam)
    recipe, how = sources.recipe, sources.recipe.curation.privacy
    rules = _own_rules(sources)
    if how != "keep":
        rules.append(SampleFilter("privacy", _personal(how)))
    rules.append(SampleFilter("injection", _addressed))
    rules += _duplicates(samples, sources, boilerplate)
    if vectors and recipe.curation.embedding_duplicate:
        rules.append(_same_in_meaning(vectors, recipe.curation.embedding_duplicate, boilerplate))
    rules.append(_decontamination(exam, sources, boilerplate))
    given = instructions(exam)
    exam = [question for question in exam if question.question not in given]
    if vectors and exam:
        decides = teacher if recipe.curation.paraphrase_check else None
        rules.append(_exam_in_other_words(exam, vectors, decides, recipe.seed, boilerplate))
    return rules


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _DETAIL_CHARACTERS else text[: _DETAIL_CHARACTERS - 1] + "…"


def _rejection(sample: Sample, drop: Drop) -> Rejection:
    """Return the record of a drop, with question and answer for the reader."""
    parts = [f"Q: {_shorten(split_prompt(sample.question)[1])}", f"A: {_shorten(sample.answer)}", drop.remark]
    return Rejection(
        stage=STAGE, id=sample.id, reason=drop.reason, detail=" | ".join(filter(None, parts)), task=sample.task
    )


class _Dropped(NamedTuple):
    """What drops a sample: the filter and the drop, and the record of it."""

    rule: str
    drop: Drop
    rejection: Rejection


class _Sieve:
    """Passes samples through filters, and notes the drops of each filter."""

    def __init__(self, approved: frozenset[str]) -> None:
        self._approved = approved
        self.rejections: dict[str, list[Rejection]] = {}
        self.leaks: Counter[str] = Counter()

    def _dropped(self, rule: str, sample: Sample, drop: Drop) -> _Dropped | None:
        """Return what drops a sample, if it does: people override some filters for approved samples."""
        if sample.id in self._approved and rule in OVERRIDABLE:
            return None
        return _Dropped(rule, drop, _rejection(sample, drop))

    def _note(self, dropped: _Dropped) -> None:
        self.rejections[dropped.rule].append(dropped.rejection)
        self.leaks[dropped.drop.reason] += dropped.drop.is_leak

    def alone(self, samples: Sequence[Sample], rules: Sequence[SampleFilter]) -> Selection:
        """Return the samples that pass all of these filters, which judge each sample by itself."""
        judges = [(rule.name, rule.alone) for rule in rules if rule.alone]

        def outcome(number: int) -> Sample | _Dropped | None:
            """Return what drops a sample, or how it is changed, or None."""
            original = sample = samples[number]
            for name, judge in judges:
                verdict = judge(sample)
                if isinstance(verdict, Sample):
                    sample = verdict
                elif dropped := self._dropped(name, sample, verdict):
                    return dropped
            return None if sample is original else sample

        numbers, changed = array("I"), dict[int, Sample]()
        for number, result in enumerate(in_order(outcome, len(samples))):
            if isinstance(result, _Dropped):
                self._note(result)
                continue
            numbers.append(number)
            if result is not None:
                changed[number] = result
        return Selection(samples, numbers, changed)

    def in_turn(self, samples: Sequence[Sample], rule: SampleFilter) -> Selection:
        """Return the samples that repeat none of those before them."""
        assert rule.in_turn is not None
        index = rule.in_turn()
        repeated: dict[int, Drop] = {}
        for number, traits in enumerate(in_order(lambda number: index.traits(samples[number]), len(samples))):
            if repetition := index.find(traits):
                repeated[number] = Drop(repetition[0], f"repeats {repetition[1]}")
        return self._without(samples, rule.name, repeated)

    def together(self, samples: Sequence[Sample], rule: SampleFilter) -> Selection:
        """Return the samples that pass a filter which sees all of them."""
        assert rule.together is not None
        return self._without(samples, rule.name, rule.together(samples))

    def _without(self, samples: Sequence[Sample], rule: str, drops: Mapping[int, Drop]) -> Selection:
        """Return the samples without those that are dropped, which is noted."""
        dropped = {number: self._dropped(rule, samples[number], drops[number]) for number in sorted(drops)}
        for item in filter(None, dropped.values()):
            self._note(item)
        return Selection(samples, (number for number in range(len(samples)) if not dropped.get(number)))


def pass_through(
    samples: Sequence[Sample], rules: Sequence[SampleFilter], approved: frozenset[str] = frozenset()
) -> Filtered:
    """Return the samples after all filters; each sample is kept, or dropped by a single filter.

    Args:
        samples: in order.
        rules: the filters.
        approved: identifiers of samples that people answer for: only the rules that nobody overrides drop them.
    """
    sieve, kept = _Sieve(approved), samples
    sieve.rejections = {rule.name: [] for rule in rules}
    with console.progress("curate", len(rules)) as bar:
        for is_alone, group in groupby(rules, key=lambda rule: rule.alone is not None):
            if is_alone:
                kept = sieve.alone(kept, alone := list(group))
                bar.advance(len(alone))
                continue
            for rule in group:
                kept = (sieve.in_turn if rule.in_turn else sieve.together)(kept, rule)
                bar.advance(1)
    return Filtered(
        kept,
        [rejection for own in sieve.rejections.values() for rejection in own],
        {name: len(own) for name, own in sieve.rejections.items()},
        sieve.leaks,
    )
