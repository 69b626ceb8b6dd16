"""Preference pairs made of the training set: edits, wrong refusals, the student's own errors, best of n."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tunewright.answers import is_refusal as declines
from tunewright.curation.edits import EDITS, evidence_of
from tunewright.curation.judged import Judged, best_and_worst, students_error
from tunewright.curation.rules import Sources, is_refusal, split_prompt
from tunewright.curation.student_answers import student_answers
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, PreferencePair, Rejection, Sample, digest
from tunewright.rundir import RunFolder
from tunewright.text import normalize

STAGE = "pairs"
# One sample with a dozen pairs would train its question alone; two keep the number of pairs near that of samples.
PAIRS_PER_SAMPLE = 2

Made = PreferencePair | Rejection


@dataclass(frozen=True)
class Workshop:
    """What pairs are made of: the training set, the documents behind it, and the run that keeps what was answered."""

    run: RunFolder
    sources: Sources
    samples: Sequence[Sample]

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.sources.recipe


def pair_of(sample: Sample, origin: str, rejected: str, chosen: str | None = None) -> PreferencePair:
    """Return a pair on a sample's prompt; its verified answer is the chosen one unless another is given."""
    prompt, better = sample.messages[:-1], sample.answer if chosen is None else chosen
    identity = digest([turn.model_dump() for turn in prompt], better, rejected)
    return PreferencePair(id=identity, prompt=prompt, chosen=better, rejected=rejected, origin=origin, sample=sample.id)


def _none(sample: Sample, reason: str, detail: str = "") -> Rejection:
    return Rejection(stage=STAGE, id=sample.id, reason=reason, detail=detail)


def edited(work: Workshop) -> list[Made]:
    """Return pairs whose rejected answer is the verified one with a fault put in; needs no call.

    Minimal edits say what is wrong and nothing else (CLAIR: D'Oosterlinck et al. 2024, arXiv 2408.06266); the kinds of
    fault are those of Trust-Align (Song et al. 2024, arXiv 2409.11242).
    """
    recipe = work.recipe
    made = _refused(work)
    twinned = {item.sample for item in made if isinstance(item, PreferencePair)}
    for sample in work.samples:
        if is_refusal(sample, recipe):
            continue
        if not evidence_of(sample):
            made.append(_none(sample, "no evidence to hold an edit against"))
            continue
        faults = [(kind, edit(sample, work.sources)) for kind, edit in EDITS.items()]
        found = [pair_of(sample, kind, text) for kind, text in faults if text]
        if not found and sample.id not in twinned:
            made.append(_none(sample, "nothing in the answer to edit", sample.answer[:200]))
        made += sorted(found, key=lambda pair: digest(recipe.seed, pair.id))
    return made


def _refused(work: Workshop) -> list[Made]:
    """Return both directions of refusing, two by two: a wrong refusal, and a wrong answer to what cannot be answered.

    The two share question and answer, so that over both neither refusing nor the shorter text is the better one.
    """
    recipe = work.recipe
    answered: dict[str, list[Sample]] = defaultdict(list)
    for sample in work.samples:
        if not is_refusal(sample, recipe):
            answered[_asked(sample)].append(sample)
    for group in answered.values():  # taken from the end: those whose prompt shows a passage too, before the others
        group.sort(key=lambda sample: bool(split_prompt(sample.question)[0]))
    made: list[Made] = []
    for sample in work.samples:
        if not is_refusal(sample, recipe):
            continue
        group = answered[_asked(sample)]
        if not group:
            made.append(_none(sample, "no answered sample asks what this one refuses"))
            continue
        twin = group.pop()
        if _shows(sample, twin):
            made.append(_none(sample, "the passage shown gives the answer", twin.id))
        else:
            made += [pair_of(sample, "refusal", twin.answer), pair_of(twin, "refusal", recipe.refusal)]
    return made


def _asked(sample: Sample) -> str:
    return normalize(split_prompt(sample.question)[1])


def _shows(refused: Sample, answered: Sample) -> bool:
    evidence = answered.evidence.quote if answered.evidence else answered.answer
    return normalize(evidence) in normalize(refused.question)


def _judge(work: Workshop, origin: str, judge: Callable[[Workshop], Sequence[Judged]]) -> list[Made]:
    made: list[Made] = []
    for sample, judged in zip(work.samples, judge(work), strict=True):
        if judged.fault:
            made.append(_none(sample, judged.fault, judged.detail[:200]))
        else:
            made.append(pair_of(sample, origin, judged.rejected, judged.chosen))
    return made


def _errors(work: Workshop) -> Sequence[Judged]:
    told = student_answers(work.run, work.recipe, work.samples)
    return [students_error(sample, answers, work.recipe) for sample, answers in zip(work.samples, told, strict=True)]


def _ranked(work: Workshop) -> Sequence[Judged]:
    told = student_answers(work.run, work.recipe, work.samples)
    return best_and_worst(work.samples, told, work.recipe)


def make_pairs(run: RunFolder, recipe: Recipe) -> list[Made]:
    """Return the pairs that the recipe's ``preference.make`` asks for, in its order, and why others came to nothing."""
    if not recipe.preference.make:
        return []
    documents = {document.id: document for document in run.records_if_any("documents.jsonl", Document)}
    chunks = {chunk.id: chunk for chunk in run.records_if_any("chunks.jsonl", Chunk)}
    work = Workshop(run, Sources(recipe, documents, chunks), run.read_records("train.jsonl", Sample))
    return [made for way in recipe.preference.make for made in WAYS[way](work)]


def direction(pair: PreferencePair, refusal: str) -> str:
    """Return which way a pair pulls: "answer" over a refusal, "refuse" over an answer, or neither ("")."""
    better, worse = declines(pair.chosen, refusal), declines(pair.rejected, refusal)
    return "" if better == worse else "refuse" if better else "answer"


def surplus(pairs: Iterable[PreferencePair], recipe: Recipe) -> set[str]:
    """Return the identifiers of the made pairs that tip the balance between refusing and answering.

    Both directions are to be as many, or the student learns to refuse (or never to). Edits leave before what the
    student said itself.
    """
    sides: dict[str, list[PreferencePair]] = {"answer": [], "refuse": []}
    for pair in pairs:
        way = direction(pair, recipe.refusal)
        if way and pair.sample:
            sides[way].append(pair)
    number = min(map(len, sides.values()))
    left: set[str] = set()
    for side in sides.values():
        ranked = sorted(side, key=lambda pair: (pair.origin in EDITED, digest(recipe.seed, pair.id)))
        left |= {pair.id for pair in ranked[number:]}
    return left


def length_figures(pairs: Sequence[PreferencePair]) -> dict[str, float | int | str]:
    """Return the number of pairs by origin, and how far the lengths of chosen and rejected are apart, in words."""
    origins = Counter(pair.origin for pair in pairs)
    gaps = [len(pair.chosen.split()) - len(pair.rejected.split()) for pair in pairs]
    return {
        **{f"from {origin}": origins[origin] for origin in sorted(origins)},
        "chosen_longer_by_words": round(sum(gaps) / len(gaps), 2) if gaps else 0.0,
        "lengths_apart_by_words": round(sum(map(abs, gaps)) / len(gaps), 2) if gaps else 0.0,
    }


EDITED = frozenset({*EDITS, "refusal"})  # origins of the pairs that ``edited`` makes

WAYS: dict[str, Callable[[Workshop], list[Made]]] = {
    "edits": edited,
    "student": lambda work: _judge(work, "student", _errors),
    "best-of-n": lambda work: _judge(work, "best-of-n", _ranked),
}
