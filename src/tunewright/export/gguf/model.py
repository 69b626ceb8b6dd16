"""A LoRA adapter alone as GGUF, to be put on the base model's own GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tunewright.errors import ModelError
from tunewright.export.gguf.architectures import Config, Place, architecture_of, extra_tensors, place_of, settings_of
from tunewright.export.gguf.file import Tensor, choose_dtype, constant, file_type, write_file
from tunewright.export.gguf.vocabulary import vocabulary_of
from tunewright.export.merge import Deltas
from tunewright.models.families import shape_of

Array = Any  # numpy.ndarray


class Source(Protocol):
    """Where a model's tensors come from, under the names of its folder."""

    folder: Path

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each tensor."""
        ...

    def rows(self, name: str, start: int, end: int) -> Array:
        """Return rows of a tensor as fp32."""
        ...


def write_model(weights: Source, config: Config, tokenizer: Any, out: Path, dtype: str) -> None:
    """Write a model as one GGUF file.

    Everything that llama.cpp needs to prompt it as it was trained is in the file: vocabulary, template, the tokens that
    end an answer. The tensors go through memory piece by piece.

    Args:
        weights: the tensors.
        config: the content of the model's config.json.
        tokenizer: with its chat template.
        out: the file.
        dtype: of the matrices: "f32", "f16", "bf16", "q8_0" or "q4_0".

    Raises:
        ModelError: a family, tokenizer or setting that llama.cpp would treat otherwise, missing tensors, or values that
            do not fit the type; nothing is written.
        DiskFullError: no space; an older file of that name stands.
    """
    architecture = architecture_of(config)
    tensors = list(_tensors(weights, config, dtype))
    num_rows = next((tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight"), 0)
    _check_complete(weights.folder, config, {tensor.name for tensor in tensors})
    vocabulary = vocabulary_of(tokenizer, num_rows)
    fields = {
        "general.type": "model",
        # llama.cpp reads a rule of tokenization off the name of one family.
        "general.name": "tuned phi-3 model" if vocabulary.strips_after_special else "tuned model",
        "general.file_type": file_type(dtype),
        "general.quantization_version": 2,
        **settings_of(config),
        f"{architecture.name}.vocab_size": num_rows,
        **vocabulary.fields,
    }
    write_file(out, architecture.name, fields, tensors)


def _tensors(weights: Source, config: Config, dtype: str) -> Iterator[Tensor]:
    """Yield the tensors in the order of their files."""
    file_type(dtype)
    tied = bool(config.get("tie_word_embeddings", shape_of(config).get("tie_word_embeddings", False)))
    has_head = any(name.endswith("lm_head.weight") for name in weights.shapes) and not tied
    for name, shape in weights.shapes.items():
        if name.endswith("lm_head.weight") and tied:
            continue
        place = place_of(name, config)
        if place is not None:
            logits = place.name == ("output.weight" if has_head else "token_embd.weight")
            yield Tensor(place.name, shape, choose_dtype(dtype, shape, logits), _reader(weights, name, place))
    for name, values in extra_tensors(config):
        yield constant(name, values, "f32")


def _reader(weights: Source, name: str, place: Place) -> Callable[[int, int], Array]:
    """Return a function that reads rows as llama.cpp wants them."""

    def read(start: int, end: int) -> Array:
        if place.order is None:
            return weights.rows(name, start, end) + place.offset
        return weights.rows(name, 0, len(place.order))[place.order[start:end]]

    return read


def _check_complete(folder: Path, config: Config, names: set[str]) -> None:
    """Check that every layer has the tensors of the first: a lost shard would give a model that llama.cpp refuses."""
    layers = range(int(shape_of(config)["num_hidden_layers"]))
    kinds = {name.split(".", 2)[2] for name in names if name.startswith("blk.")}
    wanted = {f"blk.{number}.{kind}" for number in layers for kind in kinds} | {"token_embd.weight"}
    missing = sorted(wanted - names) or ([] if kinds else ["every layer"])
    if missing:
        raise ModelError(
            f"the weights in {folder} are not complete",
            f"{len(missing)} tensors are missing, the first: {missing[0]}",
            "fetch the model again",
        )


_FIRST, _SECOND = ".lora_A", ".lora_B"  # [rank, in] and [out, rank]


def write_gguf_adapter(deltas: Deltas | None, model_config: Mapping[str, Any], out: Path, dtype: str) -> None:
    """Write the adapter as llama.cpp's adapter file: each matrix under its place's name, rows in llama.cpp's order.

    Args:
        deltas: the adapter; None of a fully tuned model, which has none.
        model_config: the base model's config.json.
        out: the file.
        dtype: of the matrices: "f16", or "f32", which rounds nothing.

    Raises:
        ModelError: the adapter is no plain LoRA (DoRA, a fully tuned model, trained embeddings); nothing is written.
        DiskFullError: no space; an older file of that name stands.
    """
    if deltas is None:
        raise _merge_instead("a fully tuned model has no adapter", "every weight was trained")
    tensors = [tensor for layer in sorted(deltas.layers) for tensor in _pair(deltas, layer, model_config, dtype)]
    fields = {
        "general.type": "adapter",
        "general.name": "tuned adapter",
        "adapter.type": "lora",
        # llama.cpp computes alpha / rank, so that the rank gives a scale of 1: each pair's own is in its B.
        "adapter.lora.alpha": float(deltas.rank),
        "general.quantization_version": 2,
    }
    write_file(out, architecture_of(model_config).name, fields, tensors)


def _merge_instead(what: str, why: str) -> ModelError:
    return ModelError(what, why, "export the whole model: tunewright export DIR --to gguf")


def _pair(deltas: Deltas, layer: str, model_config: Mapping[str, Any], dtype: str) -> list[Tensor]:
    """Return a layer's two tensors; the scale goes into B, whose rows take the order that the layer's have."""
    parts = deltas.layers[layer]
    if ".lora_magnitude_vector" in parts:
        raise _merge_instead("llama.cpp has no adapters of the kind DoRA", "only plain LoRA can stand alone")
    if ".token_adapter" in parts:
        raise _merge_instead("the adapter is more than pairs of matrices", f"it also trains rows of {layer}")
    module = parts[_FIRST].partition(_FIRST)[0].removeprefix("base_model.model.")
    place = place_of(f"{module}.weight", model_config)
    if place is None:
        raise _merge_instead("the adapter changes a vision tower", f"{module}; a GGUF holds the text model alone")
    first, second = deltas.read(layer, _FIRST).numpy(), deltas.read(layer, _SECOND).numpy() * deltas.scale
    if place.order is not None:
        second = second[place.order]
    return [constant(f"{place.name}.lora_{half}", values, dtype) for half, values in (("a", first), ("b", second))]
