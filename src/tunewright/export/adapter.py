"""The adapter as an export: peft's format with the tokenizer, for programs that load it on the base."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.errors import RunFolderError, command
from tunewright.export.base_model import public_config, read_base
from tunewright.export.target import Base, ExportRequest, HFRunner, Runner
from tunewright.export.tokenizer import write_tokenizer
from tunewright.models.loading import compute_dtype, for_inference, is_full, load_adapter, load_base, pick_device
from tunewright.models.source import locate
from tunewright.models.student import student_base
from tunewright.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write_adapter(request: ExportRequest, folder: Path) -> None:
    """Copy the adapter as it was trained, with its tokenizer, chat template and the public name of its base.

    Raises:
        RunFolderError: all weights were trained, so there is no adapter.
    """
    adapter, recipe = request.adapter, request.recipe
    if is_full(adapter):
        raise RunFolderError(
            f"{adapter.parent} has no adapter of its own",
            'training.method is "full": every weight was trained',
            command("export", adapter.parent, "--to", "merged"),
        )
    write_tokenizer(recipe, folder)
    base = read_base(recipe.model.base, recipe.folder)
    (folder / _CONFIG).write_bytes(public_config(adapter / _CONFIG, base))
    shutil.copyfile(adapter / _WEIGHTS, folder / _WEIGHTS)


def adapter_bytes(request: ExportRequest) -> int:
    """Return the size of the adapter with its tokenizer."""
    return sum(file.stat().st_size for file in request.adapter.rglob("*") if file.is_file())


@contextmanager
def adapter_runner(request: ExportRequest, folder: Path) -> Iterator[Runner]:
    """Open an exported adapter on the base that the request names."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    yield HFRunner(load_adapter(base_under(request.recipe, request.base, tokenizer), folder), tokenizer)


def base_under(recipe: Recipe, base: Base, tokenizer: PreTrainedTokenizerBase) -> object:
    """Load the base for an adapter, for inference: quantized as in training, or as its files have it."""
    device = pick_device()
    if base == "trained":
        return for_inference(student_base(recipe, device, tokenizer))
    num_tokens = len(tokenizer) if recipe.model.added_tokens else 0
    folder = locate(recipe.model.base, recipe.folder)
    return load_base(folder, "none", device, compute_dtype(device, recipe.model.compute), num_tokens).eval()
