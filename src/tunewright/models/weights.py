"""A model folder's weights: which safetensors file holds which tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tunewright.errors import ModelError


def weight_files(folder: Path) -> Mapping[str, Path]:
    """Return the file of each tensor, in the order of the files.

    Raises:
        ModelError: the folder holds no safetensors, or damaged ones.
    """
    from safetensors import SafetensorError

    try:
        found = _files(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"cannot read the weights in {folder}", str(error), "fetch or make the model again") from error
    if not found:
        raise ModelError(f"{folder} holds no weights", "there is no .safetensors file in it", "fetch the model again")
    return found


def _files(folder: Path) -> dict[str, Path]:
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / part for name, part in parts.items()}
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            found.update(dict.fromkeys(weights.keys(), file))
    return found
