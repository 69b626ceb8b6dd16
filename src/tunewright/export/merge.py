"""Merging the adapter into the base's weights, tensor by tensor, straight from the base's files.

Each tensor is read, merged in fp32 and rounded once; a shard is written before the next one is built. So the peak of
memory is two shards (the tensors and their bytes), whatever the size of the model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.errors import ModelError
from tunewright.export.experts import ExpertParameters, ExpertPart, adapter_layer, expert_part
from tunewright.export.target import Base, ExportRequest, HFRunner, Runner
from tunewright.export.tokenizer import write_config, write_tokenizer
from tunewright.models.experts import trains_experts
from tunewright.models.families import TOWERS
from tunewright.models.loading import (
    compute_dtype,
    dequantized,
    is_full,
    load_base,
    pick_device,
    quantized_layers,
    transposed_layers,
)
from tunewright.models.source import locate, read_config
from tunewright.models.stored_quantization import shape_unpacked, stored_nf4, unpacked
from tunewright.models.student import student_tokenizer
from tunewright.models.tensors import stored_tensors, weight_files
from tunewright.recipe import Recipe

if TYPE_CHECKING:
    import torch

# Models are wrapped differently in their files and in their classes; the rest of a name is the same in both.
_WRAPPERS = frozenset({"base_model", "model", "language_model", "vision_model"})
_PARTS = (".lora_A", ".lora_B", ".lora_magnitude_vector", ".token_adapter")

_AS_IT_IS = "export the adapter itself: tunewright export DIR --to adapter"
_AGAIN = "train it again: tunewright run DIR/recipe.toml --dir DIR"

# Of peft's options, those that change what is computed and that no recipe sets: {option: its harmless values}.
_HARMLESS: Mapping[str, tuple[object, ...]] = {
    "alpha_pattern": ({}, None),
    "rank_pattern": ({}, None),
    "bias": ("none",),
    "fan_in_fan_out": (False, True),
    "lora_bias": (False,),
    "modules_to_save": (None, []),
    "layer_replication": (None,),
    "use_qalora": (False,),
    "alora_invocation_tokens": (None,),
}


def bare_name(name: str) -> str:
    """Return a layer's or a tensor's name without the modules that wrap the model."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


