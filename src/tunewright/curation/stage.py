"""The curate stage: samples and the user's own data in, the training set out, every drop with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tunewright import console
from tunewright.curation.decontaminate import Leaks
from tunewright.curation.duplicates import Duplicates, answered_prompts, prompt_key
from tunewright.curation.own_data import read_own_data
from tunewright.curation.rules import RULES, Sources, anchor, is_refusal, split_prompt
from tunewright.errors import StageError
from tunewright.recipe import Recipe
from tunewright.records import AnyRecord, Chunk, Document, Question, Rejection, Sample, StageSummary
from tunewright.rundir import REJECTED, RunFolder

STAGE = "curate"
_DETAIL_CHARACTERS = 200


class Drop(NamedTuple):
    """Why a sample leaves: a reason that is counted, and a remark such as the sample that it repeats."""

    reason: str
    remark: str = ""
    is_leak: bool = False


Check = Callable[[Sample], Drop | None]


def _records(run: RunFolder, name: str, kind: type[AnyRecord]) -> list[AnyRecord]:
    """Return the records of a file, none when an earlier stage had no cause to write it."""
    return run.read_records(name, kind) if run.file(name).exists() else []


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _DETAIL_CHARACTERS else text[: _DETAIL_CHARACTERS - 1] + "…"


def _rejection(sample: Sample, drop: Drop) -> Rejection:
    """Return the record of a drop, with question and answer, so that the user sees what was dropped."""
    parts = [f"Q: {_shorten(split_prompt(sample.question)[1])}", f"A: {_shorten(sample.answer)}", drop.remark]
    detail = " | ".join(filter(None, parts))
    return Rejection(stage=STAGE, id=sample.id, reason=drop.reason, detail=detail, task=sample.task)


def checks(samples: Sequence[Sample], sources: Sources, leaks: Leaks) -> list[Check]:
    """Return the checks that a sample passes in this order, the cheapest first."""
    recipe = sources.recipe
    duplicates = Duplicates(recipe.curation.near_duplicate)
    answered = answered_prompts(samples, recipe)

    def rules(sample: Sample) -> Drop | None:
        reason = next(filter(None, (rule(sample, sources) for rule in RULES.values())), None)
        return Drop(reason) if reason else None

    def contradicts(sample: Sample) -> Drop | None:
        refused = is_refusal(sample, recipe) and prompt_key(sample) in answered
        return Drop("refuses what another sample answers") if refused else None

    def repeats(sample: Sample) -> Drop | None:
        found = duplicates.find(sample)
        return Drop(found[0], f"repeats {found[1]}") if found else None

    def leak(sample: Sample) -> Drop | None:
        found = leaks.find(sample)
        return Drop(found.reason, f"exam question {found.question}", is_leak=True) if found else None

    return [rules, contradicts, repeats, leak]


def sift(
    samples: Sequence[Sample], sources: Sources, exam: Iterable[Question]
) -> tuple[list[Sample], list[Rejection], dict[str, float | int | str]]:
    """Return the samples kept, in their order, the rejections, and the figures of the leaks.

    ``leaks_left`` looks once more at what was kept: it must be 0.
    """
    leaks = Leaks(exam, sources.recipe.curation.ngram)
    passing = checks(samples, sources, leaks)
    kept: list[Sample] = []
    rejections: list[Rejection] = []
    removed = 0
    with console.progress("curate", len(samples)) as bar:
        for given in samples:
            sample = anchor(given, sources) or given
            drop = next(filter(None, (check(sample) for check in passing)), None)
            if drop is None:
                kept.append(sample)
            else:
                rejections.append(_rejection(sample, drop))
                removed += drop.is_leak
            bar.advance(1)
    left = sum(leaks.find(sample) is not None for sample in kept)
    return kept, rejections, {"leaks_removed": removed, "leaks_left": left}


def _nothing_kept(num_in: int, rejections: Sequence[Rejection], run: RunFolder) -> StageError:
    if not num_in:
        return StageError(
            "there are no samples to curate",
            "the teacher wrote none, and the recipe names no chat data of your own",
            "raise synthesis.samples_per_document, or name your data in synthesis.data",
        )
    top = Counter(rejection.reason for rejection in rejections).most_common(3)
    return StageError(
        f"none of {num_in} samples may enter the training set",
        "dropped because: " + "; ".join(f"{reason} ({count})" for reason, count in top),
        f"look at them in '{run.file(REJECTED)}'; then loosen [curation], or take a stronger teacher",
    )


def _print_funnel(num_in: int, rejected: dict[str, int], num_out: int) -> None:
    drops = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    rows = [("samples in", num_in), *[(f"- {reason}", count) for reason, count in drops], ("kept", num_out)]
    near = rejected.get("near duplicate", 0)
    if near > num_in / 2:
        console.warning(f"{near:,} of {num_in:,} samples are near duplicates; are they? see {REJECTED}")
    console.table("training set", ("reason", "samples"), [(name, f"{count:,}") for name, count in rows])


def curate(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write train.jsonl: the written samples, then the user's own data, without what the checks drop.

    Reads samples.jsonl, exam.jsonl, documents.jsonl and chunks.jsonl where they exist, and the files of
    ``synthesis.data``.

    Raises:
        StageError: nothing is left to train on.
        DocumentError: the user's own data is missing, or none of it is a conversation.
    """
    own, malformed = read_own_data([recipe.resolve(path) for path in recipe.synthesis.data])
    samples = [*_records(run, "samples.jsonl", Sample), *own]
    sources = Sources(
        recipe,
        {document.id: document for document in _records(run, "documents.jsonl", Document)},
        {chunk.id: chunk for chunk in _records(run, "chunks.jsonl", Chunk)},
    )
    exam = _records(run, "exam.jsonl", Question)
    if not exam and samples:
        console.warning("there is no exam: the training data cannot be checked for leaks")
    kept, dropped, figures = sift(samples, sources, exam)
    num_in = len(samples) + len(malformed)
    rejected = run.reject(STAGE, [*malformed, *dropped])
    if num_in:
        _print_funnel(num_in, rejected, len(kept))
    if not kept:
        raise _nothing_kept(num_in, [*malformed, *dropped], run)
    run.write_records("train.jsonl", kept)
    tasks = Counter(sample.task for sample in kept)
    per_task = {f"task {task}": tasks[task] for task in sorted(tasks)}
    return StageSummary(num_in=num_in, num_out=len(kept), rejected=rejected, figures={**per_task, **figures})
