"""The table of tasks that write training samples; a new task is a function in this package and an entry in TASKS."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.recipe import Recipe
from tunewright.records import GENERAL, VIEW
from tunewright.synthesis.context import TaskFunction
from tunewright.synthesis.dialogues import dialogue
from tunewright.synthesis.extraction import extraction, read_schema
from tunewright.synthesis.magpie import general, user_header
from tunewright.synthesis.question_answering import free_qa
from tunewright.synthesis.refusals import premise, refusal, unanswerable
from tunewright.synthesis.rewrites import views
from tunewright.synthesis.sentence_questions import answer_first, passage_qa


def tasks_of(recipe: Recipe) -> list[str]:
    """Return the names of a recipe's tasks, in the order in which they run."""
    settings = recipe.synthesis
    if recipe.training.text_share == 1 and not recipe.preference.make:
        return [VIEW] if settings.views else []  # chats would cost calls and never be trained on
    some = settings.samples_per_document > 0 or settings.coverage > 0
    selected = {name: name in settings.tasks and some for name in TASKS}
    selected[GENERAL] = settings.general_samples > 0
    selected[VIEW] = settings.views > 0
    selected["extraction"] = "extraction" in settings.tasks
    return [name for name in TASKS if selected[name]]


def check_tasks(names: Sequence[str], recipe: Recipe) -> None:
    """Check what the tasks need from the recipe, before the first call is paid for.

    Raises:
        RecipeError: the extraction schema or the teacher's user header cannot be used.
    """
    if "extraction" in names:
        read_schema(recipe.resolve(recipe.synthesis.extraction_schema))
    if GENERAL in names:
        user_header(recipe)


# The order in which they run: later tasks build on the answered samples of earlier ones.
TASKS: dict[str, TaskFunction] = {
    "answer-first": answer_first,
    "passage-qa": passage_qa,
    "free-qa": free_qa,
    "refusal": refusal,
    "unanswerable": unanswerable,
    "premise": premise,
    "dialogue": dialogue,
    "extraction": extraction,
    GENERAL: general,
    VIEW: views,
}
