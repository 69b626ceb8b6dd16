"""The stages exam (write and seal the questions) and synth (write the training samples)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tunewright import console
from tunewright.errors import RecipeError, StageError
from tunewright.models.data_sources import exam_name, exam_path
from tunewright.recipe import Recipe
from tunewright.records import (
    Chunk,
    Document,
    Question,
    Rejection,
    RetentionItem,
    Ring,
    Sample,
    Side,
    SplitEntry,
    StageSummary,
    read_jsonl,
)
from tunewright.retention.suite import draw, load_suite
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import ANSWERING
from tunewright.statistics.power import detectable_on, exam_power, question_counts, retention_power
from tunewright.storage import file_digest
from tunewright.synthesis.context import EXAM_STAGE, SYNTH_STAGE, Focus, TaskContext
from tunewright.synthesis.exam import held_out_questions, without_planted, without_too_long, write_exam
from tunewright.synthesis.own_exam import CONTRADICTED, read_own_exam
from tunewright.synthesis.questions import chunks_by_document
from tunewright.synthesis.tasks import TASKS, check_tasks, tasks_of
from tunewright.teacher import Teacher, open_teacher
from tunewright.text.injection import PLANTED, injection_fault
from tunewright.text.remedies import reasons_text, remedy

_RINGS: dict[Side, Ring] = {"train": "learned", "exam": "unseen"}


def _read_sources(run: RunFolder) -> tuple[list[Document], list[Chunk], list[SplitEntry]]:
    """Return documents, chunks and split; empty if the run has none (the user's own data and exam)."""
    if not run.file(RunFile.DOCUMENTS).exists():
        return [], [], []
    return (
        run.read_records(RunFile.DOCUMENTS, Document),
        run.read_records(RunFile.CHUNKS, Chunk),
        run.read_records(RunFile.SPLIT, SplitEntry),
    )


def _without_injections(chunks: Sequence[Chunk], stage: str) -> tuple[list[Chunk], list[Rejection]]:
    """Return the chunks that the teacher may see, and rejections of those that address a model."""
    harmless, rejections = [], []
    for chunk in chunks:
        fault = injection_fault("\n".join([chunk.title, *chunk.section, chunk.text]))
        if fault:
            rejections.append(Rejection(stage=stage, id=chunk.id, reason=PLANTED, detail=fault))
        else:
            harmless.append(chunk)
    return harmless, rejections


def _teacher_figures(teacher: Teacher) -> dict[str, float | int | str]:
    figures: dict[str, float | int | str] = {
        "teacher_calls": teacher.num_calls,
        "from_journal": teacher.num_from_journal,
        "failed_calls": teacher.num_failed,
        "prompt_tokens": teacher.num_prompt_tokens,
        "written_tokens": teacher.num_tokens,
    }
    if teacher.num_calls:
        figures["teacher_seconds"] = round(teacher.seconds, 1)
    if teacher.cost:
        figures["cost_usd"] = round(teacher.cost, 6)
    return figures | teacher.notes()


def exam(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write exam.jsonl, kept.jsonl (retention items), and the seal of both.

    The questions are the user's own exam; or held-out chats, the teacher's questions on the documents, or both.

    Raises:
        UserError: the user's own exam is wrong.
        RecipeError: the recipe requests no questions.
        TeacherError: the teacher cannot be used; its answers so far stay in the journal.
        StageError: the teacher wrote no usable question.
    """
    documents, chunks, split = _read_sources(run)
    rings = {entry.document: _RINGS[entry.side] for entry in split}
    figures: dict[str, float | int | str] = {}
    rejections: list[Rejection] = []
    if recipe.exam.file:
        by_id = {document.id: document for document in documents}
        questions, rejections = read_own_exam(
            exam_path(recipe), recipe.refusal, by_id, rings, recipe.synthesis.columns, exam_name(recipe)
        )
        _warn_of_repeats(rejections)
    else:
        questions = []
    if recipe.holds_out_data:
        questions = held_out_questions(run.read_records(RunFile.HELD_OUT, Sample), recipe.refusal)
    questions, planted = without_planted(questions, own=True)
    rejections = [*rejections, *planted]
    if planted:
        console.warning(f"{len(planted)} questions of yours hold control tokens of chat templates and are left out")
    if documents and not recipe.exam.file:
        chunks, harmful = _without_injections(chunks, EXAM_STAGE)
        with open_teacher(run.journal(RunFile.TEACHER_JOURNAL), recipe.writer, EXAM_STAGE) as teacher:
            context = TaskContext(recipe, teacher, documents, chunks_by_document(chunks))
            written, faulty = write_exam(context, rings)
            written, planted = without_planted(written, own=False)
            questions += written
            rejections = [*rejections, *faulty, *harmful, *planted]
            figures = _teacher_figures(teacher)
    questions, too_long = without_too_long(questions, recipe)
    rejections = [*rejections, *too_long]
    rejected = run.reject(EXAM_STAGE, rejections)
    if not questions:
        num_per_document = recipe.exam.learned_per_document + recipe.exam.unseen_per_document
        raise _nothing_written("exam question", rejections, num_per_document, documents)
    items = draw(load_suite(), recipe.exam.retention_items, recipe.seed)
    counts = _write_and_seal(run, questions, items)
    sizes = question_counts(question.document for question in questions)
    console.line(f"  {exam_power(sizes)}")
    if len(sizes) > 1:
        figures["mde"] = round(detectable_on(sizes), 3)
    if items:
        num_scored = sum(item.kind != "passage" for item in items)
        console.line(f"  {retention_power(num_scored, recipe.evaluation.forgetting_margin)}")
    num_in = len(questions) + sum(rejected.values())  # an unseen question counts twice: without and with its passage
    return StageSummary(num_in=num_in, num_out=len(questions), rejected=rejected, figures={**counts, **figures})


def _warn_of_repeats(rejections: Sequence[Rejection]) -> None:
    """Show how many rows of the user's own exam repeat a question, and name those that contradict its first answer."""
    other = [rejection.detail.partition(":")[0] for rejection in rejections if rejection.reason == CONTRADICTED]
    if rejections:
        console.line(f"  rows that repeat an earlier question and are left out: {len(rejections)}")
    if other:
        shown = ", ".join(other[:10]) + (f" and {len(other) - 10} more" if len(other) > 10 else "")
        console.warning(
            f"another answer than the first is given to a repeated question: {shown}; the first counts "
            "(several right answers: one row, separated by ||)"
        )


def _write_and_seal(run: RunFolder, questions: Sequence[Question], items: Sequence[RetentionItem]) -> dict[str, int]:
    """Write the exam, the retention items and their seal (SHA-256 and counts); return the counts."""
    run.write_records(RunFile.EXAM, questions)
    run.write_records(RunFile.RETENTION, items)
    counts: dict[str, int] = {ring: sum(question.ring == ring for question in questions) for ring in _RINGS.values()}
    digests = {"exam": file_digest(run.file(RunFile.EXAM)), "kept": file_digest(run.file(RunFile.RETENTION))}
    run.write_json(RunFile.SEAL, {**digests, "num_questions": len(questions), **counts, "num_kept": len(items)})
    return {**counts, "kept": len(items)}


def synth(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write samples.jsonl from the training documents.

    Raises:
        RecipeError: the recipe requests no samples and names no own data, or a task lacks a setting.
        TeacherError: the teacher cannot be used; its answers so far stay in the journal.
        StageError: the teacher wrote no usable sample, and the recipe names no own data.
    """
    documents, chunks, split = _read_sources(run)
    train = {entry.document for entry in split if entry.side == "train"}
    train_documents = [document for document in documents if document.id in train]
    groups = {entry.document: entry.group for entry in split}
    samples: dict[str, Sample] = {}
    rejections: list[Rejection] = []
    figures: dict[str, float | int | str] = {}
    num_tried = 0
    names = tasks_of(recipe)
    check_tasks(names, recipe)
    if names:
        with open_teacher(run.journal(RunFile.TEACHER_JOURNAL), recipe.writer, SYNTH_STAGE) as teacher:
            train_chunks, harmful = _without_injections([c for c in chunks if c.document in train], SYNTH_STAGE)
            num_tried += len(harmful)
            rejections += harmful
            chunks_of = chunks_by_document(train_chunks)
            context = TaskContext(recipe, teacher, train_documents, chunks_of, groups, _focus(recipe))
            for name in names:
                result = TASKS[name](context, [sample for sample in samples.values() if sample.task in ANSWERING])
                num_tried += result.num_tried
                rejections += result.rejections
                rejections += _add_new(samples, result.samples)
                figures |= result.figures
            figures |= _teacher_figures(teacher)
    rejected = run.reject(SYNTH_STAGE, rejections)
    if not samples and not recipe.synthesis.data:
        raise _nothing_written("training sample", rejections, len(names), train_documents)
    if not samples:
        console.line("  no samples written: training uses your own data")
    run.write_records(RunFile.SAMPLES, samples.values())
    counts: Counter[str] = Counter(sample.task for sample in samples.values())
    return StageSummary(num_in=num_tried, num_out=len(samples), rejected=rejected, figures={**dict(counts), **figures})


def _focus(recipe: Recipe) -> dict[tuple[str, int], Focus] | None:
    """Return the sentences that the recipe asks about alone; None where it asks about all."""
    if not recipe.synthesis.focus:
        return None
    listed = read_jsonl(recipe.resolve(recipe.synthesis.focus), Focus)
    return {(focus.document, focus.start): focus for focus in listed}


def _add_new(samples: dict[str, Sample], written: Sequence[Sample]) -> list[Rejection]:
    """Add samples by identifier; return rejections of those whose identifier is already present."""
    repeated = []
    for sample in written:
        if sample.id in samples:
            repeated.append(
                Rejection(
                    stage=SYNTH_STAGE, id=sample.id, reason="written twice", detail=sample.question, task=sample.task
                )
            )
        samples.setdefault(sample.id, sample)
    return repeated


def _nothing_written(
    what: str, rejections: Sequence[Rejection], num_requested: int, documents: Sequence[Document]
) -> StageError | RecipeError:
    """Return the error of a stage that wrote nothing; the hint follows from the reasons."""
    if not num_requested:
        return RecipeError(
            f"the recipe requests no {what}",
            "its counts per document are 0, and it names no file of your own",
            "raise exam.unseen_per_document and synthesis.samples_per_document, or set exam.file and synthesis.data",
        )
    if not rejections:
        return StageError(
            f"no {what} was written",
            f"{len(documents)} documents are on its side of the split, and none of them was asked about",
            "add documents, change split.exam_share, or raise the counts per document",
        )
    return StageError(
        f"no usable {what} was written: all {len(rejections)} attempts were rejected",
        reasons_text(rejections),
        f"read them in {RunFile.REJECTED} in the run folder; then {remedy(rejections)}",
    )
