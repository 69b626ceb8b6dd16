"""Weights that a repository ships as pickles (.bin): converted once to safetensors, in a capped child process."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from tunewright import console, operating_system
from tunewright.errors import ModelError
from tunewright.models.capped_process import CappedProcess, ProcessEndedError
from tunewright.records import digest
from tunewright.storage import atomic_folder, disk_errors

INDEX = "pytorch_model.bin.index.json"
TEMPLATES = "additional_chat_templates"
_BESIDE = frozenset({".json", ".model", ".txt", ".jinja", ".tiktoken", ".md"})
_TIMEOUT_S = 3600.0
_SPARE_MB = 4096  # beyond twice a file: the file is mapped, and its tensors are written
_PICKLE = b"\x80"  # the first byte of a pickle, as torch wrote them before 1.6


def pickled_files(folder: Path) -> list[Path]:
    """Return the pickled weights that a folder without safetensors holds, in their order; else none."""
    if any(folder.glob("*.safetensors")):
        return []
    return sorted(folder.glob("pytorch_model*.bin"))


def pickle_fault(file: Path) -> str:
    """Return why a file cannot be a checkpoint of torch; empty where it can be. Nothing is loaded."""
    with file.open("rb") as stream:
        if stream.read(1) == _PICKLE:
            return ""
    return "" if zipfile.is_zipfile(file) else "it is no checkpoint of torch, or it is cut off"


def as_safetensors(folder: Path, cache: Path) -> Path:
    """Return a folder with the same model whose weights are safetensors; it is made once and kept in the cache.

    A pickle can run code: each is loaded by torch with ``weights_only``, which admits tensors alone, in a child process
    with a limit of memory.

    Args:
        folder: of the model; returned as it is where it holds safetensors or no pickles.
        cache: the folder for converted models.

    Raises:
        ModelError: a pickle is damaged, or holds more than tensors.
        DiskFullError: no space in the cache.
    """
    pickles = pickled_files(folder)
    if not pickles:
        return folder
    named = digest(*[(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())])
    target = cache / "converted" / f"{folder.resolve().name}-{named[:16]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        operating_system.lock(lock)
        if not (target / "config.json").is_file():
            num_bytes = sum(file.stat().st_size for file in pickles)
            console.line(f"converting the pickled weights in {folder} to safetensors (once), into {target}")
            with disk_errors(target, num_bytes), atomic_folder(target) as fresh:
                _convert(folder, pickles, fresh)
    return target


def _convert(folder: Path, pickles: list[Path], target: Path) -> None:
    weight_map: dict[str, str] = {}
    for file in pickles:
        written = file.name.replace("pytorch_model", "model", 1).removesuffix(".bin") + ".safetensors"
        weight_map |= dict.fromkeys(_converted(folder, file, target / written), written)
    if len(pickles) > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        if file.is_file() and file.suffix in _BESIDE and file.name != INDEX:
            shutil.copyfile(file, target / file.name)
    if (folder / TEMPLATES).is_dir():
        shutil.copytree(folder / TEMPLATES, target / TEMPLATES)


def _converted(folder: Path, file: Path, written: Path) -> list[str]:
    """Convert one file; return the names of its tensors."""
    memory_mb = 2 * file.stat().st_size // 2**20 + _SPARE_MB
    process = CappedProcess("tunewright.models.pickled_weights_worker", memory_mb, "converts pickled weights")
    try:
        request = json.dumps({"file": str(file.absolute()), "written": str(written.absolute())}).encode()
        answer = json.loads(process.ask(request, _TIMEOUT_S))
    except (TimeoutError, MemoryError, ProcessEndedError) as error:
        answer = {"error": str(error) or f"it took more than {_TIMEOUT_S:g} s or {memory_mb} MB"}
    finally:
        process.stop()
    if "error" in answer:
        raise ModelError(
            f"cannot convert the pickled weights in {folder}",
            f"{file.name}: {answer['error']}",
            "download the model again, or take a version with model.safetensors",
        )
    return [str(name) for name in answer["names"]]
