"""What a folder must hold to be a base: each fault in one sentence with what to do, before anything is paid for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError
from tunewright.models.families import shape_of, tested_kinds
from tunewright.models.model_files import folder_fault, front_matter, unsafe_file
from tunewright.models.pickled_weights import INDEX, pickle_fault, pickled_files
from tunewright.models.stored_quantization import foreign_quantization, quantization_in

Fault = tuple[str, str]  # the cause, and what to type

_HUB_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_IN_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots(/|$)", re.ASCII)
_QUANTIZED_NAME = re.compile(
    r"([-_.](gptq|awq|bnb|fp8|nvfp4|mxfp4|gguf|mlx|exl[23]|hqq|aqlm|quantized|unsloth|dynamic|i?q\d\w*|int[348]|"
    r"[2-8]-?bits?|w\d+a\d+|g\d+))+$",
    re.IGNORECASE,
)
_AGAIN = "download the model again"
_FORMATS = {
    ".gguf": "GGUF, which only llama.cpp runs",
    ".pth": "PyTorch's own format",
    ".pt": "PyTorch's own format",
    ".ckpt": "a trainer's checkpoint",
    ".h5": "TensorFlow's format",
    ".msgpack": "Flax's format",
    ".onnx": "ONNX",
    ".nemo": "NeMo's format",
    ".bin": "pickles that are no pytorch_model.bin",
}
_WITHOUT_DECODER = frozenset(
    [
        "bert",
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "electra",
        "ernie",
        "megatron-bert",
        "big_bird",
        "rembert",
        "roformer",
        "roc_bert",
        "data2vec-text",
        "xmod",
        "xlm",
        "roberta-prelayernorm",
        "bert-generation",
    ]
)
_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
)


def check_folder(folder: Path, config: Mapping[str, Any], name: str = "") -> None:
    """Check by its small files that a folder holds a base; no weights are read, and no torch is loaded.

    Args:
        folder: a local model folder.
        config: the content of its config.json.
        name: its name on the hub, if it has one: the original of a quantized model may be known by it.

    Raises:
        ModelError: it does not; the message says what the folder is, and names the model to take instead.
    """
    check_config(folder, config, name)
    for check in (_weights, _tokenizer):
        if fault := check(folder):
            raise _refused(folder, fault)


def check_config(folder: Path, config: Mapping[str, Any], name: str = "") -> None:
    """Check by config.json that a model can be a base, before its weights are fetched.

    Raises:
        ModelError: it cannot; see ``check_folder``.
    """
    checks: tuple[Callable[[], Fault | None], ...] = (
        lambda: _quantized(folder, config, name),
        lambda: _own_code(config),
        lambda: _kind(config),
    )
    for check in checks:
        if fault := check():
            raise _refused(folder, fault)


def _refused(folder: Path, fault: Fault) -> ModelError:
    return ModelError(f"{folder} cannot be trained", *fault)


def folder_kind(folder: Path) -> Fault | None:
    """Return what a folder is where it is no model of transformers; None where config.json is there."""
    if (folder / "adapter_config.json").is_file():
        return _adapter(folder)
    if (folder / "config.json").exists():
        return None
    if (folder / "model_index.json").is_file():
        return "it is a pipeline of diffusers, which makes images", "name a language model"
    inner = sorted([*folder.glob("*/config.json"), *folder.glob("snapshots/*/config.json")])
    if inner:
        return "it has no config.json; a folder in it has", f"name that folder: --set model.base={inner[0].parent}"
    formats = _other_formats(folder)
    if formats:
        return f"it has no config.json, and its weights are in {formats}", _original_hint(folder, {}, "")
    return "it has no config.json", "name the folder with config.json"


def _adapter(folder: Path) -> Fault:
    try:
        base = json.loads((folder / "adapter_config.json").read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, RecursionError, AttributeError):
        base = None
    of = f" of {base}" if base else ""
    name = f"name its base: --set model.base={base}" if base else "name its base"
    return f"it is an adapter{of}: it holds adapter_config.json", f"{name}; or merge the adapter into it first"


def _quantized(folder: Path, config: Mapping[str, Any], name: str) -> Fault | None:
    method = foreign_quantization(config)
    if not method and not quantization_in(config) and (folder / "hf_quant_config.json").is_file():
        method = "ModelOpt"
    if not method:
        return None
    return f"its weights are already quantized: {method}", _original_hint(folder, config, name)


def _original_hint(folder: Path, config: Mapping[str, Any], name: str) -> str:
    """Return the hint that names the model that another was quantized from, as far as it is known."""
    original = original_of(folder, config, name)
    if _HUB_NAME.fullmatch(original):
        return f"name the original, which is quantized as it loads: --set model.base={original}"
    known = f" ({original}, by its name)" if original else ""
    return f"name the original{known} in safetensors: model.quantization quantizes it as it loads"


def original_of(folder: Path, config: Mapping[str, Any], name: str = "") -> str:
    """Return the name of the model that this one was made from; empty where nothing states it.

    Its model card states it (base_model), or config.json, or its own name without what names the quantization.
    """
    cached = _IN_CACHE.search(folder.absolute().as_posix())
    own = name or (f"{cached[1]}/{cached[2]}" if cached else folder.name)
    stated = front_matter(folder / "README.md").get("base_model")
    names = [*(stated if isinstance(stated, list) else [stated]), config.get("_name_or_path")]
    for other in names:
        if isinstance(other, str) and _HUB_NAME.fullmatch(other) and other != own:
            return other
    plain = _QUANTIZED_NAME.sub("", own.rpartition("/")[2])
    return plain if plain != own.rpartition("/")[2] else ""


def _own_code(config: Mapping[str, Any]) -> Fault | None:
    if not config.get("auto_map") or _is_known(str(config.get("model_type", ""))):
        return None
    code = sorted(str(value) for value in dict(config["auto_map"]).values()) if _is_table(config["auto_map"]) else []
    file = f" ({code[0].partition('--')[2] or code[0]})" if code else ""
    return (
        f"it needs code of its own{file}, which is never run here",
        f"take a version for transformers' own classes, or another model; trained and tested: {tested_kinds()}",
    )


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _is_known(kind: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return kind in CONFIG_MAPPING_NAMES


def _kind(config: Mapping[str, Any]) -> Fault | None:
    """Return why a kind of model writes no text token by token, or cannot be loaded here."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    kind, stated = config.get("model_type"), config.get("architectures")
    classes = [str(each) for each in stated] if isinstance(stated, list) else []
    shown = f"{kind!r}" + (f" ({classes[0]})" if classes else "")
    instead = f"name a causal language model; trained and tested: {tested_kinds()}"
    if not isinstance(kind, str) or not kind:
        return "its config.json names no model_type", _AGAIN
    if config.get("is_encoder_decoder"):
        return f"its kind {shown} has an encoder and a decoder", instead
    if kind in _WITHOUT_DECODER and not config.get("is_decoder"):
        return f"its kind {shown} is an encoder: it writes no text", instead
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            return f"its kind {shown} reads images, and its language model cannot be loaded alone", instead
        if _is_known(kind):
            return f"its kind {shown} is no causal language model", instead
        return f"its kind {shown} is unknown to {_transformers()}", f"pip install -U transformers; or {instead}"
    if classes and not any(name.endswith(_CAUSAL) for name in classes):
        return f"it is a {classes[0]}, which has another head than the one that writes text", instead
    if shape_of(config).get("use_bidirectional_attention") in (True, "all"):
        return f"the attention of this {shown} looks at later tokens too: it makes vectors, and writes no text", instead
    return None


