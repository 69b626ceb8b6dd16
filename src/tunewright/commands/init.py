"""A recipe fitted to the documents and to this machine; and the demo's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunewright import console
from tunewright.documents.stage import source_files
from tunewright.environment import __version__
from tunewright.errors import DocumentError, command
from tunewright.recipe import Recipe, at_home, dump_recipe
from tunewright.settings import (
    DocumentSettings,
    EvaluationSettings,
    ExamSettings,
    ModelSettings,
    SynthesisSettings,
    TrainingSettings,
)
from tunewright.statistics.power import LEAST_DOCUMENTS
from tunewright.storage import write_output

_BYTES_PER_SAMPLE = 200  # of source text: about one fact in two sentences
_WANTED_QUESTIONS = 60  # per ring: enough to see a difference of about a quarter
_ANSWER_TOKENS = 128
_FEW_DOCUMENTS = 20
_GPU_BASE = "Qwen/Qwen2.5-7B-Instruct"


def demo_recipe() -> Recipe:
    """Return the recipe of ``tunewright demo``: small enough for two CPU cores and nine minutes."""
    from tunewright.examples import abstracts_folder

    return Recipe(
        documents=DocumentSettings(paths=(str(abstracts_folder()),), chunk_tokens=128),
        exam=ExamSettings(learned_per_document=1, unseen_per_document=2),
        synthesis=SynthesisSettings(samples_per_document=5, refusal_share=0.1),
        training=TrainingSettings(epochs=4, batch_size=8, learning_rate=7e-4, checkpoint_steps=10),
        evaluation=EvaluationSettings(rag_passages=1, few_shot=2, max_new_tokens=_ANSWER_TOKENS),
    )


# What people change first, beside what was decided for them.
_OFTEN_CHANGED = ("documents.paths", "teacher.url", "teacher.model", "teacher.api_key_env", "synthesis.tasks")


def write_recipe(documents: Sequence[Path], output: Path, force: bool, full: bool = False) -> None:
    """Write an annotated recipe for these documents; ``full`` writes every setting.

    Raises:
        RecipeError: the file exists and ``force`` is not given, or it cannot be written.
        DocumentError: no documents at these paths.
    """
    if missing := [str(path) for path in documents if not at_home(path).exists()]:
        raise DocumentError(f"{missing[0]} does not exist", "", "name documents, or a folder with documents")
    folder = output.parent.absolute()
    paths = tuple(_relative(path, folder) for path in documents)
    draft = Recipe(documents=DocumentSettings(paths=paths), folder=folder)
    files = source_files(draft)
    if not files:
        raise DocumentError(
            "no documents found", ", ".join(map(str, documents)), "name documents, or a folder with documents"
        )
    recipe, notes = _fit(draft, len(files), sum(path.stat().st_size for _, path in files))
    header = (
        f"# A recipe of tunewright {__version__} for {len(files)} file(s). All settings: init --full.\n"
        f"# See what it will do:  {command('plan', output)}\n"
        f"# Run it:               {command('run', output)}\n"
    )
    text = dump_recipe(recipe, notes) if full else dump_recipe(recipe, notes, {*notes, *_OFTEN_CHANGED})
    write_output(output, header + text, force)
    console.line(f"wrote {output} for {len(files)} file(s)")
    for key, note in notes.items():
        console.line(f"  {key}: {note}")
    if len(files) < _FEW_DOCUMENTS:
        console.warning(
            f"{len(files)} file(s): with fewer than about {_FEW_DOCUMENTS} documents an exam can hardly prove "
            f"anything, and with fewer than {LEAST_DOCUMENTS} it gives no verdict"
        )
    console.line(f"next: {command('plan', output)}")


def _relative(path: Path, folder: Path) -> str:
    absolute = at_home(path).absolute()
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)


def _fit(draft: Recipe, num_files: int, num_bytes: int) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with the derived values, and the reason of each."""
    notes: dict[str, str] = {}
    samples = max(4, min(40, num_bytes // num_files // _BYTES_PER_SAMPLE))
    notes["synthesis.samples_per_document"] = f"one per {_BYTES_PER_SAMPLE} bytes of an average file"
    held_out = max(1, round(num_files * draft.split.exam_share))
    unseen = max(2, min(8, -(-_WANTED_QUESTIONS // held_out)))
    learned = max(1, min(4, -(-_WANTED_QUESTIONS // max(1, num_files - held_out))))
    notes["exam.unseen_per_document"] = f"about {_WANTED_QUESTIONS} questions over {held_out} held-out document(s)"
    notes["exam.learned_per_document"] = f"about {_WANTED_QUESTIONS} questions over {num_files - held_out} document(s)"
    model, training = draft.model, draft.training
    memory_gib = _gpu_memory_gib()
    if memory_gib >= 12:
        model = ModelSettings(base=_GPU_BASE)
        training = TrainingSettings()
        notes["model.base"] = f"this machine has a GPU with {memory_gib:.0f} GiB; any hub name or folder will do"
    else:
        training = TrainingSettings(batch_size=8, learning_rate=5e-4)
        notes["model.base"] = "no GPU of 12 GiB or more here: the embedded 135M model; on one, a hub name of a 7B model"
        notes["training.learning_rate"] = "small models need a higher one"
        notes["training.batch_size"] = "small data sets gain from more steps"
    notes["teacher.url"] = (
        "the embedded teacher is small; a stronger one at an OpenAI-compatible URL writes better data"
    )
    notes["evaluation.max_new_tokens"] = "a verdict needs whole answers; raise it where the report counts cut ones"
    fitted = draft.model_copy(
        update={
            "exam": ExamSettings(learned_per_document=learned, unseen_per_document=unseen),
            "synthesis": SynthesisSettings(samples_per_document=samples),
            "model": model,
            "training": training,
            "evaluation": EvaluationSettings(max_new_tokens=_ANSWER_TOKENS),
        }
    )
    return fitted, notes


def _gpu_memory_gib() -> float:
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else 0.0
