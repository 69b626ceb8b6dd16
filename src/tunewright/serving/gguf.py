"""The tuned model as one GGUF in the run folder: made at first use, and again when what it was made from changed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tunewright import console
from tunewright.export.gguf_model import write_gguf
from tunewright.models.load import load_adapter
from tunewright.models.student import student_base, student_identity, student_tokenizer
from tunewright.models.template import end_ids
from tunewright.recipe import Recipe
from tunewright.records import digest
from tunewright.rundir import RunFolder, file_digest, write_atomic

_FORMAT = 1  # raised when the same ingredients make another file


def tuned_gguf(run: RunFolder, recipe: Recipe, dtype: str) -> Path:
    """Return the file; an older one is reused while adapter, base and type are the same.

    Args:
        run: a run folder with an adapter.
        recipe: the run's.
        dtype: of the matrices: "q8_0", "f16" or "f32".

    Raises:
        ModelError: a family that llama.cpp does not know.
        DiskFullError: no space; an older file stands.
    """
    file = run.file(f"serving/tuned-{dtype}.gguf")
    made_from = file.with_suffix(".made-from")
    ingredients = digest(_FORMAT, file_digest(run.file("adapter")), student_identity(recipe, "cpu"), dtype)
    if file.is_file() and made_from.is_file() and made_from.read_text(encoding="utf-8") == ingredients:
        return file
    console.line(f"writing {file} (once)")
    made_from.unlink(missing_ok=True)
    file.parent.mkdir(exist_ok=True)
    with run.lock(), tempfile.TemporaryDirectory(dir=file.parent) as work:
        _merge(run, recipe, Path(work))
        write_gguf(Path(work), file, dtype)
    write_atomic(made_from, ingredients.encode())
    return file


def _merge(run: RunFolder, recipe: Recipe, folder: Path) -> None:
    """Write base and adapter as one model: the base in the numbers that training saw, merged in fp32."""
    tokenizer = student_tokenizer(recipe)
    model = student_base(recipe, "cpu", tokenizer)
    if getattr(model, "is_quantized", False):
        model = model.dequantize()
    model = load_adapter(model.float(), run.file("adapter"))
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.generation_config.eos_token_id = end_ids(tokenizer, model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
