"""The pairs stage: the user's own preference pairs and made ones in, pairs.jsonl out, every drop with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.curation.decontaminate import Leak, Leaks
from tunewright.curation.made_pairs import PAIRS_PER_SAMPLE, STAGE, length_figures, make_pairs, surplus
from tunewright.curation.own_data import Malformed, data_files, message, parsed_lines, turns
from tunewright.curation.rules import turn_fault
from tunewright.durable import file_digest
from tunewright.errors import DocumentError, StageError
from tunewright.recipe import Recipe
from tunewright.records import OWN, Message, PreferencePair, Question, Rejection, Sample, StageSummary, digest
from tunewright.rundir import RunFolder
from tunewright.text import normalize

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
    leaks = Leaks(run.read_records("exam.jsonl", Question), recipe.curation.ngram)
    made_of = run.read_records("train.jsonl", Sample) if recipe.preference.make else []
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
    run.write_records("pairs.jsonl", kept)
    num_in = len(kept) + len(rejections)
    return StageSummary(num_in=num_in, num_out=len(kept), rejected=rejected, figures=length_figures(kept))


def pairs_digest(recipe: Recipe) -> str:
    """Return a digest of the contents of the recipe's own pairs."""
    return digest([file_digest(path) for path in _files(recipe)])
