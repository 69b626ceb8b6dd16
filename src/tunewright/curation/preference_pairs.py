"""The pairs stage: the user's own preference pairs and made ones in, pairs.jsonl out, every drop with its reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.curation.answer_edits import EDITS, evidence_of
from tunewright.curation.chat_formats import Malformed, data_files, message, parsed_lines, turns
from tunewright.curation.decontamination import Leak, Leaks
from tunewright.curation.sample_rules import Sources, teaches_refusal, turn_fault
from tunewright.curation.student_sampling import Judged, best_and_worst, student_answers, students_error
from tunewright.errors import DocumentError, StageError
from tunewright.metrics import is_refusal
from tunewright.recipe import Recipe
from tunewright.records import (
    OWN,
    Chunk,
    Document,
    Message,
    PreferencePair,
    Question,
    Rejection,
    Sample,
    StageSummary,
    digest,
)
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import file_digest
from tunewright.text.normalization import normalize
from tunewright.text.prompts import split_prompt

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
        if teaches_refusal(sample, recipe.refusal):
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
        if not teaches_refusal(sample, recipe.refusal):
            answered[_asked(sample)].append(sample)
    for group in answered.values():  # taken from the end: those whose prompt shows a passage too, before the others
        group.sort(key=lambda sample: bool(split_prompt(sample.question)[0]))
    made: list[Made] = []
    for sample in work.samples:
        if not teaches_refusal(sample, recipe.refusal):
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
    documents = {document.id: document for document in run.records_if_any(RunFile.DOCUMENTS, Document)}
    chunks = {chunk.id: chunk for chunk in run.records_if_any(RunFile.CHUNKS, Chunk)}
    work = Workshop(run, Sources(recipe, documents, chunks), run.read_records(RunFile.TRAIN, Sample))
    return [made for way in recipe.preference.make for made in WAYS[way](work)]


def direction(pair: PreferencePair, refusal: str) -> str:
    """Return which way a pair pulls: "answer" over a refusal, "refuse" over an answer, or neither ("")."""
    better, worse = is_refusal(pair.chosen, refusal), is_refusal(pair.rejected, refusal)
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


_KEYS = ("chosen", "rejected")
_SAME = "chosen and rejected are the same"


def _conversation(value: object, prompt: list[Message]) -> list[Message]:
    """Return a whole conversation from an answer: text, its last turn, or all of its turns."""
    if isinstance(value, list):
        told = turns(value)
        return told if len(told) > 1 else [*prompt, *told]
    return [*prompt, message("assistant", value)]


def _pair(line: object) -> PreferencePair:
    """Return a line's pair, or raise Malformed."""
    if not isinstance(line, Mapping) or any(line.get(key) is None for key in _KEYS):
        raise Malformed("not a pair", "a line needs prompt, chosen and rejected")
    given: Any = line.get("prompt")
    prompt = [] if given is None else turns(given) if isinstance(given, list) else [message("user", given)]
    system = line.get("system")
    if isinstance(system, str) and system.strip():
        prompt.insert(0, message("system", system))
    chosen, rejected = (_conversation(line[key], prompt) for key in _KEYS)
    if chosen[:-1] != rejected[:-1]:
        raise Malformed("chosen and rejected answer different prompts")
    fault = turn_fault(chosen) or turn_fault(rejected)
    if fault:
        raise Malformed(fault, " ".join(turn.role for turn in chosen))
    identity = digest([turn.model_dump() for turn in (*chosen, rejected[-1])])
    return PreferencePair(
        id=identity, prompt=tuple(chosen[:-1]), chosen=chosen[-1].content, rejected=rejected[-1].content
    )


def _files(recipe: Recipe) -> list[Path]:
    return data_files([recipe.resolve(name) for name in recipe.preference.data], "preference.data")


def _given(run: RunFolder, recipe: Recipe) -> Iterator[tuple[str, PreferencePair | Rejection]]:
    """Yield the user's own pairs, then the made ones, each with its place or sample, and what is none of either."""
    for place, pair in parsed_lines(_files(recipe), _pair):
        if isinstance(pair, Malformed):
            yield place, Rejection(stage=STAGE, id=place, reason=pair.reason, detail=pair.detail)
        else:
            yield place, pair
    for made in make_pairs(run, recipe):
        yield (made.id if isinstance(made, Rejection) else made.sample or ""), made


