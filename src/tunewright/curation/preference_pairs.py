"""Preference pairs: the user's own, and those made of the training set; which of them are kept, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tunewright.curation.answer_edits import EDITS, evidence_of
from tunewright.curation.chat_formats import Malformed, data_files, message, parsed_lines, turns
from tunewright.curation.decontamination import Leak, Leaks
from tunewright.curation.sample_rules import SampleSources, teaches_refusal, turn_fault
from tunewright.curation.student_sampling import PairChoice, best_and_worst, student_answers, students_error
from tunewright.errors import DocumentError, StageError
from tunewright.metrics import is_refusal
from tunewright.models.data_sources import local_paths, renamed
from tunewright.recipe import Recipe
from tunewright.records import (
    OWN,
    Message,
    PreferencePair,
    Rejection,
    Sample,
    digest,
)
from tunewright.run_folder import Journal
from tunewright.storage import file_digest
from tunewright.text.normalization import normalize
from tunewright.text.prompts import split_prompt
from tunewright.text.remedies import WRONG_DATA, reasons_text, remedy

STAGE = "pairs"
# One sample with a dozen pairs would train its question alone; two keep the number of pairs near that of samples.
PAIRS_PER_SAMPLE = 2

Made = PreferencePair | Rejection
Candidate = tuple[str, Made]  # with the line or sample that it comes from


@dataclass(frozen=True)
class PairInputs:
    """The inputs of made pairs: the training set, its documents, and the journal of the student's answers."""

    samples: Sequence[Sample]
    sources: SampleSources
    journal: Journal

    @property
    def recipe(self) -> Recipe:
        """The run's recipe."""
        return self.sources.recipe


def pair_of(sample: Sample, origin: str, rejected: str, chosen: str | None = None) -> PreferencePair:
    """Return a pair on a sample's prompt; the verified answer is chosen unless ``chosen`` is given."""
    prompt, better = sample.messages[:-1], sample.answer if chosen is None else chosen
    identity = digest([turn.as_turn() for turn in prompt], better, rejected)
    return PreferencePair(id=identity, prompt=prompt, chosen=better, rejected=rejected, origin=origin, sample=sample.id)


def _no_pair(sample: Sample, reason: str, detail: str = "") -> Rejection:
    return Rejection(stage=STAGE, id=sample.id, reason=reason, detail=detail)


def edited_pairs(inputs: PairInputs) -> list[Made]:
    """Return pairs whose rejected answer is the verified one with one fault; no model is called.

    Minimal edits differ in the fault alone (CLAIR: D'Oosterlinck et al. 2024, arXiv 2408.06266); the kinds of
    fault are those of Trust-Align (Song et al. 2024, arXiv 2409.11242).
    """
    recipe = inputs.recipe
    made = _refusal_pairs(inputs)
    in_refusal_pairs = {item.sample for item in made if isinstance(item, PreferencePair)}
    for sample in inputs.samples:
        if teaches_refusal(sample, recipe.refusal):
            continue
        if not evidence_of(sample):
            made.append(_no_pair(sample, "no evidence to hold an edit against"))
            continue
        faults = [(kind, edit(sample, inputs.sources)) for kind, edit in EDITS.items()]
        pairs = [pair_of(sample, kind, text) for kind, text in faults if text]
        if not pairs and sample.id not in in_refusal_pairs:
            made.append(_no_pair(sample, "nothing in the answer to edit", sample.answer[:200]))
        made += sorted(pairs, key=lambda pair: digest(recipe.seed, pair.id))
    return made


def _refusal_pairs(inputs: PairInputs) -> list[Made]:
    """Return refusal pairs two by two: a wrong refusal, and a wrong answer where a refusal is right.

    Both share question and answer, so that on the whole neither refusing nor the shorter text is better.
    """
    recipe = inputs.recipe
    answered: dict[str, list[Sample]] = defaultdict(list)
    for sample in inputs.samples:
        if not teaches_refusal(sample, recipe.refusal):
            answered[_question_key(sample)].append(sample)
    for group in answered.values():  # taken from the end: samples that show a passage come first
        group.sort(key=lambda sample: bool(split_prompt(sample.question)[0]))
    made: list[Made] = []
    for sample in inputs.samples:
        if not teaches_refusal(sample, recipe.refusal):
            continue
        group = answered[_question_key(sample)]
        if not group:
            made.append(_no_pair(sample, "no answered sample asks what this one refuses"))
            continue
        answering = group.pop()
        if _shows_evidence(sample, answering):
            made.append(_no_pair(sample, "the passage shown gives the answer", answering.id))
        else:
            made += [pair_of(sample, "refusal", answering.answer), pair_of(answering, "refusal", recipe.refusal)]
    return made


def _question_key(sample: Sample) -> str:
    return normalize(split_prompt(sample.question)[1])


def _shows_evidence(refused: Sample, answered: Sample) -> bool:
    """Return whether the prompt of a refused sample holds the evidence of the answered one."""
    evidence = answered.evidence.quote if answered.evidence else answered.answer
    return normalize(evidence) in normalize(refused.question)


