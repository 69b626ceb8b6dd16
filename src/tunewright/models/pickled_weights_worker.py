"""The child process of pickled_weights: it loads one pickle with ``weights_only`` and writes its tensors."""

from __future__ import annotations

import json
import pickle
import sys
from typing import Any

from tunewright.errors import cause_of
from tunewright.models.capped_process import answer_lines


def _tensors(content: Any) -> dict[str, Any]:
    """Return the tensors of a loaded checkpoint; tensors that share memory are copied.

    Raises:
        ValueError: it holds something else.
    """
    import torch

    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise ValueError("it holds no table of tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} is a {type(value).__name__}, not a tensor")
    seen: set[int] = set()
    tensors = {}
    for name, value in content.items():
        storage = value.untyped_storage().data_ptr()
        tensors[name] = value.clone().contiguous() if storage in seen else value.contiguous()
        seen.add(storage)
    return tensors


def _convert(file: str, written: str) -> list[str]:
    import torch
    from safetensors.torch import save_file

    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # the format before torch 1.6 cannot be mapped
        content = torch.load(file, map_location="cpu", weights_only=True)
    tensors = _tensors(content)
    save_file(tensors, written, metadata={"format": "pt"})
    return list(tensors)


def _answer(line: bytes) -> bytes:
    try:
        request = json.loads(line)
        return json.dumps({"names": _convert(request["file"], request["written"])}).encode()
    except pickle.UnpicklingError:
        return json.dumps({"error": "it holds more than tensors, so loading it could run code"}).encode()
    except MemoryError:
        return json.dumps({"error": "it takes more memory than such a file needs"}).encode()
    except Exception as error:  # others' file: loading it can raise anything
        return json.dumps({"error": cause_of(error)[:500]}).encode()


if __name__ == "__main__":
    import safetensors.torch  # noqa: F401  before the memory is measured
    import torch  # noqa: F401

    answer_lines(sys.argv[1:], _answer)