@dataclass(frozen=True)
class Deltas:
    """The changes that an adapter makes to a model's weights.

    Attributes:
        file: the adapter's safetensors.
        rank: of every pair of matrices.
        scale: the factor of their product.
        layers: by the layer's bare name, its tensors' names by their part (".lora_A", ...).
        tokens: by the bare name of an embedding or a head, the rows that the adapter holds.
    """

    file: Path
    rank: int
    scale: float
    layers: Mapping[str, Mapping[str, str]]
    tokens: Mapping[str, tuple[int, ...]]

    def apply(self, layer: str, weight: torch.Tensor) -> torch.Tensor:
        """Return a layer's weight [out, in] with the adapter merged in.

        LoRA: W + s·BA. DoRA: its rows scaled to the trained magnitudes, m·(W + s·BA)/‖W + s·BA‖.
        Embeddings: trained rows in place of the base's.

        Args:
            layer: the layer's bare name.
            weight: the base's weight [out, in] in fp32, on the device to compute on.
        """
        parts = {part: self.read(layer, part).to(weight) for part in self.layers[layer]}
        if ".token_adapter" in parts:
            changed = weight.clone()
            changed[list(self.tokens[layer])] = parts[".token_adapter"]
            return changed
        merged = weight + self.scale * (parts[".lora_B"] @ parts[".lora_A"])
        if ".lora_magnitude_vector" in parts:
            merged *= (parts[".lora_magnitude_vector"] / merged.norm(dim=1))[:, None]
        return merged

    def apply_experts(self, layer: str, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights of all experts [E, n, k], in fp32, with the factors of that name merged in."""
        import torch

        down, up = (self.read(layer, part).to(weight) for part in (".lora_A", ".lora_B"))
        down = down.view(len(weight), self.rank, -1)
        up = up.view(up.shape[0], self.rank, len(weight))
        return weight + self.scale * torch.einsum("ore,erk->eok", up, down)

    def read(self, layer: str, part: str) -> torch.Tensor:
        """Return one of a layer's tensors in fp32: lora_A [rank, in], lora_B [out, rank], magnitudes [out]."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as weights:
            return weights.get_tensor(self.layers[layer][part]).float()


def read_deltas(folder: Path) -> Deltas:
    """Return the changes of an adapter in peft's format; its tensors are read when they are needed.

    Raises:
        ModelError: the adapter is of a kind that is not converted here, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / "adapter_model.safetensors"
    config = _config(folder)
    rank = int(config["r"])
    layers: dict[str, dict[str, str]] = {}
    try:
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no mapping)
                part = next((part for part in _PARTS if part in name), None)
                if part is None:
                    raise ModelError(f"{file} holds {name}", "it is not part of a LoRA adapter", _AS_IT_IS)
                layers.setdefault(bare_name(name.partition(part)[0]), {})[part] = name
                stacked = ".experts." in name  # the factors of all experts one behind the other
                if part == ".lora_A" and not stacked and (rows := weights.get_slice(name).get_shape()[0]) != rank:
                    raise ModelError(
                        "the adapter's matrices do not have its rank", f"{name}: {rows}, not {rank}", _AGAIN
                    )
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read the adapter in {folder}", str(error), _AGAIN) from error
    halves = [layer for layer, parts in layers.items() if (".lora_A" in parts) != (".lora_B" in parts)]
    if halves or not layers:
        cause = f"{halves[0]} has one matrix only" if halves else "it has no matrices"
        raise ModelError(f"the adapter in {folder} is incomplete", cause, _AGAIN)
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    tokens = config.get("trainable_token_indices") or {}
    return Deltas(file, rank, scale, layers, {bare_name(name): tuple(ids) for name, ids in tokens.items()})


def _config(folder: Path) -> dict[str, Any]:
    """Return the adapter's settings.

    Raises:
        ModelError: they cannot be read, or set more than LoRA, DoRA and rows of tokens.
    """
    file = folder / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"cannot read {file}", str(error), _AGAIN) from error
    strange = [key for key, harmless in _HARMLESS.items() if key in config and config[key] not in harmless]
    strange += ["peft_type"] if config.get("peft_type") != "LORA" else []
    if strange:
        raise ModelError(
            f"the adapter in {folder} is of a kind that is not converted here",
            f"its {file.name} sets {', '.join(f'{key} = {config.get(key)!r}' for key in strange)}",
            _AS_IT_IS,
        )
    return config


SHARD_BYTES = 2_000_000_000
_NUM_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Merge:
    """A tuned model that is never whole in memory or on disk: each tensor is computed on request.

    Attributes:
        folder: of the base, or of the whole tuned model where all weights were trained.
        files: the file of each tensor, by its name there: the names that the model is published with.
        deltas: the adapter; None where all weights were trained.
        quantization: of the base that is merged into; "none" leaves its numbers alone.
        quantized: the bare names of the quantized layers.
        rounded: the torch dtype that training loaded the base in; None takes the files' numbers as they are.
        num_tokens: rows that the embedding grows to; 0 where it does not grow.
        device: where tensors are merged.
        stored: the file of each tensor of a base whose files are quantized, its scales and tables included.
        parts: the tensors of experts that the adapter changes or training quantized, by name.
        transposed: the bare names of layers whose weights the files hold as [in, out], as GPT-2's do.
    """

    folder: Path
    files: Mapping[str, Path]
    deltas: Deltas | None
    quantization: str
    quantized: frozenset[str]
    rounded: torch.dtype | None
    num_tokens: int
    device: str
    stored: Mapping[str, Path] = field(default_factory=dict)
    parts: Mapping[str, ExpertPart] = field(default_factory=dict)
    transposed: frozenset[str] = frozenset()

    @cached_property
    def _experts(self) -> ExpertParameters:
        return ExpertParameters(self.parts, self._read, self._merged_experts)

    def _merged_experts(self, part: ExpertPart, value: torch.Tensor) -> torch.Tensor:
        """Return the parameter [E, n, k] that a part belongs to, as it is exported, in fp32 on the CPU."""
        import torch

        if self.quantization != "none":
            value = dequantized(value, self.quantization, self.device)
        value, layer = value.to(self.device).float(), adapter_layer(part)
        if self.deltas is None or layer not in self.deltas.layers:
            return value.cpu()
        with torch.inference_mode():
            return self.deltas.apply_experts(layer, value).cpu()

    def _read(self, name: str) -> torch.Tensor:
        """Return a tensor of the base in the type that training loaded it in."""
        from safetensors import safe_open

        if shape_unpacked(self.stored, name) is not None:
            value = unpacked(self.stored, name, self.rounded, self.device)
        else:
            with safe_open(self.files[name], framework="pt") as weights:
                value = weights.get_tensor(name)
        return value.to(self.rounded) if self.rounded is not None and value.is_floating_point() else value

    def shape(self, name: str) -> list[int]:
        """Return the shape of a merged tensor, without reading it."""
        from safetensors import safe_open

        shape = shape_unpacked(self.stored, name)
        if shape is None:
            with safe_open(self.files[name], framework="pt") as weights:
                shape = list(weights.get_slice(name).get_shape())
        return [max(shape[0], self.num_tokens), *shape[1:]] if self._grows(name) else shape

    def tensor(self, name: str) -> torch.Tensor:
        """Return a merged tensor in fp32, on the CPU."""
        if name in self.parts:
            return self._experts.tensor(name)
        value, layer = self._read(name), bare_name(name.removesuffix(".weight"))
        if layer in self.transposed:
            return self._merged(name, layer, value.T.contiguous()).T.contiguous()
        return self._merged(name, layer, value)

    def _merged(self, name: str, layer: str, value: torch.Tensor) -> torch.Tensor:
        """Return a base's tensor, of a layer as [out, in], quantized and merged as training computed it."""
        import torch

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
        """Return whether a tensor has a row per token (embedding and head) and the adapter adds tokens."""
        tokens = self.deltas.tokens if self.deltas and self.num_tokens else {}
        return bool(tokens) and bare_name(name).rpartition(".")[0] in {*tokens, "lm_head"}

    def _changed_by(self, name: str) -> str | None:
        """Return the adapter's layer that changes a tensor; a head that is tied to the embedding changes with it."""
        if self.deltas is None or not name.endswith(".weight"):
            return None
        layer = bare_name(name.removesuffix(".weight"))
        if layer == "lm_head" and layer not in self.deltas.layers and self.deltas.tokens:
            return next(iter(self.deltas.tokens))
        return layer if layer in self.deltas.layers else None


def open_merge(adapter: Path, recipe: Recipe, base: Base) -> Merge:
    """Return the merge of an adapter into its base.

    Args:
        adapter: an adapter, or a whole tuned model.
        recipe: names the base and how it was quantized.
        base: "trained", the base in the numbers that training and exam computed with (quantized and expanded again),
            or "original", as its files have it.

    Raises:
        ModelError: a layer that the adapter changes is not in the base.
    """
    device = pick_device()
    if is_full(adapter):
        return Merge(adapter, weight_files(adapter), None, "none", frozenset(), None, 0, device)
    folder = locate(recipe.model.base, recipe.folder)
    files, deltas = weight_files(folder), read_deltas(adapter)
    kind = str(read_config(folder).get("model_type", ""))
    parts = _expert_parts(files) if trains_experts(kind) else {}
    known = {bare_name(name.removesuffix(".weight")) for name in files} | {*map(adapter_layer, parts.values())}
    missing = deltas.layers.keys() - known - {"lm_head"}
    if missing:
        raise ModelError(
            f"the adapter in {adapter} does not fit the base model",
            f"the base's files have no layer {sorted(missing)[0]}",
            f"run the recipe on its run folder again; where the files name their layers otherwise, {_AS_IT_IS}",
        )
    num_tokens = len(student_tokenizer(recipe)) if recipe.model.added_tokens else 0
    dtype = compute_dtype(device, recipe.model.compute)
    if stored_nf4(read_config(folder)):  # there is no other base than this one
        return Merge(folder, files, deltas, "none", frozenset(), dtype, num_tokens, device, stored_tensors(folder))
    turned = frozenset(map(bare_name, transposed_layers(folder)))
    if base == "original":
        return Merge(
            folder, files, deltas, "none", frozenset(), None, num_tokens, device, parts=parts, transposed=turned
        )
    quantization = recipe.model.quantization
    quantized = quantized_layers(folder, quantization, dtype)
    # Layers of images were not evaluated, and keep their own numbers.
    layers = frozenset(bare_name(name) for name in quantized if not re.fullmatch(TOWERS, name))
    return Merge(folder, files, deltas, quantization, layers, dtype, num_tokens, device, parts=parts, transposed=turned)


def _expert_parts(files: Mapping[str, Path]) -> dict[str, ExpertPart]:
    """Return the tensors that are parts of experts, by their names in the files."""
    every = {name: expert_part(bare_name(name)) for name in files}
    return {name: part for name, part in every.items() if part is not None}


def merged_bytes(request: ExportRequest) -> int:
    """Return an estimate of the size of the merged model in the request's type."""
    merge = open_merge(request.adapter, request.recipe, "original")
    return sum(_size(merge.shape(name), request.dtype) for name in merge.files) + 50_000_000


def _size(shape: list[int], dtype: str) -> int:
    return math.prod(shape) * _NUM_BYTES[dtype]


def _shards(merge: Merge, dtype: str, shard_bytes: int) -> list[list[str]]:
    """Return the tensors of each shard; a tensor that is larger than a shard gets its own."""
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
    weight_map: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        total += _write_shard(merge, names, folder / file, target)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_shard(merge: Merge, names: list[str], file: Path, dtype: torch.dtype) -> int:
    """Write one shard and free it; return the bytes of its tensors."""
    from safetensors.torch import save_file

    tensors = {name: cast_finite(name, merge.tensor(name), dtype) for name in names}
    save_file(tensors, file, metadata={"format": "pt"})
    return sum(value.numel() * value.element_size() for value in tensors.values())


def cast_finite(name: str, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor in that type; integers stay.

    Raises:
        ModelError: a number is too large for the type, or not finite.
    """
    if not value.is_floating_point():
        return value
    result = value.to(dtype).contiguous()
    if not result.isfinite().all():
        raise ModelError(
            f"{name} does not fit into {str(dtype).removeprefix('torch.')}",
            f"its largest value is {float(value.abs().max()):.3g}",
            "export with --dtype bf16 or --dtype fp32",
        )
    return result


def write_merged(request: ExportRequest, folder: Path) -> None:
    """Write the tuned model as a whole: weights, config, generation settings, tokenizer."""
    merge = open_merge(request.adapter, request.recipe, request.base)
    write_weights(merge, folder, request.dtype)
    tokenizer = write_tokenizer(request.recipe, folder)
    write_config(merge.folder, folder, tokenizer, request.dtype, merge.num_tokens)


@contextmanager
def merged_runner(request: ExportRequest, folder: Path) -> Iterator[Runner]:
    """Open an exported model as any program does, with transformers alone.

    A CPU that does not compute in the file's type computes in fp32 with the rounded weights.
    """
    from transformers import AutoTokenizer

    device = pick_device()
    exported = compute_dtype(device, request.dtype)
    computed = exported if device != "cpu" or compute_dtype("cpu") == exported else compute_dtype("cpu", "fp32")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    yield HFRunner(load_base(folder, "none", device, computed), tokenizer)
