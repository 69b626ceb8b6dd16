"""Where a base model comes from: the embedded one, a folder, or the hub; and what names its content."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError
from tunewright.models import embedded, hub
from tunewright.recipe import at_home
from tunewright.records import digest
from tunewright.settings import EMBEDDED

_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md"]  # the last for its license


def locate(base: str, root: Path = Path()) -> Path:
    """Return the folder that holds the base model, fetching it when needed.

    Args:
        base: "embedded", a folder, or a hub name such as "HuggingFaceH4/zephyr-7b-beta".
        root: where a relative folder starts.

    Raises:
        ModelError: the model is missing, gated or cannot be reached; the three are told apart.
    """
    if base == EMBEDDED:
        return embedded.model_folder()
    folder = root / at_home(base)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} is not a model folder", "it has no config.json", "name the folder that has")
        return folder
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        raise ModelError(
            f"there is no model at {base}",
            "no such folder",
            'use a folder, a hub name "owner/name", or "embedded"',
        )
    return _from_hub(base)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except Exception as error:  # the library's errors have no common class beside it
        words = hub.explain(error, name, writing=False)
        if words is not None:
            raise ModelError(*words) from error
        if isinstance(error, OSError):
            raise ModelError(f"cannot fetch {name}", str(error), "check network and disk, then run again") from error
        raise


def identity(base: str, root: Path = Path()) -> str:
    """Return what names the base model's content, without loading it: part of every stage's fingerprint."""
    if base == EMBEDDED:
        return embedded.IDENTITY
    folder = root / at_home(base)
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".model", ".jinja"})
        return digest(*[(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    return base


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model folder's config.json."""
    try:
        content: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return content
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {folder / 'config.json'}", str(error), "fetch the model again") from error


def token_counter(base: str, root: Path = Path()) -> Callable[[str], int]:
    """Return a function that counts a text's tokens in the student's vocabulary; loads no torch where it can."""
    from tokenizers import Tokenizer

    folder = locate(base, root)
    file = folder / "tokenizer.json"
    if file.is_file():
        fast = Tokenizer.from_file(str(file))
        return lambda text: len(fast.encode(text, add_special_tokens=False).ids)
    from transformers import AutoTokenizer

    slow = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return lambda text: len(slow(text, add_special_tokens=False)["input_ids"])
