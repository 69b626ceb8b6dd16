"""The files of a model folder: whatever they hold, an error in loading them names the folder and the damaged file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunewright.errors import ModelError, TunewrightError, cause_of, is_lack_of_memory

_INDEX = "model.safetensors.index.json"


@contextmanager
def reading_model(what: str, folder: Path, hint: str = "download the model again") -> Iterator[None]:
    """Make every error of a block that loads from a model folder a ModelError that names the folder and the cause.

    Args:
        what: is loaded, such as "base model".
        folder: of the model.
        hint: the next thing to type.
    """
    try:
        yield
    except TunewrightError:
        raise
    except BaseException as error:  # tokenizers panics with an exception that is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException" or is_lack_of_memory(error):
            raise
        cause = folder_fault(folder) or cause_of(error)
        raise ModelError(f"cannot load the {what} in {folder}", cause, hint) from error


def folder_fault(folder: Path) -> str:
    """Return the first file of a model folder that is missing or cannot be read, and why; empty where all can be."""
    if not folder.is_dir():
        return "the folder does not exist"
    for file in sorted(folder.glob("*.json")):
        if fault := _json_fault(file):
            return f"{file.name}: {fault}"
    try:
        parts = json.loads((folder / _INDEX).read_bytes())["weight_map"] if (folder / _INDEX).is_file() else {}
        missing = [part for part in sorted(set(parts.values())) if not (folder / part).is_file()]
    except (KeyError, TypeError, AttributeError):
        return f"{_INDEX}: it has no weight_map from tensors to files"
    if missing:
        return f"{missing[0]} is missing, which {_INDEX} names"
    for file in sorted(folder.glob("*.safetensors")):
        if fault := _weights_fault(file):
            return f"{file.name}: {fault}"
    return ""


def _json_fault(file: Path) -> str:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"not JSON: {cause_of(error)}" if not isinstance(error, OSError) else cause_of(error)
    return "" if isinstance(content, dict) else "it holds no JSON object"


def _weights_fault(file: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            return ""
    except (OSError, SafetensorError) as error:
        return cause_of(error)
