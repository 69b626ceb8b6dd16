"""Loading and saving the student: the base in NF4, 8, 16 or 32 bit, with an adapter or all weights trainable."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import distributed
from tunewright.errors import ModelError, cause_of, is_lack_of_memory
from tunewright.models.adapter_files import check_adapter
from tunewright.models.base_folder import check_config, folder_kind
from tunewright.models.experts import adapting, expert_targets, quantize_experts, trains_experts
from tunewright.models.families import family_of
from tunewright.models.model_files import folder_fault, reading_model
from tunewright.models.source import read_config
from tunewright.models.stored_quantization import compute_in, stored_nf4
from tunewright.settings import TrainingSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module
    from transformers import BitsAndBytesConfig, PreTrainedModel


def outline(folder: Path, quantization: str, dtype: torch.dtype) -> PreTrainedModel:
    """Return a base without its weights, its layers replaced by quantized ones as ``load_base`` replaces them."""
    quiet_libraries()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.quantizers import AutoHfQuantizer

    with reading_model("base model", folder), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_config(config)
    if quantization != "none":
        stated = quantization_config(quantization, dtype, _unquantized(read_config(folder)))
        quantizer = AutoHfQuantizer.from_config(stated, pre_quantized=False)
        quantizer.preprocess_model(model, device_map={"": "cpu"}, dtype=dtype)
    return model


def _unquantized(config: Mapping[str, Any]) -> list[str] | None:
    """Return the modules that stay as they are where the family names some; None leaves the choice to transformers."""
    own = family_of(config).unquantized
    return [*own, "lm_head"] if own else None


def quantized_layers(folder: Path, quantization: str, dtype: torch.dtype) -> frozenset[str]:
    """Return the names of the layers that transformers quantizes when it loads the model; no weights are loaded."""
    if quantization == "none":
        return frozenset()
    kinds = ("Linear4bit", "Linear8bitLt")
    modules = outline(folder, quantization, dtype).named_modules()
    return frozenset(name for name, module in modules if type(module).__name__ in kinds)


def transposed_layers(folder: Path) -> frozenset[str]:
    """Return the names of the layers whose weights are [in, out]; no weights are loaded."""
    import torch
    from transformers.pytorch_utils import Conv1D

    modules = outline(folder, "none", torch.float32).named_modules()
    return frozenset(name for name, module in modules if isinstance(module, Conv1D))


def dequantized(weight: Tensor, quantization: str, device: str) -> Tensor:
    """Return a weight [out, in] quantized and unpacked again: same shape and type, on ``device``."""
    import bitsandbytes as bnb

    if quantization == "int8":
        quantized = bnb.nn.Int8Params(weight.contiguous(), requires_grad=False).to(device)
        return bnb.functional.int8_vectorwise_dequant(quantized.data, quantized.SCB)
    packed, state = bnb.functional.quantize_4bit(
        weight.contiguous().to(device), compress_statistics=quantization == "nf4-double", quant_type="nf4"
    )
    return bnb.functional.dequantize_4bit(packed, state)


def quiet_libraries() -> None:
    """Hide progress bars and advice of the model libraries; errors still raise."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Packed rows differ in length from step to step: expandable segments keep a GPU's memory from fragmenting. torch
    # reads this at the first allocation.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|bitsandbytes")
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")


def pick_device() -> str:
    """Return this process's GPU, such as "cuda:0"; "cpu" without a GPU."""
    import torch

    return f"cuda:{distributed.processes().local_rank}" if torch.cuda.is_available() else "cpu"