def _pairs_of_choices(inputs: PairInputs, origin: str, choices: Iterable[PairChoice]) -> list[Made]:
    made: list[Made] = []
    for sample, choice in zip(inputs.samples, choices, strict=True):
        if choice.fault:
            made.append(_no_pair(sample, choice.fault, choice.detail[:200]))
        else:
            made.append(pair_of(sample, origin, choice.rejected, choice.chosen))
    return made


def student_error_pairs(inputs: PairInputs) -> list[Made]:
    """Return pairs of the verified answer and a wrong answer of the student."""
    answers = student_answers(inputs.journal, inputs.recipe, inputs.samples)
    choices = (students_error(sample, own, inputs.recipe) for sample, own in zip(inputs.samples, answers, strict=True))
    return _pairs_of_choices(inputs, "student", choices)


def best_of_n_pairs(inputs: PairInputs) -> list[Made]:
    """Return pairs of the student's best and worst answer by the reward model."""
    answers = student_answers(inputs.journal, inputs.recipe, inputs.samples)
    return _pairs_of_choices(inputs, "best-of-n", best_and_worst(inputs.samples, answers, inputs.recipe))


def make_pairs(inputs: PairInputs) -> list[Made]:
    """Return the pairs of the recipe's ``preference.make``, in its order, and a rejection where none could be made."""
    return [made for way in inputs.recipe.preference.make for made in WAYS[way](inputs)]


def direction(pair: PreferencePair, refusal: str) -> str:
    """Return what a pair prefers: to "answer" over a refusal, to "refuse" over an answer, or neither ("")."""
    better, worse = is_refusal(pair.chosen, refusal), is_refusal(pair.rejected, refusal)
    return "" if better == worse else "refuse" if better else "answer"


def surplus(pairs: Iterable[PreferencePair], refusal: str, seed: int) -> set[str]:
    """Return the identifiers of the made pairs by which one direction of refusing outweighs the other.

    Both directions need equally many pairs, or the student learns to refuse always or never. Edited pairs are dropped
    before pairs of the student's own answers.
    """
    sides: dict[str, list[PreferencePair]] = {"answer": [], "refuse": []}
    for pair in pairs:
        way = direction(pair, refusal)
        if way and pair.sample:
            sides[way].append(pair)
    number = min(map(len, sides.values()))
    dropped: set[str] = set()
    for side in sides.values():
        ranked = sorted(side, key=lambda pair: (pair.origin in EDITED, digest(seed, pair.id)))
        dropped |= {pair.id for pair in ranked[number:]}
    return dropped


def length_figures(pairs: Sequence[PreferencePair]) -> dict[str, float | int | str]:
    """Return the number of pairs by origin, and the mean differences in words between chosen and rejected."""
    origins = Counter(pair.origin for pair in pairs)
    gaps = [len(pair.chosen.split()) - len(pair.rejected.split()) for pair in pairs]
    return {
        **{f"from {origin}": origins[origin] for origin in sorted(origins)},
        "chosen_longer_by_words": round(sum(gaps) / len(gaps), 2) if gaps else 0.0,
        "lengths_apart_by_words": round(sum(map(abs, gaps)) / len(gaps), 2) if gaps else 0.0,
    }


_KEYS = ("chosen", "rejected")
_SAME = "chosen and rejected are the same"


def _conversation(value: object, prompt: list[Message]) -> list[Message]:
    """Return the conversation that ends in an answer: a text, a list with its last turn, or a list of all turns."""
    if isinstance(value, list):
        messages = turns(value)
        return messages if len(messages) > 1 else [*prompt, *messages]
    return [*prompt, message("assistant", value)]


def _pair(line: object, columns: Mapping[str, str] = MappingProxyType({})) -> PreferencePair:
    """Return a line's pair, or raise Malformed; ``columns`` holds our names of its columns."""
    line = renamed(line, columns) if isinstance(line, Mapping) else line
    if not isinstance(line, Mapping) or any(line.get(key) is None for key in _KEYS):
        raise Malformed("not a pair", "a line needs prompt, chosen and rejected")
    value: Any = line.get("prompt")
    prompt = [] if value is None else turns(value) if isinstance(value, list) else [message("user", value)]
    system = line.get("system")
    if isinstance(system, str) and system.strip():
        prompt.insert(0, message("system", system))
    chosen, rejected = (_conversation(line[key], prompt) for key in _KEYS)
    if chosen[:-1] != rejected[:-1]:
        raise Malformed("chosen and rejected answer different prompts")
    fault = turn_fault(chosen) or turn_fault(rejected)
    if fault:
        raise Malformed(fault, " ".join(turn.role for turn in chosen))
    identity = digest([turn.as_turn() for turn in (*chosen, rejected[-1])])
    return PreferencePair(
        id=identity, prompt=tuple(chosen[:-1]), chosen=chosen[-1].content, rejected=rejected[-1].content
    )


