"""A whole model as one GGUF file, and a LoRA adapter as a GGUF file for its base's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tunewright.errors import ModelError
from tunewright.export.gguf.architectures import (
    Config,
    TensorMapping,
    architecture_of,
    extra_tensors,
    mapping_of,
    settings_of,
)
from tunewright.export.gguf.file import Tensor, choose_dtype, constant, file_type, write_file
from tunewright.export.gguf.importance import Importance
from tunewright.export.gguf.k_quants import MIXES, WEIGHED, k_type
from tunewright.export.gguf.vocabulary import vocabulary_of
from tunewright.export.merge import Deltas
from tunewright.models.families import shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Array = Any  # numpy.ndarray


class TensorSource(Protocol):
    """A model's tensors, under the names of its folder."""

    folder: Path

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each tensor."""
        ...

    def rows(self, name: str, start: int, end: int) -> Array:
        """Return the rows of a tensor from start to end as fp32: [rows, ...]."""
        ...


def write_model(
    weights: TensorSource,
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    dtype: str,
    importance: Importance | None = None,
) -> None:
    """Write a model as one GGUF file.

    The file holds everything that llama.cpp needs for the prompts of the training: vocabulary, template, and the tokens
    that end an answer. The tensors go through memory piece by piece.

    Args:
        weights: the tensors.
        config: the content of the model's config.json.
        tokenizer: with its chat template.
        out: the file.
        dtype: of the matrices: "f32", "f16", "bf16", "q8_0", "q4_0", or a mix of K-quants.
        importance: by which 4 to 6 bits round; None where there is no text of the run.

    Raises:
        ModelError: a family, tokenizer or setting that llama.cpp treats differently, missing tensors, or values that do
            not fit the type; nothing is written.
        DiskFullError: no space; an older file of that name is kept.
    """
    architecture = architecture_of(config)
    tensors = list(_tensors(weights, config, dtype, importance))
    num_rows = next((tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight"), 0)
    _check_complete(weights.folder, config, {tensor.name for tensor in tensors})
    vocabulary = vocabulary_of(tokenizer, num_rows)
    fields = {
        "general.type": "model",
        # llama.cpp takes a rule of tokenization from the model's name.
        "general.name": "tuned phi-3 model" if vocabulary.strips_after_special else "tuned model",
        "general.file_type": file_type(dtype),
        "general.quantization_version": 2,
        **_importance_fields(dtype, importance),
        **settings_of(config),
        f"{architecture.name}.vocab_size": num_rows,
        **vocabulary.fields,
    }
    write_file(out, architecture.name, fields, tensors)


def _importance_fields(dtype: str, importance: Importance | None) -> dict[str, Any]:
    """Return what llama.cpp's own program states of the importance matrix."""
    if dtype not in WEIGHED or importance is None:
        return {}
    return {
        "quantize.imatrix.dataset": "the training set of the run",
        "quantize.imatrix.entries_count": len(importance.by_tensor),
        "quantize.imatrix.tokens_count": importance.num_tokens,
    }


def _tensors(
    weights: TensorSource, config: Config, dtype: str, importance: Importance | None = None
) -> Iterator[Tensor]:
    """Yield the tensors in the order of their files."""
    file_type(dtype)
    tied = bool(config.get("tie_word_embeddings", shape_of(config).get("tie_word_embeddings", False)))
    has_head = any(name.endswith("lm_head.weight") for name in weights.shapes) and not tied
    for name, shape in weights.shapes.items():
        if name.endswith("lm_head.weight") and tied:
            continue
        mapping = mapping_of(name, config)
        if mapping is not None:
            logits = mapping.name == ("output.weight" if has_head else "token_embd.weight")
            chosen = choose_dtype(dtype, shape, logits)
            if dtype in MIXES and len(shape) > 1:
                chosen = k_type(dtype, mapping.name, shape[-1], int(shape_of(config)["num_hidden_layers"]), logits)
            columns = importance.by_tensor.get(mapping.name) if importance else None
            yield Tensor(mapping.name, shape, chosen, _reader(weights, name, mapping), columns)
    for name, values in extra_tensors(config):
        yield constant(name, values, "f32")


