"""The curate stage: samples and the user's own data in, the training set out, every drop with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tunewright import console
from tunewright.curation.chat_formats import read_own_data
from tunewright.curation.decontamination import look_again
from tunewright.curation.filters import STAGE, pass_through, rules_for
from tunewright.curation.sample_rules import Sources, answered_quotes
from tunewright.curation.student_sampling import write_rewards
from tunewright.curation.teacher_checks import check_by_teacher
from tunewright.errors import StageError
from tunewright.models.tensors import TokenVectors, read_token_vectors
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Question, Rejection, Sample, StageSummary
from tunewright.run_folder import RunFile, RunFolder
from tunewright.teacher import open_teacher
from tunewright.teacher.protocol import TeacherLike

Figures = dict[str, float | int | str]


def sift(
    samples: Sequence[Sample],
    sources: Sources,
    exam: Sequence[Question],
    vectors: TokenVectors | None = None,
    teacher: TeacherLike | None = None,
) -> tuple[list[Sample], list[Rejection], Figures]:
    """Return the samples kept, in their order, the rejections, and the figures.

    The figures: drops by rule, leaks removed and their share of all samples by detector, and the leaks that a second,
    independent look still finds (``leaks_left``) in the samples that it looked at (``leaks_looked_at``).
    """
    sifted = pass_through(samples, rules_for(samples, sources, exam, vectors, teacher))
    kept, rejections, checked = sifted.kept, sifted.rejections, Figures()
    if teacher and sources.recipe.curation.checks:
        kept, more, checked = check_by_teacher(kept, sources, teacher)
        rejections = [*rejections, *more]
    left, num_checked = look_again(kept, exam, sources.recipe.curation.ngram)
    if left:
        console.warning(f"{len(left)} of {num_checked:,} samples still hold exam evidence, such as sample {left[0]}")
    figures: Figures = {f"dropped by {name}": count for name, count in sifted.dropped_by.items() if count}
    figures |= {f"leak rate: {reason}": round(n / len(samples), 6) for reason, n in sorted(sifted.leaks.items()) if n}
    figures |= {"leaks_removed": sifted.leaks.total(), "leaks_left": len(left), "leaks_looked_at": num_checked}
    return kept, rejections, figures | checked


@contextmanager
def _opened(
    run: RunFolder, recipe: Recipe, exam: Sequence[Question]
) -> Iterator[tuple[TokenVectors | None, TeacherLike | None]]:
    """Yield what the recipe's costlier rules need: the student's token vectors, and the teacher when it is asked."""
    check = recipe.curation.paraphrase_check and bool(exam)
    vectors = None
    if recipe.curation.embedding_duplicate or check:
        vectors = read_token_vectors(recipe.model.base, recipe.folder)
    check = check or bool(recipe.curation.checks)
    with ExitStack() as opened:
        teacher = (
            opened.enter_context(open_teacher(run.journal(RunFile.TEACHER_JOURNAL), recipe.teacher, STAGE))
            if check
            else None
        )
        yield vectors, teacher


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
        f"look at them in '{run.file(RunFile.REJECTED)}'; then loosen [curation], or take a stronger teacher",
    )


def _print_funnel(num_in: int, rejected: dict[str, int], num_out: int) -> None:
    drops = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    rows = [("samples in", num_in), *[(f"- {reason}", count) for reason, count in drops], ("kept", num_out)]
    near = rejected.get("near duplicate", 0)
    if near > num_in / 2:
        console.warning(f"{near:,} of {num_in:,} samples are near duplicates; are they? see {RunFile.REJECTED}")
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
    samples = [*run.records_if_any(RunFile.SAMPLES, Sample), *own]
    sources = Sources(
        recipe,
        {document.id: document for document in run.records_if_any(RunFile.DOCUMENTS, Document)},
        {chunk.id: chunk for chunk in run.records_if_any(RunFile.CHUNKS, Chunk)},
        answered_quotes(samples, recipe.refusal),
    )
    exam = run.records_if_any(RunFile.EXAM, Question)
    if not exam and samples:
        console.warning("there is no exam: the training data cannot be checked for leaks")
    with _opened(run, recipe, exam if samples else []) as (vectors, teacher):
        kept, dropped, figures = sift(samples, sources, exam, vectors, teacher)
    num_in = len(samples) + len(malformed)
    rejected = run.reject(STAGE, [*malformed, *dropped])
    if num_in:
        _print_funnel(num_in, rejected, len(kept))
    if not kept:
        raise _nothing_kept(num_in, [*malformed, *dropped], run)
    run.write_records(RunFile.TRAIN, kept)
    figures |= write_rewards(run, kept, recipe)
    tasks = Counter(sample.task for sample in kept)
    per_task = {f"task {task}": tasks[task] for task in sorted(tasks)}
    return StageSummary(num_in=num_in, num_out=len(kept), rejected=rejected, figures={**per_task, **figures})
