"""The tasks that write training samples; a new task is a function in this package and an entry in TASKS."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.recipe import Recipe
from tunewright.records import GENERAL, VIEW
from tunewright.synthesis.context import Task
from tunewright.synthesis.dialogues import dialogue
from tunewright.synthesis.extraction import extraction, read_schema
from tunewright.synthesis.magpie import general, user_header
from tunewright.synthesis.question_answering import answer_first, free_qa
from tunewright.synthesis.refusals import premise, refusal, unanswerable
from tunewright.synthesis.rewrites import views


def tasks_of(recipe: Recipe) -> list[str]:
    """Return the names of the tasks that a recipe asks for, in the order in which they run."""
    settings = recipe.synthesis
    if recipe.training.text_share == 1 and not recipe.preference.make:
        return [VIEW] if settings.views else []  # chats would be paid for and never trained on
    asked = {name: name in settings.tasks and settings.samples_per_document > 0 for name in TASKS}
    asked[GENERAL] = settings.general_samples > 0
    asked[VIEW] = settings.views > 0
    asked["extraction"] = "extraction" in settings.tasks
    return [name for name in TASKS if asked[name]]


def check(names: Sequence[str], recipe: Recipe) -> None:
    """See that nothing which tasks need from the recipe is missing, before any call is paid.

    Raises:
        RecipeError: the schema of what is extracted, or the teacher's user header, cannot be used.
    """
    if "extraction" in names:
        read_schema(recipe.resolve(recipe.synthesis.extraction_schema))
    if GENERAL in names:
        user_header(recipe)


# Run in this order.
TASKS: dict[str, Task] = {
    "answer-first": answer_first,
    "free-qa": free_qa,
    "refusal": refusal,
    "unanswerable": unanswerable,
    "premise": premise,
    "dialogue": dialogue,
    "extraction": extraction,
    GENERAL: general,
    VIEW: views,
}