def compute_dtype(device: str, name: str = "auto") -> torch.dtype:
    """Return the type to compute in; "auto" takes bf16 if the hardware has it, else fp16 on a GPU and fp32 on a CPU.

    A CPU without bf16 units runs products some forty times slower in bf16 than in fp32; a GPU before Ampere (T4, V100)
    only emulates bf16.
    """
    import torch

    if name != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def quantization_config(quantization: str, dtype: torch.dtype, skipped: list[str] | None = None) -> BitsAndBytesConfig:
    """Return the configuration by which transformers quantizes a base as it loads, all but the ``skipped`` modules.

    Raises:
        ModelError: bitsandbytes, which quantizes, is not installed.
    """
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        hint = 'pip install bitsandbytes, or train without it: --set model.quantization="none"'
        raise ModelError(f"cannot quantize the base to {quantization}", "bitsandbytes is not installed", hint)

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)  # LLM.int8 (Dettmers et al. 2022)
    return BitsAndBytesConfig(  # QLoRA (Dettmers et al. 2023)
        load_in_4bit=True,
        llm_int8_skip_modules=skipped,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=quantization == "nf4-double",
        bnb_4bit_compute_dtype=dtype,
    )


def load_base(
    folder: Path, quantization: str, device: str, dtype: torch.dtype | None = None, num_tokens: int = 0
) -> PreTrainedModel:
    """Load the base model with all weights frozen.

    Args:
        folder: a local model folder.
        quantization: "nf4-double" (NF4 with quantized scales), "nf4", "int8", or "none"; a base whose files are in NF4
            stays as it is.
        device: "cpu" or "cuda:0".
        dtype: type to compute in; None chooses by the hardware.
        num_tokens: size of the tokenizer; a smaller embedding grows to it.

    Raises:
        ModelError: the architecture is unknown, the files are damaged, or the weights are pickles.
    """
    quiet_libraries()
    from transformers import AutoModelForCausalLM

    dtype = dtype or compute_dtype(device)
    if fault := folder_kind(folder):  # of an adapter, transformers would load another base, and the adapter on it
        raise ModelError(f"{folder} is not a model folder", *fault)
    config = read_config(folder)
    check_config(folder, config)
    stored = stored_nf4(config)
    quantized = quantization != "none" and not stored
    stated = quantization_config(quantization, dtype, _unquantized(config)) if quantized else None
    extra = {"quantization_config": stated} if stated else {}
    # transformers quantizes linear layers alone: experts are quantized here, one parameter after the other.
    sparse = quantized and quantization != "int8" and trains_experts(str(config.get("model_type", "")))
    with reading_model("base model", folder, "download the model again, or check the installation: tunewright doctor"):
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": "cpu" if sparse else device},
            attn_implementation=family_of(config).attention or None,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **extra,
        )
    if missing := missing_weights(model, report):
        raise ModelError(
            f"the weights in {folder} are incomplete", f"{missing[0]} is missing", "download the model again"
        )
    if device == "cpu":
        _keep_layout(model)
    if stored:
        compute_in(model, dtype)
    if sparse:
        quantize_experts(model, quantization, device)
        model.to(device)
    _grow_embedding(model, num_tokens)
    model.config.use_cache = False
    model.requires_grad_(False)
    return model


def _keep_layout(model: PreTrainedModel) -> None:
    """Keep the 4-bit weights of a base on a CPU as they are.

    On a CPU with bf16 units, bitsandbytes reorders them at the first call without gradients, and computes in bf16 from
    then on, whatever the type asked for: a call between training steps would change the steps after it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def missing_weights(model: PreTrainedModel, report: Mapping[str, Any]) -> list[str]:
    """Return the weights that a folder lacks, which would be random, by transformers' report; not a tied head."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    return sorted(str(name) for name in report["missing_keys"] if name not in tied)