def _leak(pair: PreferencePair, leaks: Leaks, samples: Mapping[str, Sample]) -> Leak | None:
    """Return the leak in a pair's prompt or either answer; of the user's own pairs the chosen answer counts."""
    origin = samples.get(pair.sample or "", Sample(id=pair.id, task=OWN, messages=()))
    for answer in (pair.chosen, pair.rejected) if pair.sample else (pair.chosen,):
        said = (*pair.prompt, Message(role="assistant", content=answer))
        found = leaks.find(origin.model_copy(update={"messages": said}))
        if found:
            return found
    return None


def _sift(run: RunFolder, recipe: Recipe) -> tuple[list[PreferencePair], list[Rejection]]:
    """Return the pairs kept, in their order, and why the others are not."""
    leaks = Leaks(run.read_records(RunFile.EXAM, Question), recipe.curation.ngram)
    made_of = run.read_records(RunFile.TRAIN, Sample) if recipe.preference.make else []
    samples = {sample.id: sample for sample in made_of}
    kept: dict[str, PreferencePair] = {}
    per_sample: Counter[str] = Counter()
    rejections: list[Rejection] = []

    def reject(place: str, reason: str, detail: str = "") -> None:
        rejections.append(Rejection(stage=STAGE, id=place, reason=reason, detail=detail))

    for place, pair in _given(run, recipe):
        if isinstance(pair, Rejection):
            rejections.append(pair)
        elif normalize(pair.chosen) == normalize(pair.rejected):
            reject(place, _SAME)
        elif pair.id in kept:
            reject(place, "duplicate")
        elif pair.sample and per_sample[pair.sample] >= PAIRS_PER_SAMPLE:
            reject(place, f"sample has {PAIRS_PER_SAMPLE} pairs already", pair.origin)
        elif leak := _leak(pair, leaks, samples):
            reject(place, leak.reason, leak.question)
        else:
            kept[pair.id] = pair
            per_sample[pair.sample or ""] += 1
    for identity in sorted(surplus(kept.values(), recipe)):
        pair = kept.pop(identity)
        reject(pair.sample or "", "one direction of refusing outweighs the other", pair.origin)
    return list(kept.values()), rejections


def _nothing_kept(recipe: Recipe, rejections: list[Rejection]) -> DocumentError | StageError:
    headline = "there is no preference pair to train on"
    if recipe.preference.make:
        top = Counter(rejection.reason for rejection in rejections).most_common(3)
        told = "; ".join(f"{reason} ({count})" for reason, count in top)
        return StageError(headline, f"dropped because: {told}", "name other ways in preference.make, or leave it out")
    first = rejections[0] if rejections else None
    return DocumentError(
        headline,
        f"the first line: {first.id}: {first.reason} {first.detail}".rstrip() if first else "the files are empty",
        'one JSON object per line: {"prompt": "...", "chosen": "...", "rejected": "..."}',
    )


def curate_pairs(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write pairs.jsonl: own and made pairs without malformed ones, repeats, leaks of the exam, and imbalance.

    Raises:
        DocumentError: a file is missing, or nothing is left of it.
        StageError: no pair could be made.
    """
    kept, rejections = _sift(run, recipe)
    rejected = run.reject(STAGE, rejections)
    if not kept:
        raise _nothing_kept(recipe, rejections)
    if rejections:
        console.warning(f"{len(rejections)} of {len(rejections) + len(kept)} preference pairs are left out")
    run.write_records(RunFile.PAIRS, kept)
    num_in = len(kept) + len(rejections)
    return StageSummary(num_in=num_in, num_out=len(kept), rejected=rejected, figures=length_figures(kept))


def pairs_digest(recipe: Recipe) -> str:
    """Return a digest of the contents of the recipe's own pairs."""
    return digest([file_digest(path) for path in _files(recipe)])
