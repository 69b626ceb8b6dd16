"""The tuned model as one GGUF: a certified export where the run has one, else a file of its own, made at first use."""

from __future__ import annotations

from pathlib import Path

from tunewright import console
from tunewright.durable import atomic_folder, file_digest
from tunewright.errors import command, shell
from tunewright.export.gguf import write_model_file
from tunewright.export.ollama import MODEL_FILE
from tunewright.export.receipt import verify
from tunewright.export.swap import RECEIPT, put_back
from tunewright.models.student import student_identity
from tunewright.recipe import Recipe
from tunewright.records import digest
from tunewright.rundir import RunFolder

_FORMAT = 1  # raised when the same ingredients make another file
_MADE_FROM = "made-from"


def tuned_gguf(run: RunFolder, recipe: Recipe, dtype: str) -> Path:
    """Return the file; an older one is reused while adapter, base and type are the same.

    Args:
        run: a run folder with an adapter.
        recipe: the run's.
        dtype: of the matrices: "q8_0", "f16" or "f32".

    Raises:
        ModelError: a family that llama.cpp does not know.
        ExportError: the run's export of this type is damaged.
        DiskFullError: no space; an older file stands.
    """
    adapter = file_digest(run.file("adapter"))
    exported = run.file(f"exports/gguf-{dtype}")
    put_back(exported)
    if (exported / RECEIPT).is_file() and verify(exported)["made_of"]["adapter"] == adapter:
        return exported / MODEL_FILE
    folder = run.file(f"serving/{dtype}")
    made_from, ingredients = folder / _MADE_FROM, digest(_FORMAT, adapter, student_identity(recipe, "cpu"), dtype)
    is_whole = made_from.is_file() and (folder / MODEL_FILE).is_file()
    if is_whole and made_from.read_text(encoding="utf-8") == ingredients:
        return folder / MODEL_FILE
    console.line(f"writing {folder / MODEL_FILE} (once)")
    with run.lock(), atomic_folder(folder) as fresh:
        write_model_file(run, recipe, fresh, dtype, "trained")
        (fresh / _MADE_FROM).write_text(ingredients, encoding="utf-8")
    return folder / MODEL_FILE


def renewal(run: RunFolder, gguf: Path, dtype: str) -> str:
    """Return what to type to get another file in place of this one, which does not load."""
    if (gguf.parent / RECEIPT).is_file():
        return f"export it anew: {command('export', run.path, '--to', 'gguf', '--dtype', dtype)}"
    return f"delete it and start again: {shell('rm', '-r', gguf.parent)}"