def _grow_embedding(model: PreTrainedModel, num_tokens: int) -> None:
    """Grow the embedding, and a head with weights of its own, to ``num_tokens``.

    A new row is the mean of the old rows, as in transformers, but without its random part: all processes of a training,
    a resumed run and the exam each load the base, and must get the same numbers.
    """
    import torch

    old = model.get_input_embeddings().weight.shape[0]
    if num_tokens <= old:
        return
    model.resize_token_embeddings(num_tokens, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[old:] = layer.weight[:old].float().mean(0).to(layer.weight.dtype)
            if getattr(layer, "bias", None) is not None:
                layer.bias[old:] = layer.bias[:old].mean()


def _token_layers(model: PreTrainedModel, new_tokens: tuple[int, ...]) -> dict[str, list[int]] | None:
    """Return the layers whose rows of new tokens are trained: the embedding, and a head that is not tied to it.

    Without a trained row in the head, a new token could be read but hardly ever written.
    """
    if not new_tokens:
        return None
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    layers = [inputs] if outputs.weight is inputs.weight else [inputs, outputs]
    return {
        name: list(new_tokens) for name, module in model.named_modules() if any(module is layer for layer in layers)
    }


def is_linear(module: Module) -> bool:
    """Return whether a module is a linear layer, quantized or not; GPT-2 has a class of its own for them."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (Linear, Conv1D))


_ATTENTION = re.compile(r"(^|\.)[^.]*(attn|attention|mixer)[^.]*\.([^.]+\.)*?([^.]+)$")


def attention_layers(model: Module) -> list[str]:
    """Return the names of the linear layers in modules of attention, each with its parent's: GPT-2 has two "c_proj"."""
    names = [name for name, module in model.named_modules() if is_linear(module) and _ATTENTION.search(name)]
    return sorted({".".join(name.split(".")[-2:]) for name in names})


def attach_adapter(
    model: PreTrainedModel, settings: TrainingSettings, seed: int, new_tokens: tuple[int, ...] = ()
) -> PreTrainedModel:
    """Make the model trainable: a fresh adapter whose weights are a pure function of the seed, or all weights.

    LoRA (Hu et al. 2021), rank-stabilized LoRA (Kalajdzievski 2023) or DoRA (Liu et al. 2024), through peft.

    Args:
        model: the frozen base.
        settings: method, rank, alpha, dropout and targets.
        seed: of the adapter's initial weights.
        new_tokens: ids whose embeddings are trained beside the adapter.

    Raises:
        ModelError: no layer matches the targets.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    if settings.method == "full":
        return model.requires_grad_(True)
    family = family_of(model.config.to_dict())
    targets: str | list[str] = list(settings.targets)
    adapted = settings.targets == ("all-linear",) and trains_experts(model.config.model_type)
    parameters = expert_targets(model) if adapted else []
    if parameters:  # by name: peft would take "all-linear" of such a model for its router too
        targets = list(family.attention_layers)
    elif settings.targets == ("all-linear",):
        targets = "all-linear"
    elif settings.targets == ("attention",):
        targets = list(family.attention_layers) or attention_layers(model)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        target_parameters=parameters or None,
        exclude_modules=_excluded(model, family.no_adapter),
        use_rslora=settings.method == "rslora",
        use_dora=settings.method == "dora",
        trainable_token_indices=_token_layers(model, new_tokens),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    try:
        with adapting(model):
            return get_peft_model(model, config)
    except ValueError as error:
        every, head = settings.targets == ("all-linear",), model.get_output_embeddings()
        linear = [name for name, module in model.named_modules() if is_linear(module) and module is not head]
        names = json.dumps(sorted({name.rpartition(".")[2] for name in linear}))
        raise ModelError(
            "no layer of the model matches training.targets"
            if "not found" in str(error)
            else f"training.targets = {json.dumps(settings.targets)} does not fit this base",
            str(error).splitlines()[0],
            f"name layers of it that may have an adapter, of {names}" if every else 'use targets = ["all-linear"]',
        ) from error


def _excluded(model: PreTrainedModel, pattern: str) -> str | None:
    """Return the pattern of modules without an adapter, where the model has some: peft warns of any other."""
    return pattern if pattern and any(re.fullmatch(pattern, name) for name, _ in model.named_modules()) else None


def is_full(folder: Path) -> bool:
    """Return whether a folder holds a whole tuned model, not an adapter."""
    return not (folder / "adapter_config.json").exists() and (folder / "config.json").exists()


@contextmanager
def _fitting(folder: Path, hint: str) -> Iterator[None]:
    """Make what peft says of an adapter whose files are sound an error of the adapter and its base."""
    try:
        yield
    except (ValueError, RuntimeError, KeyError) as error:
        if folder_fault(folder) or is_lack_of_memory(error):
            raise
        raise ModelError(f"the adapter in {folder} does not fit the base model", cause_of(error), hint) from error


def load_adapter(model: PreTrainedModel, folder: Path, name: str = "default") -> PreTrainedModel:
    """Put a saved adapter on the base, for inference; a whole tuned model replaces the base.

    Each further adapter on the same base needs a name of its own. The adapter loaded last is active until peft's
    ``set_adapter`` names another.

    Raises:
        ModelError: the adapter belongs to another base, or could run code or hang in the library that loads it.
    """
    from peft import PeftModel

    if is_full(folder):
        return load_base(folder, "none", str(model.device), model.dtype).eval()
    check_adapter(folder, [name for name, _ in model.named_modules()])
    adapted = model
    hint = "run the recipe on this run folder again: a damaged adapter is trained again"
    with reading_model("adapter", folder, hint), _fitting(folder, hint), adapting(model):
        if isinstance(model, PeftModel):
            model.load_adapter(folder, name, is_trainable=False)
            model.set_adapter(name)
        else:
            adapted = PeftModel.from_pretrained(model, folder, name, is_trainable=False)
    adapted.eval()
    return adapted


def start_from(model: PreTrainedModel, folder: Path) -> None:
    """Give a fresh adapter the weights of a saved one, so that training goes on from there.

    Raises:
        ModelError: the saved adapter has other targets, another rank or another base.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    hint = "keep training.rank and training.targets as they were for that adapter, or remove training.start"
    check_adapter(folder, [name for name, _ in model.get_base_model().named_modules()])
    with reading_model("adapter", folder, hint), _fitting(folder, hint):
        weights = load_peft_weights(str(folder), device=str(model.device))
        own = {name for name, value in model.named_parameters() if value.requires_grad}
        if len(weights) != len(own):
            raise ValueError(f"it has {len(weights)} trained parts, and this recipe's has {len(own)}")
        loaded = set_peft_model_state_dict(model, weights)
        if loaded.unexpected_keys:
            raise ValueError(f"it has {loaded.unexpected_keys[0]}, which this recipe's adapter lacks")


def save_adapter(model: PreTrainedModel, folder: Path, base_name: str, dtype: torch.dtype | None = None) -> None:
    """Write an adapter in peft's format, for the base of this name; the same weights give the same bytes.

    A fully tuned model is written whole, its weights rounded to ``dtype``.
    """
    if not hasattr(model, "peft_config"):
        weights = {name: value.to(dtype or value.dtype) for name, value in model.state_dict().items()}
        model.save_pretrained(folder, state_dict=weights)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["dtype"] = str(dtype or model.dtype).removeprefix("torch.")
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name  # rather than the folder in this machine's cache
    # peft keeps the targets in sets, whose order differs from process to process.
    for key in ("target_modules", "target_parameters"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def for_inference(model: PreTrainedModel) -> PreTrainedModel:
    """Return the base with NF4 weights unpacked to the compute type: the same numbers, no unpacking per token.

    On a GPU, only where they take less than a quarter of its memory; else the 4-bit weights stay.
    """
    model.eval()
    if getattr(model, "is_loaded_in_4bit", False) and _fits_unpacked(model):
        unpacked: PreTrainedModel = model.dequantize()
        return unpacked
    return model


def _fits_unpacked(model: PreTrainedModel) -> bool:
    import torch

    if model.device.type != "cuda":
        return True  # a CPU's memory surely suffices
    free, whole = torch.cuda.mem_get_info(model.device)
    layers = [module for module in model.modules() if type(module).__name__ == "Linear4bit"]
    size = sum(layer.in_features * layer.out_features * model.dtype.itemsize for layer in layers)
    return bool(size < min(whole / 4, free / 2))
