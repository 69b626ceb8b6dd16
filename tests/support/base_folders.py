"""Folders that people name as a base, each made from a sound one by a single change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CARD = "---\nbase_model:\n- Acme/Plain-1B\n---\n# A model\n"


def edited(file: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None removes one."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def _quantized(**stated: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        edited(folder / "config.json", quantization_config=stated)
        (folder / "README.md").write_text(CARD)

    return change


def _kind(kind: str, name: str, **more: Any) -> Callable[[Path], None]:
    return lambda folder: edited(folder / "config.json", model_type=kind, architectures=[name], **more)


def _weights(content: bytes | None, name: str = "model.safetensors") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        if content is not None:
            (folder / name).write_bytes(content)

    return change


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _not_numbers(folder: Path) -> None:
    """Overwrite the last kilobyte with bits that are no numbers, as a broken disk does."""
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000] + b"\xff" * 1000)


def _fewer_layers(folder: Path) -> None:
    edited(folder / "config.json", num_hidden_layers=5, layer_types=None)


def _other_sizes(folder: Path) -> None:
    edited(folder / "config.json", intermediate_size=192)


def _eight_bits(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    small = {name: value.to(torch.float8_e4m3fn) if value.dim() > 1 else value for name, value in weights.items()}
    save_file(small, folder / "model.safetensors", metadata={"format": "pt"})


def _stale_index(folder: Path) -> None:
    """Leave the index of shards that are gone beside the whole file, which is loaded first."""
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _shards(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")


def _missing_shard(folder: Path) -> None:
    _shards(folder)
    sorted(folder.glob("*.safetensors"))[1].unlink()


def _missing_index(folder: Path) -> None:
    _shards(folder)
    (folder / "model.safetensors.index.json").unlink()


def _other_index(folder: Path) -> None:
    _shards(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"] = dict.fromkeys(index["weight_map"], files[0])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "Acme/Plain-1B"}))


def _removed(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink(missing_ok=True) for name in names] and None


def _written(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def _templates(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        text = "{% for m in messages %}NAME {{ m['content'] + eos_token }}{% endfor %}"
        templates = [{"name": name, "template": text.replace("NAME", name)} for name in names]
        edited(folder / "tokenizer_config.json", chat_template=templates)

    return change


def _without_end(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edited(folder / "tokenizer_config.json", chat_template=None, eos_token=None)


def _other_vocabulary(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)


def _inside(folder: Path) -> None:
    inner = folder / "snapshot"
    inner.mkdir()
    for file in list(folder.iterdir()):
        if file.is_file():
            shutil.move(file, inner)


NAMED = "model.base=Acme/Plain-1B"
REFUSED: Mapping[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "bitsandbytes in 8 bit": (_quantized(quant_method="bitsandbytes", load_in_8bit=True), ("in 8 bit", NAMED)),
    "bitsandbytes FP4": (
        _quantized(quant_method="bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type="fp4"),
        ("as FP4", NAMED),
    ),
    "gptq": (_quantized(quant_method="gptq", bits=4), ("GPTQ in 4 bit", NAMED)),
    "awq": (_quantized(quant_method="awq", bits=4), ("AWQ in 4 bit", NAMED)),
    "compressed-tensors": (_quantized(quant_method="compressed-tensors"), ("compressed-tensors", NAMED)),
    "fp8": (_quantized(quant_method="fp8"), ("fp8", NAMED)),
    "mxfp4": (_quantized(quant_method="mxfp4"), ("MXFP4", NAMED)),
    "a method of tomorrow": (_quantized(quant_method="wonder"), ("already quantized: wonder", NAMED)),
    "mlx": (
        lambda folder: edited(folder / "config.json", quantization={"group_size": 64, "bits": 4}),
        ("MLX in 4 bit",),
    ),
    "encoder": (_kind("bert", "BertForMaskedLM"), ("is an encoder", "llama, ")),
    "encoder and decoder": (
        _kind("t5", "T5ForConditionalGeneration", is_encoder_decoder=True),
        ("an encoder and a decoder",),
    ),
    "classifier": (_kind("llama", "LlamaForSequenceClassification"), ("LlamaForSequenceClassification", "head")),
    "attention to later tokens": (
        _kind("gemma3_text", "Gemma3ForCausalLM", use_bidirectional_attention=True),
        ("looks at later tokens", "writes no text"),
    ),
    "vision-language": (_kind("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"), ("reads images",)),
    "speech": (_kind("wav2vec2", "Wav2Vec2ForCTC"), ("no causal language model",)),
    "unknown kind": (_kind("llama9", "Llama9ForCausalLM"), ("'llama9'", "unknown to transformers", "tested: llama, ")),
    "code of its own": (
        _kind("baichuan", "BaichuanForCausalLM", auto_map={"AutoConfig": "configuration_baichuan.BaichuanConfig"}),
        ("code of its own (configuration_baichuan", "never run"),
    ),
    "a size that is no number": (
        lambda folder: edited(folder / "config.json", hidden_size="64"),
        ("cannot load the config.json", "hidden_size"),
    ),
    "no kind": (lambda folder: edited(folder / "config.json", model_type=None), ("names no model_type",)),
    "config cut off": (_written("config.json", '{"model_type": "lla'), ("config.json", "download the model again")),
    "config empty": (_written("config.json", ""), ("config.json",)),
    "config a list": (_written("config.json", "[]"), ("no JSON object",)),
    "adapter": (_adapter, ("an adapter of Acme/Plain-1B", NAMED)),
    "gguf only": (_weights(b"GGUF" + b"\0" * 100, "model-q4_k_m.gguf"), ("GGUF", "safetensors")),
    "tensorflow only": (_weights(b"x", "tf_model.h5"), ("TensorFlow",)),
    "no weights": (_weights(None), ("holds no weights",)),
    "other name": (_weights(b"", "consolidated.safetensors"), ("consolidated.safetensors",)),
    "lfs pointer": (_weights(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), ("Git LFS pointer",)),
    "web page": (_weights(b"<!DOCTYPE html><html></html>"), ("a web page",)),
    "weights empty": (_weights(b""), ("empty",)),
    "weights cut off": (_cut, ("model.safetensors", "cut off")),
    "weights in fp8 without scales": (_eight_bits, ("8-bit floating point", "16 bit")),
    "nf4 stated, not stored": (
        lambda folder: edited(
            folder / "config.json",
            quantization_config={
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
            },
        ),
        ("no weight is packed",),
    ),
    "weights not numbers": (_not_numbers, ("no numbers",)),
    "pickle cut off": (_weights(b"PK\3\4" + b"\0" * 100, "pytorch_model.bin"), ("pytorch_model.bin", "cut off")),
    "pickle a pointer": (_weights(b"version https://git-lfs", "pytorch_model.bin"), ("pytorch_model.bin",)),
    "fewer layers than stated": (_fewer_layers, ("not those of its config.json", "is missing")),
    "other sizes than stated": (_other_sizes, ("not those of its config.json", "another shape")),
    "missing shard": (_missing_shard, ("model-00002-of", "is missing")),
    "missing index": (_missing_index, ("model.safetensors.index.json is missing",)),
    "index of other files": (_other_index, ("it lacks",)),
    "no tokenizer": (_removed("tokenizer.json", "tokenizer_config.json"), ("no tokenizer", "copy tokenizer.json")),
    "tokenizer empty": (_written("tokenizer.json", ""), ("tokenizer.json",)),
    "tokenizer without words": (_written("tokenizer.json", "{}"), ("tokenizer",)),
    "tokenizer of another": (_other_vocabulary, ("'<new>'", "400 rows")),
    "templates without a default": (_templates("rag", "tool_use"), ("named default", "rag, tool_use")),
    "no template and no end": (_without_end, ("neither a chat template nor an end token", "eos_token")),
    "template broken": (_written("chat_template.jinja", "{% for m in messages %}"), ("template",)),
    "a folder around it": (_inside, ("a folder in it", "snapshot")),
    "image pipeline": (
        lambda folder: (folder / "config.json").rename(folder / "model_index.json") and None,
        ("makes images",),
    ),
}
ACCEPTED: Mapping[str, Callable[[Path], None]] = {
    "shards": _shards,
    "a stale index": _stale_index,
    "one template with a name": _templates("chat"),
    "a default among templates": _templates("tool_use", "default"),
    "stray files": _written("notes.json", "[1, 2"),
    "code that transformers has": lambda folder: edited(
        folder / "config.json", auto_map={"AutoConfig": "configuration_llama.LlamaConfig"}
    ),
}


def make_four_bit(folder: Path, **changes: Any) -> tuple[Path, Path]:
    """Write a tiny base and a repository that bitsandbytes made of it: NF4, double quantized, the rest in bf16."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from support.tiny import make_model

    original = make_model(folder / "original")
    stated = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        **changes,
    )
    model = AutoModelForCausalLM.from_pretrained(
        original, quantization_config=stated, device_map={"": "cpu"}, dtype=torch.bfloat16
    )
    quantized = shutil.copytree(original, folder / "bnb")
    (quantized / "model.safetensors").unlink()
    model.save_pretrained(quantized)
    return original, quantized