def _files(recipe: Recipe) -> list[Path]:
    return data_files(local_paths(recipe, recipe.preference.data, "preference.data"), "preference.data")


def read_own_pairs(recipe: Recipe) -> list[Candidate]:
    """Return the user's own pairs, each with its file and line; malformed lines as rejections.

    Raises:
        DocumentError: a file is missing.
    """
    return [
        (position, Rejection(stage=STAGE, id=position, reason=pair.reason, detail=pair.detail))
        if isinstance(pair, Malformed)
        else (position, pair)
        for position, pair in parsed_lines(_files(recipe), partial(_pair, columns=recipe.synthesis.columns))
    ]


def as_sample(pair: PreferencePair) -> Sample:
    """Return the user's own pair as a chat that ends with the chosen answer."""
    return Sample(id=pair.id, task=OWN, messages=(*pair.prompt, Message(role="assistant", content=pair.chosen)))


def made_candidates(inputs: PairInputs) -> list[Candidate]:
    """Return the made pairs, each with the identifier of its sample."""
    return [(made.id if isinstance(made, Rejection) else made.sample or "", made) for made in make_pairs(inputs)]


def _leak(pair: PreferencePair, leaks: Leaks, samples: Mapping[str, Sample]) -> Leak | None:
    """Return the leak in a pair's prompt or either answer; of the user's own pairs, the chosen answer alone counts."""
    origin = samples.get(pair.sample or "", Sample(id=pair.id, task=OWN, messages=()))
    for answer in (pair.chosen, pair.rejected) if pair.sample else (pair.chosen,):
        messages = (*pair.prompt, Message(role="assistant", content=answer))
        leak = leaks.find(origin.model_copy(update={"messages": messages}))
        if leak:
            return leak
    return None


def filter_pairs(
    candidates: Iterable[Candidate], leaks: Leaks, samples: Mapping[str, Sample], refusal: str, seed: int
) -> tuple[list[PreferencePair], list[Rejection]]:
    """Return the pairs kept, in their order, and why the others are not.

    Args:
        candidates: the user's own pairs, then the made ones.
        leaks: the exam, indexed.
        samples: the training samples of the made pairs, by identifier.
        refusal: the recipe's refusal sentence.
        seed: decides which pairs are dropped for the balance of refusing.
    """
    kept: dict[str, PreferencePair] = {}
    per_sample: Counter[str] = Counter()
    rejections: list[Rejection] = []

    def reject(source: str, reason: str, detail: str = "") -> None:
        rejections.append(Rejection(stage=STAGE, id=source, reason=reason, detail=detail))

    for source, pair in candidates:
        if isinstance(pair, Rejection):
            rejections.append(pair)
        elif normalize(pair.chosen) == normalize(pair.rejected):
            reject(source, _SAME)
        elif pair.id in kept:
            reject(source, "duplicate")
        elif pair.sample and per_sample[pair.sample] >= PAIRS_PER_SAMPLE:
            reject(source, f"sample has {PAIRS_PER_SAMPLE} pairs already", pair.origin)
        elif leak := _leak(pair, leaks, samples):
            reject(source, leak.reason, leak.question)
        else:
            kept[pair.id] = pair
            per_sample[pair.sample or ""] += 1
    for identity in sorted(surplus(kept.values(), refusal, seed)):
        pair = kept.pop(identity)
        reject(pair.sample or "", "one direction of refusing outweighs the other", pair.origin)
    return list(kept.values()), rejections


def no_pairs_error(makes: bool, rejections: Sequence[Rejection]) -> DocumentError | StageError:
    """Return the error for a stage without any pair; ``makes``: whether the recipe makes pairs."""
    headline = "there is no preference pair to train on"
    if makes:
        if not rejections:
            return StageError(headline, "the training set gives none", "name other ways in preference.make")
        return StageError(headline, f"dropped because: {reasons_text(rejections)}", remedy(rejections))
    form = 'one JSON object per line: {"prompt": "...", "chosen": "...", "rejected": "..."}'
    if not rejections:
        return DocumentError(headline, "the files are empty", form)
    first = rejections[0]
    cause = f"{reasons_text(rejections)}; the first: {first.id}: {first.reason} {first.detail}".rstrip()
    known = remedy(rejections)
    return DocumentError(headline, cause, form if known == WRONG_DATA else known)


def pairs_digest(recipe: Recipe) -> str:
    """Return a digest of the contents of the recipe's own pairs."""
    columns = [recipe.synthesis.columns] if recipe.synthesis.columns else []
    return digest([file_digest(path) for path in _files(recipe)], *columns)


EDITED = frozenset({*EDITS, "refusal"})  # origins of the pairs of edited_pairs

WAYS: dict[str, Callable[[PairInputs], list[Made]]] = {
    "edits": edited_pairs,
    "student": student_error_pairs,
    "best-of-n": best_of_n_pairs,
}
