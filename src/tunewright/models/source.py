"""Where a base model comes from: the embedded one, a folder, or the hub; and what names its content."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError
from tunewright.models import embedded
from tunewright.records import digest
from tunewright.settings import EMBEDDED

_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


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
    folder = root / Path(base).expanduser()
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
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except GatedRepoError as error:
        raise ModelError(
            f"{name} is gated: your account may not read it",
            "its licence has to be accepted first (403)",
            f"accept it on the model's page ({_endpoint()}/{name}), then: export HF_TOKEN=...",
        ) from error
    except RepositoryNotFoundError as error:
        unauthorized = getattr(error.response, "status_code", 404) == 401
        raise ModelError(
            f"the hub has no model {name} that you can see",
            "no such name, or it is private and no valid token was sent (401)"
            if unauthorized
            else "no such name (404)",
            "check the spelling; for a private model: export HF_TOKEN=..." if unauthorized else "check the spelling",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise _refused(name, error) from error
    except OSError as error:
        raise ModelError(f"cannot fetch {name}", str(error), "check network and disk, then run again") from error


def _refused(name: str, error: BaseException) -> ModelError:
    """Tell a hub that answered with a refusal from one that cannot be reached; the library wraps both alike."""
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(getattr(cause, "response", None), "status_code", 0)
        if status:
            words = {401: "the token was refused (401)", 403: "the token may not read this model (403)"}
            told = words.get(status, f"it answered {status}")
            return ModelError(f"the hub would not give {name}", told, "check HF_TOKEN, then run again")
        cause = cause.__cause__ or cause.__context__
    return ModelError(
        f"{name} is not in the local cache and the hub cannot be reached",
        "no network, or HF_HUB_OFFLINE is set",
        f"connect once and run again, or give a folder: --set model.base=/path/to/{name.rpartition('/')[2]}",
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def identity(base: str, root: Path = Path()) -> str:
    """Return what names the base model's content, without loading it: part of every stage's fingerprint."""
    if base == EMBEDDED:
        return embedded.IDENTITY
    folder = root / Path(base).expanduser()
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
