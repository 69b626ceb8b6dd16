"""The adapter as an export: peft's format with the tokenizer, for programs that put it on the base themselves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunewright.errors import RunFolderError, command
from tunewright.export.base_model import public_config, read_base
from tunewright.export.target import Base, HFRunner, Runner
from tunewright.export.tokenizer import write_tokenizer
from tunewright.models.loading import compute_dtype, for_inference, is_full, load_adapter, load_base, pick_device
from tunewright.models.source import locate
from tunewright.models.student import student_base
from tunewright.recipe import Recipe
from tunewright.run_folder import RunFile, RunFolder

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write_adapter(run: RunFolder, recipe: Recipe, folder: Path, dtype: str, base: Base) -> None:
    """Copy the adapter as it was trained, with its tokenizer and chat template; its base goes by its public name.

    Raises:
        RunFolderError: all weights were trained, so there is no adapter.
    """
    if is_full(run.file(RunFile.ADAPTER)):
        raise RunFolderError(
            f"{run.path} has no adapter of its own",
            'training.method is "full": every weight was trained',
            command("export", run.path, "--to", "merged"),
        )
    write_tokenizer(recipe, folder)
    known = read_base(recipe.model.base, recipe.folder)
    (folder / _CONFIG).write_bytes(public_config(run.file(RunFile.ADAPTER) / _CONFIG, known))
    shutil.copyfile(run.file(RunFile.ADAPTER) / _WEIGHTS, folder / _WEIGHTS)


def adapter_bytes(run: RunFolder, recipe: Recipe, dtype: str) -> int:
    """Return the adapter's size, its tokenizer included."""
    return sum(file.stat().st_size for file in run.file(RunFile.ADAPTER).rglob("*") if file.is_file())


@contextmanager
def adapter_runner(run: RunFolder, recipe: Recipe, folder: Path, dtype: str, base: Base) -> Iterator[Runner]:
    """Open an exported adapter on its base: quantized as in training, or as its files have it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    yield HFRunner(load_adapter(base_under(recipe, base, tokenizer), folder), tokenizer)


def base_under(recipe: Recipe, base: Base, tokenizer: object) -> object:
    """Load the base that an adapter is put on, for inference."""
    device = pick_device()
    if base == "trained":
        return for_inference(student_base(recipe, device, tokenizer))
    num_tokens = len(tokenizer) if recipe.model.added_tokens else 0  # type: ignore[arg-type]
    folder = locate(recipe.model.base, recipe.folder)
    return load_base(folder, "none", device, compute_dtype(device, recipe.model.compute), num_tokens).eval()
