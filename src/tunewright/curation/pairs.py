"""The user's own preference pairs: read, checked against the exam, written as pairs.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.curation.decontaminate import Leaks
from tunewright.curation.own_data import Malformed, data_files, message, parsed_lines, turns
from tunewright.curation.rules import turn_fault
from tunewright.errors import DocumentError
from tunewright.recipe import Recipe
from tunewright.records import OWN, Message, PreferencePair, Question, Rejection, Sample, StageSummary, digest
from tunewright.rundir import RunFolder, file_digest
from tunewright.text import normalize

STAGE = "pairs"
_KEYS = ("chosen", "rejected")


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
    if normalize(chosen[-1].content) == normalize(rejected[-1].content):
        raise Malformed("chosen and rejected are the same")
    identity = digest([turn.model_dump() for turn in (*chosen, rejected[-1])])
    return PreferencePair(
        id=identity, prompt=tuple(chosen[:-1]), chosen=chosen[-1].content, rejected=rejected[-1].content
    )


def _files(recipe: Recipe) -> list[Path]:
    return data_files([recipe.resolve(name) for name in recipe.preference.data], "preference.data")


def curate_pairs(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write pairs.jsonl: the recipe's own pairs without malformed ones, repeats, and leaks of the exam.

    Raises:
        DocumentError: a file is missing, or nothing is left.
    """
    leaks = Leaks(run.read_records("exam.jsonl", Question), recipe.curation.ngram)
    kept: dict[str, PreferencePair] = {}
    rejections: list[Rejection] = []
    for place, pair in parsed_lines(_files(recipe), _pair):
        if isinstance(pair, Malformed):
            rejections.append(Rejection(stage=STAGE, id=place, reason=pair.reason, detail=pair.detail))
            continue
        said = (*pair.prompt, Message(role="assistant", content=pair.chosen))
        leak = leaks.find(Sample(id=pair.id, task=OWN, messages=said))
        if pair.id in kept:
            rejections.append(Rejection(stage=STAGE, id=place, reason="duplicate"))
        elif leak:
            rejections.append(Rejection(stage=STAGE, id=place, reason=leak.reason, detail=leak.question))
        else:
            kept[pair.id] = pair
    rejected = run.reject(STAGE, rejections)
    if not kept:
        first = rejections[0] if rejections else None
        raise DocumentError(
            "there is no preference pair to train on",
            f"the first line: {first.id}: {first.reason} {first.detail}".rstrip() if first else "the files are empty",
            'one JSON object per line: {"prompt": "...", "chosen": "...", "rejected": "..."}',
        )
    if rejections:
        console.warning(f"{len(rejections)} of {len(rejections) + len(kept)} preference pairs are left out")
    run.write_records("pairs.jsonl", kept.values())
    return StageSummary(num_in=len(kept) + len(rejections), num_out=len(kept), rejected=rejected)


def pairs_digest(recipe: Recipe) -> str:
    """Return a digest of the contents of the recipe's own pairs."""
    return digest([file_digest(path) for path in _files(recipe)])
