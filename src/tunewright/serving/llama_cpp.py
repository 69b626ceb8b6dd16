"""The tuned model in llama.cpp: a GGUF behind its server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.errors import ModelError, StageError, command, shell
from tunewright.export.gguf.architectures import context_length
from tunewright.export.gguf.ollama import MODEL_FILE
from tunewright.export.gguf.write import write_model_file
from tunewright.export.receipt import verify
from tunewright.export.swap import RECEIPT, put_back
from tunewright.models import llama_cpp
from tunewright.models.student import student_identity
from tunewright.recipe import Recipe
from tunewright.records import digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.serving.engine import Completions
from tunewright.storage import atomic_folder, file_digest

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
    adapter = file_digest(run.file(RunFile.ADAPTER))
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


_MOST_CONTEXT_TOKENS = 4096  # memory for all of them is taken at once
# llama.cpp's own defaults cut the tail of the distribution off; OpenAI's have no such thing.
_WHOLE_DISTRIBUTION = {"top_k": 0, "min_p": 0.0, "cache_prompt": False}


@contextmanager
def llama_engine(gguf: Path, config: Any, full_precision: bool, hint: str) -> Iterator[Completions]:
    """Serve a GGUF on a free port of the loopback while the block lasts.

    Requests are answered one after the other: an answer then depends on its request alone.

    Args:
        gguf: the tuned model.
        config: the model's config.json.
        full_precision: keep keys and values in fp32, as a GGUF in fp32 deserves.
        hint: what to type where the file does not load.

    Raises:
        StageError: llama.cpp does not load the file.
    """
    key = secrets.token_hex(16)
    with ExitStack() as stack:
        try:
            server = llama_cpp.serve(gguf, _MOST_CONTEXT_TOKENS, key=key, full_precision=full_precision)
            address = stack.enter_context(server)
        except ModelError as error:
            raise StageError(error.headline, error.cause, hint) from error
        context = min(context_length(config), _MOST_CONTEXT_TOKENS)
        yield Completions("llama.cpp", address, key, context, _WHOLE_DISTRIBUTION)