def _reader(weights: TensorSource, name: str, mapping: TensorMapping) -> Callable[[int, int], Array]:
    """Return a function that reads rows in llama.cpp's order."""

    def read(start: int, end: int) -> Array:
        if mapping.order is None:
            return weights.rows(name, start, end) + mapping.offset
        return weights.rows(name, 0, len(mapping.order))[mapping.order[start:end]]

    return read


def _check_complete(folder: Path, config: Config, names: set[str]) -> None:
    """Check that every layer has the same tensors: with a lost shard, llama.cpp would refuse the file."""
    layers = range(int(shape_of(config)["num_hidden_layers"]))
    kinds = {name.split(".", 2)[2] for name in names if name.startswith("blk.")}
    expected = {f"blk.{number}.{kind}" for number in layers for kind in kinds} | {"token_embd.weight"}
    missing = sorted(expected - names) or ([] if kinds else ["every layer"])
    if missing:
        raise ModelError(
            f"the weights in {folder} are incomplete",
            f"{len(missing)} tensors are missing, the first: {missing[0]}",
            "download the model again",
        )


_FIRST, _SECOND = ".lora_A", ".lora_B"  # [rank, in] and [out, rank]


def write_gguf_adapter(deltas: Deltas | None, model_config: Mapping[str, Any], out: Path, dtype: str) -> None:
    """Write the adapter as llama.cpp's adapter file: names and rows as llama.cpp has them.

    Args:
        deltas: the adapter; None for a fully tuned model, which has none.
        model_config: the base model's config.json.
        out: the file.
        dtype: of the matrices: "f16", or "f32", which rounds nothing.

    Raises:
        ModelError: the adapter is not a plain LoRA (DoRA, a fully tuned model, trained embeddings); nothing is written.
        DiskFullError: no space; an older file of that name is kept.
    """
    if deltas is None:
        raise _merge_instead("a fully tuned model has no adapter", "every weight was trained")
    tensors = [tensor for layer in sorted(deltas.layers) for tensor in _pair(deltas, layer, model_config, dtype)]
    fields = {
        "general.type": "adapter",
        "general.name": "tuned adapter",
        "adapter.type": "lora",
        # llama.cpp scales by alpha / rank, so alpha = rank gives 1: the scale is in each pair's B.
        "adapter.lora.alpha": float(deltas.rank),
        "general.quantization_version": 2,
    }
    write_file(out, architecture_of(model_config).name, fields, tensors)


def _merge_instead(what: str, why: str) -> ModelError:
    return ModelError(what, why, "export the whole model: tunewright export DIR --to gguf")


def _pair(deltas: Deltas, layer: str, model_config: Mapping[str, Any], dtype: str) -> list[Tensor]:
    """Return a layer's two tensors; B holds the scale, and has its rows in the layer's order."""
    parts = deltas.layers[layer]
    if ".lora_magnitude_vector" in parts:
        raise _merge_instead("llama.cpp has no DoRA adapters", "only a plain LoRA can be a file of its own")
    if ".token_adapter" in parts:
        raise _merge_instead("the adapter is more than pairs of matrices", f"it also trains rows of {layer}")
    module = parts[_FIRST].partition(_FIRST)[0].removeprefix("base_model.model.")
    mapping = mapping_of(f"{module}.weight", model_config)
    if mapping is None:
        raise _merge_instead("the adapter changes a vision tower", f"{module}; a GGUF holds the text model alone")
    first, second = deltas.read(layer, _FIRST).numpy(), deltas.read(layer, _SECOND).numpy() * deltas.scale
    if mapping.order is not None:
        second = second[mapping.order]
    return [constant(f"{mapping.name}.lora_{half}", values, dtype) for half, values in (("a", first), ("b", second))]
