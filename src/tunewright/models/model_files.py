"""The files of a model folder: checked before a library opens them; an error in loading names the damaged file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError, TunewrightError, cause_of, hint_of, is_lack_of_memory, special_file

_PART = re.compile(r"[^/\\]+\.safetensors")
_INDEX = "model.safetensors.index.json"
_READ = (  # by the libraries; other JSON in the folder is none of theirs
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "chat_template.json",
    "adapter_config.json",
    _INDEX,
    "pytorch_model.bin.index.json",
)


@contextmanager
def reading_model(what: str, folder: Path, hint: str = "download the model again") -> Iterator[None]:
    """Make every error of a block that loads from a model folder a ModelError that names the folder and the cause.

    Args:
        what: is loaded, such as "base model".
        folder: of the model.
        hint: the next thing to type.
    """
    if fault := unsafe_file(folder):
        raise ModelError(f"cannot load the {what} in {folder}", fault, hint)
    try:
        yield
    except TunewrightError:
        raise
    except BaseException as error:  # tokenizers panics with an exception that is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException" or is_lack_of_memory(error):
            raise
        if isinstance(error, ImportError):  # of a library that the kind of model needs
            hint = "install that library, then run again"
        cause = folder_fault(folder) or cause_of(error)
        raise ModelError(f"cannot load the {what} in {folder}", cause, hint_of(error, folder, hint)) from error


def unsafe_file(folder: Path) -> str:
    """Return the first file of a model folder that no library may open, and why; empty where there is none.

    That is a file that is none (a FIFO, a device), and an index of weights that names anything but safetensors in the
    same folder: a pickle could run code.
    """
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if fault := special_file(Path(parent, name)):
                return f"{Path(parent, name).relative_to(folder)}: {fault}"
            if name.endswith(".safetensors.index.json") and (fault := _index_fault(Path(parent, name))):
                return f"{name}: {fault}"
    return ""


def _index_fault(index: Path) -> str:
    try:
        parts = set(json.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return ""  # folder_fault says what is wrong with it
    strange = sorted(str(part) for part in parts if not (isinstance(part, str) and _PART.fullmatch(part)))
    return f"it names {strange[0]}, and only .safetensors files beside it are loaded" if strange else ""


def folder_fault(folder: Path) -> str:
    """Return the first file of a model folder that is missing or cannot be read, and why; empty where all can be."""
    if not folder.is_dir():
        return "the folder does not exist"
    for file in (folder / name for name in _READ):
        if file.is_file() and (fault := _json_fault(file)):
            return f"{file.name}: {fault}"
    try:
        indexed = (folder / _INDEX).is_file() and not (folder / "model.safetensors").is_file()  # that one comes first
        parts = json.loads((folder / _INDEX).read_bytes())["weight_map"] if indexed else {}
        missing = [part for part in sorted(set(parts.values())) if not (folder / part).is_file()]
    except (KeyError, TypeError, AttributeError):
        return f"{_INDEX}: it has no weight_map from tensors to files"
    if missing:
        return f"{missing[0]} is missing, which {_INDEX} names"
    for file in sorted(folder.glob("*.safetensors")):
        if fault := _weights_fault(file, {str(name) for name, part in parts.items() if part == file.name}):
            return f"{file.name}: {fault}"
    return ""


def _json_fault(file: Path) -> str:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"not JSON: {cause_of(error)}" if not isinstance(error, OSError) else cause_of(error)
    return "" if isinstance(content, dict) else "it holds no JSON object"


def _weights_fault(file: Path, named: Set[str]) -> str:
    """Return why a file of weights cannot be read, or which of the named tensors it lacks."""
    from safetensors import SafetensorError, safe_open

    try:
        if other := _other_content(file):
            return other
        with safe_open(file, framework="numpy") as weights:
            lacking = sorted(named - set(weights.keys()))
    except (OSError, SafetensorError) as error:
        return f"damaged or cut off: {cause_of(error)}" if isinstance(error, SafetensorError) else cause_of(error)
    return f"it lacks {lacking[0]}, which {_INDEX} names" if lacking else ""


_LFS = "a Git LFS pointer, not the file itself (git lfs pull fetches it)"
_CONTENTS = {b"version https://git-lfs": _LFS, b"<!DOCTYPE": "a web page", b"<html": "a web page", b"": "empty"}


def _other_content(file: Path) -> str:
    """Return what a file holds in place of weights, by its first bytes; empty where it may hold weights."""
    with file.open("rb") as stream:
        start = stream.read(32)
    return next((words for mark, words in _CONTENTS.items() if (start.startswith(mark) if mark else not start)), "")


def front_matter(card: Path) -> dict[str, Any]:
    """Return the fields at the head of a model card; empty where there is none."""
    from huggingface_hub import metadata_load

    try:
        front = metadata_load(card)
    except Exception:  # not a card at all; the parser's errors share no class with the others
        return {}
    return front if isinstance(front, dict) else {}
