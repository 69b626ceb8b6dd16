"""Merging: the base's weights and the adapter's as one, tensor by tensor, straight from the base's files.

Each tensor is read, merged in fp32 and rounded once; a shard is written before the next is begun. So the peak of
memory is two shards (the tensors and their bytes), whatever the size of the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError
from tunewright.export.deltas import Deltas, place, read_deltas
from tunewright.export.target import Base
from tunewright.models.families import family_of
from tunewright.models.load import compute_dtype, is_full, pick_device
from tunewright.models.quantization import dequantized, quantized_layers
from tunewright.models.source import locate, read_config
from tunewright.models.student import student_tokenizer
from tunewright.models.weights import weight_files
from tunewright.recipe import Recipe
from tunewright.rundir import RunFolder

SHARD_BYTES = 2_000_000_000
_NUM_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Merge:
    """A tuned model that stands nowhere as a whole: each tensor is made when it is asked for.

    Attributes:
        folder: of the base, or of the whole tuned model where all weights were trained.
        files: where each tensor lies, by its name there: the names that the model is published with.
        deltas: the adapter; None where all weights were trained.
        quantization: of the base that is merged into; "none" leaves its numbers alone.
        quantized: the places of the layers that it concerns.
        rounded: the type that training loaded the base in; None takes the files' numbers as they are.
        num_tokens: rows that the embedding grows to, 0 for none.
    """

    folder: Path
    files: Mapping[str, Path]
    deltas: Deltas | None
    quantization: str
    quantized: frozenset[str]
    rounded: Any
    num_tokens: int
    device: str

    def shape(self, name: str) -> list[int]:
        """Return the shape of a merged tensor, without reading it."""
        from safetensors import safe_open

        with safe_open(self.files[name], framework="pt") as weights:
            shape = list(weights.get_slice(name).get_shape())
        return [max(shape[0], self.num_tokens), *shape[1:]] if self._grows(name) else shape

    def tensor(self, name: str) -> Any:
        """Return a merged tensor in fp32, on the CPU."""
        import torch
        from safetensors import safe_open

        with safe_open(self.files[name], framework="pt") as weights:
            value = weights.get_tensor(name)
        if self.rounded is not None and value.is_floating_point():
            value = value.to(self.rounded)
        layer = place(name.removesuffix(".weight"))
        if self.quantization != "none" and name.endswith(".weight") and layer in self.quantized:
            value = dequantized(value, self.quantization, self.device)
        if self._grows(name) and self.num_tokens > len(value):
            mean = value.float().mean(0, keepdim=True).to(value.dtype)
            value = torch.cat([value, mean.expand(self.num_tokens - len(value), *value.shape[1:])])
        changed = self._changed_by(name)
        if self.deltas is None or changed is None:
            return value.float().cpu() if value.is_floating_point() else value
        with torch.inference_mode():
            return self.deltas.apply(changed, value.to(self.device).float()).cpu()

    def _grows(self, name: str) -> bool:
        """Whether a tensor has a row per token: the embedding's, and those of the head."""
        tokens = self.deltas.tokens if self.deltas and self.num_tokens else {}
        return bool(tokens) and place(name).rpartition(".")[0] in {*tokens, "lm_head"}

    def _changed_by(self, name: str) -> str | None:
        """Return the adapter's layer that changes a tensor; a head that is tied to the embedding changes with it."""
        if self.deltas is None or not name.endswith(".weight"):
            return None
        layer = place(name.removesuffix(".weight"))
        if layer == "lm_head" and layer not in self.deltas.layers and self.deltas.tokens:
            return next(iter(self.deltas.tokens))
        return layer if layer in self.deltas.layers else None