def _transformers() -> str:
    from importlib.metadata import version

    return f"transformers {version('transformers')}"


def _weights(folder: Path) -> Fault | None:
    if fault := unsafe_file(folder) or folder_fault(folder):
        return fault, _AGAIN
    if any(folder.glob("*.safetensors")):
        return _unnamed_weights(folder)
    pickles = pickled_files(folder)
    for file in pickles:
        if fault := pickle_fault(file):
            return f"{file.name}: {fault}", _AGAIN
    if pickles:
        return _missing_pickle(folder)
    formats = _other_formats(folder)
    if formats:
        return f"it holds no safetensors; its weights are in {formats}", _original_hint(folder, {}, "")
    return "it holds no weights: there is no .safetensors file in it", _AGAIN


def _unnamed_weights(folder: Path) -> Fault | None:
    """Return a fault where transformers finds no weights under the names that it loads."""
    if (folder / "model.safetensors").is_file() or (folder / "model.safetensors.index.json").is_file():
        return None
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    if any(re.fullmatch(r"model-\d+-of-\d+\.safetensors", name) for name in names):
        return "model.safetensors.index.json is missing, which names the file of each tensor", _AGAIN
    return f"its weights are in {names[0]}, and transformers loads model.safetensors", _AGAIN


def _missing_pickle(folder: Path) -> Fault | None:
    if not (folder / INDEX).is_file():
        parts = [re.fullmatch(r"pytorch_model-\d+-of-0*(\d+)\.bin", file.name) for file in pickled_files(folder)]
        wanted = max((int(part[1]) for part in parts if part), default=0)
        present = sum(part is not None for part in parts)
        return (
            (f"{wanted - present} of {wanted} files of pickled weights are missing", _AGAIN)
            if wanted > present
            else None
        )
    try:
        named = sorted(set(json.loads((folder / INDEX).read_bytes())["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        return f"{INDEX}: it has no weight_map from tensors to files", _AGAIN
    missing = [str(part) for part in named if not (folder / str(part)).is_file()]
    return (f"{missing[0]} is missing, which {INDEX} names", _AGAIN) if missing else None


def _other_formats(folder: Path) -> str:
    """Return the format of the weights that a folder holds beside safetensors, with the first file; else empty."""
    for suffix, words in _FORMATS.items():
        for file in sorted(folder.glob(f"*{suffix}")):
            if file.name not in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
                return f"{words} ({file.name})"
    return ""


def _tokenizer(folder: Path) -> Fault | None:
    if any((folder / name).is_file() for name in _TOKENIZERS) or any(folder.glob("*.tiktoken")):
        return None
    copy = "copy tokenizer.json and tokenizer_config.json from the model that it was made from"
    return "it holds no tokenizer", copy
