"""Drawing a learning curve: the same training on parts of the data, each part's adapter before the same exam."""

from __future__ import annotations

from pathlib import Path

from tunewright import console, distributed, pipeline
from tunewright.errors import RecipeError, UserError
from tunewright.evaluation.answering import all_answers
from tunewright.metrics import score
from tunewright.models.model_pool import ModelWeights
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Question
from tunewright.reporting.learning_curve import LearningCurve, curve_part, curve_sentences, curve_table, forecast
from tunewright.run_folder import RunFile, RunFolder
from tunewright.stages import stages_of
from tunewright.storage import file_digest
from tunewright.training.stage import write_subsets

PARTS = (25, 50)  # percent; the whole is the run's own adapter
WHOLE = 100


def draw_curve(recipe: Recipe, folder: Path) -> LearningCurve:
    """Train on the parts, evaluate each adapter on the exam, write curve.json, and write the report with it.

    The stages that the run lacks run first. After any stop the same call continues: trainings from their checkpoints,
    answers from the journal.

    Raises:
        RecipeError: in a launch of several processes.
        UserError: there is too little data to part.
    """
    if distributed.processes().world_size > 1:
        raise RecipeError(
            "a learning curve is drawn by one process",
            "this is a launch of several",
            "train with the launcher first (tunewright run), then run learning-curve without it",
        )
    run = pipeline.run(recipe, folder, until="evaluate")
    recipe = load_recipe(run.file(RunFile.RECIPE))  # with the system prompt that its own chats decided
    with run.lock():
        sizes = _train_parts(run, recipe)
        curve = _evaluate(run, recipe, sizes)
        run.write(RunFile.CURVE, curve.model_dump_json(indent=2) + "\n")
    pipeline.run(recipe, folder, only=("report",))
    console.table("learning curve", *curve_table(curve))
    for line in curve_sentences(curve):
        console.line(f"  {line}")
    console.line(f"\n  {'report.html'.ljust(16)}{run.file('report.html').absolute()}")
    return curve


def _folder(run: RunFolder, percent: int) -> RunFolder:
    return RunFolder(run.file(f"curve/{percent}"))


def _train_parts(run: RunFolder, recipe: Recipe) -> dict[int, int]:
    """Train each part that is not fresh; return the size of each part, and of the whole."""
    stage = next(stage for stage in stages_of(recipe) if stage.name == "train")
    folders = {percent: _folder(run, percent) for percent in PARTS}
    sizes = dict(zip((*PARTS, WHOLE), write_subsets(run, recipe, folders), strict=True))
    for folder in folders.values():
        folder.note()
    if len(set(sizes.values())) < len(sizes):
        raise UserError(
            "there is too little training data for a learning curve",
            f"its subsets would have {', '.join(str(size) for size in sizes.values())} samples",
            "add documents, or raise synthesis.samples_per_document",
        )
    for percent in PARTS:
        pipeline.refresh(_folder(run, percent), recipe, stage, f"[{percent} % of the data]")
    return sizes


def _evaluate(run: RunFolder, recipe: Recipe, sizes: dict[int, int]) -> LearningCurve:
    adapters = {percent: _folder(run, percent).file(RunFile.ADAPTER) for percent in PARTS} | {
        WHOLE: run.file(RunFile.ADAPTER)
    }
    questions = run.read_records(RunFile.EXAM, Question)
    known = {question.id: question for question in questions}
    weights = {f"{percent} %": ModelWeights.of(recipe, adapter) for percent, adapter in adapters.items()}
    answers = all_answers(run.journal(RunFile.ANSWERS_JOURNAL), recipe, questions, weights)[0]
    scores = [score(known[answer.question], answer, recipe.refusal) for answer in answers]
    parts, scores_by_arm = [], []
    for percent, adapter in adapters.items():
        own = [row for row in scores if row.arm == f"{percent} %"]
        own_answers = [answer for answer in answers if answer.arm == f"{percent} %"]
        parts.append(curve_part(percent, sizes[percent], file_digest(adapter), questions, own, own_answers))
        scores_by_arm.append({row.question: row.primary for row in own})
    documents = {question.id: question.document for question in questions}
    ahead = forecast(list(sizes.values()), scores_by_arm, documents)
    return LearningCurve(exam=file_digest(run.file(RunFile.EXAM)), parts=tuple(parts), forecast=ahead)
