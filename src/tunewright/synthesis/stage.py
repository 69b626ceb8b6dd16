"""The stages exam (write and seal the questions) and synth (write the training samples)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tunewright import console
from tunewright.errors import RecipeError, StageError
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
)
from tunewright.retention.suite import draw, load_suite
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import ANSWERING
from tunewright.statistics.power import detectable_on, exam_power, question_counts, retention_power
from tunewright.storage import file_digest
from tunewright.synthesis import exam as exam_writing
from tunewright.synthesis.context import STAGE, TaskContext
from tunewright.synthesis.exam import read_own_exam
from tunewright.synthesis.questions import chunks_by_document
from tunewright.synthesis.tasks import TASKS, check_tasks, tasks_of
from tunewright.teacher import Teacher, open_teacher
from tunewright.text.injection import PLANTED, injection_fault

EXAM, KEPT, SEAL, SAMPLES = RunFile.EXAM, RunFile.RETENTION, RunFile.SEAL, RunFile.SAMPLES
_RINGS: dict[Side, Ring] = {"train": "learned", "exam": "unseen"}


def _read_sources(run: RunFolder) -> tuple[list[Document], list[Chunk], list[SplitEntry]]:
    """Return documents, chunks and split; empty where a run has none (the user's own data and exam)."""
    if not run.file(RunFile.DOCUMENTS).exists():
        return [], [], []
    return (
        run.read_records(RunFile.DOCUMENTS, Document),
        run.read_records(RunFile.CHUNKS, Chunk),
        run.read_records(RunFile.SPLIT, SplitEntry),
    )


def _harmless(chunks: Sequence[Chunk], stage: str) -> tuple[list[Chunk], list[Rejection]]:
    """Return the chunks that the teacher may see, and the others as rejections: they address a model."""
    shown, rejections = [], []
    for chunk in chunks:
        fault = injection_fault("\n".join([chunk.title, *chunk.section, chunk.text]))
        if fault:
            rejections.append(Rejection(stage=stage, id=chunk.id, reason=PLANTED, detail=fault))
        else:
            shown.append(chunk)
    return shown, rejections


def _figures(teacher: Teacher) -> dict[str, float | int | str]:
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
    return figures


def exam(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write exam.jsonl, from the user's own exam or by the teacher, kept.jsonl, and the seal of both.

    Raises:
        UserError: the user's own exam is wrong.
        TeacherError: the teacher cannot be used; its answers so far are kept.
        StageError: no usable question came out.
    """
    documents, chunks, split = _read_sources(run)
    rings = {entry.document: _RINGS[entry.side] for entry in split}
    figures: dict[str, float | int | str] = {}
    rejections: list[Rejection] = []
    if recipe.exam.file:
        by_id = {document.id: document for document in documents}
        questions = read_own_exam(recipe.resolve(recipe.exam.file), recipe, by_id, rings)
    else:
        chunks, harmful = _harmless(chunks, exam_writing.STAGE)
        with open_teacher(run, recipe.teacher, "exam") as teacher:
            context = TaskContext(recipe, teacher, documents, chunks_by_document(chunks))
            questions, rejections = exam_writing.write_exam(context, rings)
            rejections += harmful
            figures = _figures(teacher)
    rejected = run.reject(exam_writing.STAGE, rejections)
    if not questions:
        raise _nothing("exam question", rejected, recipe.exam.learned_per_document + recipe.exam.unseen_per_document)
    kept = draw(load_suite(), recipe.exam.retention_items, recipe.seed)
    counts = _seal(run, questions, kept)
    figures |= _provable(questions)
    if kept:
        console.line(
            f"  {retention_power(sum(item.kind != 'passage' for item in kept), recipe.evaluation.forgetting_margin)}"
        )
    num_in = len(questions) + sum(rejected.values())  # an unseen question is asked without and with its passage
    return StageSummary(num_in=num_in, num_out=len(questions), rejected=rejected, figures={**counts, **figures})


def _seal(run: RunFolder, questions: Sequence[Question], kept: Sequence[RetentionItem]) -> dict[str, int]:
    """Write the exam's three rings and their seal: SHA-256 and counts; return the counts by ring."""
    run.write_records(EXAM, questions)
    run.write_records(KEPT, kept)
    counts: dict[str, int] = {ring: sum(question.ring == ring for question in questions) for ring in _RINGS.values()}
    digests = {"exam": file_digest(run.file(EXAM)), "kept": file_digest(run.file(KEPT))}
    run.write_json(SEAL, {**digests, "num_questions": len(questions), **counts, "num_kept": len(kept)})
    return {**counts, "kept": len(kept)}


def _provable(questions: Sequence[Question]) -> dict[str, float]:
    """Say what the exam could prove; return the smallest difference, in score, as a figure where there is one."""
    sizes = question_counts(question.document for question in questions)
    console.line(f"  {exam_power(sizes)}")
    return {"mde": round(detectable_on(sizes), 3)} if len(sizes) > 1 else {}


def synth(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write samples.jsonl from the training documents.

    Raises:
        TeacherError: the teacher cannot be used; its answers so far are kept.
        StageError: no sample came out, and the recipe names no chat data of the user's own.
    """
    documents, chunks, split = _read_sources(run)
    train = {entry.document for entry in split if entry.side == "train"}
    learning = [document for document in documents if document.id in train]
    groups = {entry.document: entry.group for entry in split}
    samples: dict[str, Sample] = {}
    rejections: list[Rejection] = []
    figures: dict[str, float | int | str] = {}
    tried = 0
    names = tasks_of(recipe)
    check_tasks(names, recipe)
    if names:
        with open_teacher(run, recipe.teacher, "synth") as teacher:
            own_chunks, harmful = _harmless([chunk for chunk in chunks if chunk.document in train], STAGE)
            tried += len(harmful)
            rejections += harmful
            context = TaskContext(recipe, teacher, learning, chunks_by_document(own_chunks), groups)
            for name in names:
                result = TASKS[name](context, [sample for sample in samples.values() if sample.task in ANSWERING])
                tried += result.num_tried
                rejections += result.rejections
                rejections += _add(samples, result.samples)
                figures |= result.figures
            figures |= _figures(teacher)
    rejected = run.reject(STAGE, rejections)
    if not samples and not recipe.synthesis.data:
        raise _nothing("training sample", rejected, len(tasks_of(recipe)))
    if not samples:
        console.line("  no samples written: training uses your own data")
    run.write_records(SAMPLES, samples.values())
    counts: Counter[str] = Counter(sample.task for sample in samples.values())
    return StageSummary(num_in=tried, num_out=len(samples), rejected=rejected, figures={**dict(counts), **figures})


def _add(samples: dict[str, Sample], result: Sequence[Sample]) -> list[Rejection]:
    """Add samples by identifier; return those that are there already as rejections."""
    repeated = []
    for sample in result:
        if sample.id in samples:
            repeated.append(
                Rejection(stage=STAGE, id=sample.id, reason="written twice", detail=sample.question, task=sample.task)
            )
        samples.setdefault(sample.id, sample)
    return repeated


def _nothing(what: str, rejected: dict[str, int], wanted: int) -> StageError | RecipeError:
    """Return the error for a stage that wrote nothing."""
    if not wanted:
        return RecipeError(
            f"no {what} is asked for",
            "the recipe's counts per document are 0, and it names no file of your own",
            "raise exam.unseen_per_document and synthesis.samples_per_document, or set exam.file and synthesis.data",
        )
    reasons = ", ".join(f"{reason} ({count})" for reason, count in rejected.items())
    return StageError(
        f"the teacher wrote no usable {what}",
        reasons or "no document gave anything to ask about",
        "look at rejected.jsonl in the run folder; then take a stronger teacher (teacher.url) or other documents",
    )
