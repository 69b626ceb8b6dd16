"""The curate stage: samples and the user's own data in, the training set out, every drop with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tunewright import console
from tunewright.curation.decontaminate import Leaks
from tunewright.curation.own_data import read_own_data
from tunewright.curation.rules import Sources
from tunewright.curation.sieve import STAGE, pass_through, rules_for
from tunewright.errors import StageError
from tunewright.recipe import Recipe
from tunewright.records import AnyRecord, Chunk, Document, Question, Rejection, Sample, StageSummary
from tunewright.rundir import REJECTED, RunFolder


def _records(run: RunFolder, name: str, kind: type[AnyRecord]) -> list[AnyRecord]:
    """Return the records of a file, none when an earlier stage had no cause to write it."""
    return run.read_records(name, kind) if run.file(name).exists() else []


def sift(
    samples: Sequence[Sample], sources: Sources, exam: Iterable[Question]
) -> tuple[list[Sample], list[Rejection], dict[str, float | int | str]]:
    """Return the samples kept, in their order, the rejections, and the figures: drops by rule, and the leaks."""
    leaks = Leaks(exam, sources.recipe.curation.ngram)
    sifted = pass_through(samples, rules_for(samples, sources, leaks))
    left = sum(leaks.find(sample) is not None for sample in sifted.kept)
    figures: dict[str, float | int | str] = {
        **{f"dropped by {name}": count for name, count in sifted.dropped_by.items() if count},
        "leaks_removed": sifted.leaks.total(),
        "leaks_left": left,
    }
    return sifted.kept, sifted.rejections, figures


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
