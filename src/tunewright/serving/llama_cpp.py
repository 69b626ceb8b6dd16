"""The engine llama.cpp: a GGUF of the tuned model behind its server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.errors import ModelError, StageError
from tunewright.export.gguf.architectures import context_length
from tunewright.export.gguf.ollama import MODEL_FILE
from tunewright.export.gguf.write import write_model_file
from tunewright.export.receipt import RECEIPT, verify
from tunewright.export.target import ExportRequest
from tunewright.models import llama_cpp
from tunewright.models.student import student_identity
from tunewright.records import digest
from tunewright.run_folder import RunFile
from tunewright.serving.engine import Completions
from tunewright.storage import atomic_folder, file_digest, restore_folder

_FORMAT = 1  # raised when the same ingredients make another file
_MADE_FROM = "made-from"


def finished_gguf(export: Path, folder: Path, request: ExportRequest) -> Path | None:
    """Return a GGUF file that was made from the request before; None where there is none.

    Args:
        export: the run's export of this type, if there is one.
        folder: where an earlier server wrote its file.
        request: the tuned model and its type.

    Raises:
        ExportError: the export is damaged.
    """
    restore_folder(export, RECEIPT)
    if (export / RECEIPT).is_file() and verify(export)["made_of"][RunFile.ADAPTER] == file_digest(request.adapter):
        return export / MODEL_FILE
    made_from = folder / _MADE_FROM
    is_complete = made_from.is_file() and (folder / MODEL_FILE).is_file()
    is_current = is_complete and made_from.read_text(encoding="utf-8") == _ingredients(request)
    return folder / MODEL_FILE if is_current else None


def write_gguf(folder: Path, request: ExportRequest) -> Path:
    """Write the tuned model as a GGUF file into this folder; return the file.

    Raises:
        ModelError: a family that llama.cpp does not support.
        DiskFullError: no space; an older file is kept.
    """
    console.line(f"writing {folder / MODEL_FILE} (once)")
    with atomic_folder(folder) as fresh:
        write_model_file(request, fresh)
        (fresh / _MADE_FROM).write_text(_ingredients(request), encoding="utf-8")
    return folder / MODEL_FILE


def _ingredients(request: ExportRequest) -> str:
    """Return a digest of everything that the file is made from."""
    identity = student_identity(request.recipe, "cpu")
    return digest(_FORMAT, file_digest(request.adapter), identity, request.dtype)


_MAX_CONTEXT_TOKENS = 4096  # llama.cpp allocates the memory for all of them
# llama.cpp's defaults cut off the tail of the distribution; OpenAI's interface does not.
_WHOLE_DISTRIBUTION = {"top_k": 0, "min_p": 0.0, "cache_prompt": False}


@contextmanager
def llama_engine(gguf: Path, config: Mapping[str, Any], full_precision: bool, hint: str) -> Iterator[Completions]:
    """Serve a GGUF on a free port of the loopback while the block lasts.

    Requests are answered one after the other, so that an answer depends on its request alone.

    Args:
        gguf: the tuned model.
        config: the model's config.json.
        full_precision: keep keys and values in fp32, for a GGUF in fp32.
        hint: for a file that does not load.

    Raises:
        StageError: llama.cpp does not load the file.
    """
    key = secrets.token_hex(16)
    with ExitStack() as stack:
        try:
            server = llama_cpp.serve(gguf, _MAX_CONTEXT_TOKENS, key=key, full_precision=full_precision)
            address = stack.enter_context(server)
        except ModelError as error:
            raise StageError(error.headline, error.cause, hint) from error
        context = min(context_length(config), _MAX_CONTEXT_TOKENS)
        yield Completions("llama.cpp", address, key, context, _WHOLE_DISTRIBUTION)
