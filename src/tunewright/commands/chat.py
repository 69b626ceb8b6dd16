"""The command chat: open a run, load the chosen models, and converse."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.chat.loop import Chat, converse
from tunewright.chat.models import ChatModels
from tunewright.chat.sources import Sources
from tunewright.chat.terminal import at_keyboard
from tunewright.evaluation.stage import read_training_samples
from tunewright.pipeline import require
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Chunk, Document, SplitEntry
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm


def chat(run: RunFolder, arms: Sequence[str], prompt: str | None) -> None:
    """Answer one prompt, or each line of standard input until it ends.

    Args:
        run: a run folder.
        arms: "base", "tuned" or both, until a command of the chat names others.
        prompt: one question, or None to read lines.

    Raises:
        RunFolderError: the run has no recipe, or no adapter for the tuned model.
    """
    require(run, RunFile.RECIPE, *((RunFile.ADAPTER,) if Arm.TUNED in arms else ()))
    recipe = load_recipe(run.file(RunFile.RECIPE))
    conversation = Chat(
        title=f"A conversation with {run.path.resolve().name}",
        models=ChatModels(recipe, run.file(RunFile.ADAPTER)),
        arms=tuple(arms),
        keyboard=prompt is None and at_keyboard(),
        read_sources=lambda: _sources(run, recipe),
    )
    converse(conversation, prompt)


def _sources(run: RunFolder, recipe: Recipe) -> Sources:
    documents = run.records_if_any(RunFile.DOCUMENTS, Document)
    titles = {document.id: document.title for document in documents}
    train_side = {e.document for e in run.records_if_any(RunFile.SPLIT, SplitEntry) if e.side == "train"}
    chunks = [chunk for chunk in run.records_if_any(RunFile.CHUNKS, Chunk) if chunk.document in train_side]
    return Sources(read_training_samples(run, recipe), chunks, titles, run.path)