def open_merge(run: RunFolder, recipe: Recipe, base: Base) -> Merge:
    """Return the merge of a run's adapter into its base.

    Args:
        run: a run folder with an adapter.
        recipe: the run's recipe.
        base: "trained", the base in the numbers that training and the exam saw (quantized and expanded again), or
            "original", as its files have it.

    Raises:
        ModelError: a layer that the adapter changes is not in the base.
    """
    device, adapter = pick_device(), run.file("adapter")
    if is_full(adapter):
        return Merge(adapter, weight_files(adapter), None, "none", frozenset(), None, 0, device)
    folder = locate(recipe.model.base, recipe.folder)
    files, deltas = weight_files(folder), read_deltas(adapter)
    missing = deltas.places - {place(name.removesuffix(".weight")) for name in files} - {"lm_head"}
    if missing:
        raise ModelError(
            f"the adapter of {run.path} does not fit the base model",
            f"the base has no layer {sorted(missing)[0]}",
            "run the recipe on this run folder again",
        )
    num_tokens = len(student_tokenizer(recipe)) if recipe.model.added_tokens else 0
    if base == "original":
        return Merge(folder, files, deltas, "none", frozenset(), None, num_tokens, device)
    dtype = compute_dtype(device, recipe.model.compute)
    quantization = recipe.model.quantization
    layers = frozenset(map(place, quantized_layers(folder, quantization, dtype)))
    if family_of(read_config(folder)).no_adapter:  # what sees pictures was not examined, and keeps its own numbers
        layers = frozenset(layer for layer in layers if layer.startswith("layers."))
    return Merge(folder, files, deltas, quantization, layers, dtype, num_tokens, device)


def merged_bytes(run: RunFolder, recipe: Recipe, dtype: str) -> int:
    """Return the size of the merged weights in that type."""
    merge = open_merge(run, recipe, "original")
    return sum(_size(merge.shape(name), dtype) for name in merge.files) + 50_000_000


def _size(shape: list[int], dtype: str) -> int:
    num = 1
    for length in shape:
        num *= length
    return num * _NUM_BYTES[dtype]


def _shards(merge: Merge, dtype: str, shard_bytes: int) -> list[list[str]]:
    """Return the tensors of each shard; one that is larger than a shard gets its own."""
    shards: list[list[str]] = []
    room = 0
    for name in merge.files:
        size = _size(merge.shape(name), dtype)
        if size > room or not shards:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= size
    return shards


def write_weights(merge: Merge, folder: Path, dtype: str, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the merged weights as safetensors shards with their index.

    Raises:
        ModelError: a weight is not finite, or too large for the type.
    """
    target = compute_dtype("cpu", dtype)
    shards = _shards(merge, dtype, shard_bytes)
    places: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        total += _write_shard(merge, names, folder / file, target)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_shard(merge: Merge, names: list[str], file: Path, dtype: Any) -> int:
    """Write one shard and let go of it; return the bytes of its tensors."""
    from safetensors.torch import save_file

    tensors = {name: _rounded(name, merge.tensor(name), dtype) for name in names}
    save_file(tensors, file, metadata={"format": "pt"})
    return sum(value.numel() * value.element_size() for value in tensors.values())


def _rounded(name: str, value: Any, dtype: Any) -> Any:
    if not value.is_floating_point():
        return value
    rounded = value.to(dtype).contiguous()
    if not rounded.isfinite().all():
        raise ModelError(
            f"{name} does not fit into {str(dtype).removeprefix('torch.')}",
            f"its largest value is {float(value.abs().max()):.3g}",
            "export with --dtype bf16 or --dtype fp32",
        )
    return rounded


def write_merged(run: RunFolder, recipe: Recipe, folder: Path, dtype: str, base: Base) -> None:
    """Write the tuned model whole: weights, config, generation settings, tokenizer."""
    from tunewright.export.words import write_config, write_tokenizer

    merge = open_merge(run, recipe, base)
    write_weights(merge, folder, dtype)
    tokenizer = write_tokenizer(recipe, folder)
    write_config(merge.folder, folder, tokenizer, dtype, merge.num_tokens)


@contextmanager
def merged_runner(run: RunFolder, recipe: Recipe, folder: Path, dtype: str, base: Base) -> Any:
    """Open an exported model as any program does, with transformers alone.

    A CPU without units for the file's type computes in fp32 with the rounded weights.
    """
    from transformers import AutoTokenizer

    from tunewright.export.runners import HFRunner
    from tunewright.models.load import load_base

    device = pick_device()
    wanted = compute_dtype(device, dtype)
    computed = wanted if device != "cpu" or compute_dtype("cpu") == wanted else compute_dtype("cpu", "fp32")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    yield HFRunner(load_base(folder, "none", device, computed), tokenizer)
