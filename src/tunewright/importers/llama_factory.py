"""LLaMA-Factory's settings, and what each becomes in a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.errors import regular
from tunewright.importers import values
from tunewright.importers.rules import Decision, Group, NoCounterpart, Rule, Tool

_LOSSES = {"sigmoid": "sigmoid", "ipo": "ipo"}
_TRACKERS = ("wandb", "tensorboard", "mlflow", "trackio")
_SIGNS = ("stage", "finetuning_type", "template", "cutoff_len", "dataset_dir", "do_train")
_RAW_TEXT = "raw text: list it as .txt in documents.paths and set training.text_share = 1.0"


def _is_it(given: Mapping[str, Any]) -> bool:
    return "model_name_or_path" in given and any(sign in given for sign in _SIGNS)


def _prefers(given: Mapping[str, Any]) -> bool:
    return given.get("stage") == "dpo"


def _method(given: Mapping[str, Any]) -> Decision:
    """Return the training method and the quantization of the base."""
    kind, bits = given.get("finetuning_type"), str(given.get("quantization_bit"))
    double = values.on(given.get("double_quantization", True))
    quantization = {"4": "nf4-double" if double else "nf4", "8": "int8"}.get(bits, "none")
    rslora, dora = (values.on(given.get(key)) for key in ("use_rslora", "use_dora"))
    settings = values.method(full=kind == "full", rslora=rslora, dora=dora, quantization=quantization)
    result = Decision(settings)
    for key, ours in (
        ("finetuning_type", ("training.method",)),
        ("use_rslora", ("training.method",)),
        ("use_dora", ("training.method",)),
        ("quantization_bit", ("model.quantization",)),
        ("double_quantization", ("model.quantization",)),
    ):
        if given.get(key) is not None:
            result.taken[key] = ours
    if kind not in ("lora", "full"):
        result.remarks["finetuning_type"] = "no such method; lora is used"
    if given.get("quantization_bit") is not None and bits not in ("4", "8"):
        result.remarks["quantization_bit"] = "only 4 and 8 bits are supported; the base stays unquantized"
    return values.without_quantization(result, "quantization_bit", "double_quantization")


def _scale(given: Mapping[str, Any]) -> Decision:
    """Return rank and alpha; LLaMA-Factory's default alpha is twice the rank."""
    result = Decision()
    for key, ours, read in (
        ("lora_rank", "training.rank", values.whole),
        ("lora_alpha", "training.alpha", values.number),
    ):
        if given.get(key) is None:
            continue
        try:
            result.settings[ours] = read(given[key])
            result.taken[key] = (ours,)
        except NoCounterpart as error:
            result.remarks[key] = str(error)
    if given.get("lora_alpha") is None and "training.rank" in result.settings:
        result.settings["training.alpha"] = 2.0 * result.settings["training.rank"]
        result.taken["lora_rank"] = ("training.rank", "training.alpha")
    return result


def _registered(folder: Path) -> Mapping[str, Any]:
    """Return the entries of dataset_info.json in a data folder; empty if it cannot be read."""
    try:
        content = json.loads(regular(folder / "dataset_info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, Mapping) else {}


def _data(given: Mapping[str, Any]) -> Decision:
    """Return the data: files by path, or by their entry in dataset_info.json."""
    preference, result = _prefers(given), Decision()
    ours = "preference.data" if preference else "synthesis.data"
    folder = given.get("dataset_dir")
    root = Path(folder) if isinstance(folder, str) and "\0" not in folder and len(folder) < 1024 else Path("data")
    files: list[str] = []
    missing: list[str] = []
    try:
        names = values.names(given["dataset"]) if given.get("dataset") else ()
    except NoCounterpart as error:
        names, result.remarks["dataset"] = (), str(error)
    entries = _registered(root) if names else {}
    for name in names:
        entry = entries.get(name)
        file = entry.get("file_name") if isinstance(entry, Mapping) else None
        path = str(root / file) if isinstance(file, str) else name
        (files if values.is_data_file(path) else missing).append(path)
    if files:
        result.taken["dataset"] = (ours,)
    if missing:
        result.remarks["dataset"] = f"{', '.join(missing)}: {values.HUB_DATA.format(ours)}"
    if given.get("stage") == "pt" and names:
        result.taken.pop("dataset", None)
        result.remarks["dataset"], files = _RAW_TEXT, []
    if given.get("dataset_dir") is not None:
        result.remarks["dataset_dir"] = "data files are listed by path, relative to the recipe's folder"
    result.settings = values.data(files, preference)
    _stage(given, result)
    return result


def _stage(given: Mapping[str, Any], result: Decision) -> None:
    """Add the stage to the result: supervised is the default of a recipe, DPO trains on pairs only."""
    stage = given.get("stage")
    if stage == "dpo":
        result.taken["stage"] = ("preference.data", "training.epochs")
    elif stage == "pt":
        result.remarks["stage"] = _RAW_TEXT
    elif stage == "sft":
        result.remarks["stage"] = "the default of a recipe"
    elif stage is not None:
        result.remarks["stage"] = "only sft and dpo are supported; the recipe only trains supervised"


def _loss(value: Any) -> str:
    if str(value) not in _LOSSES:
        raise NoCounterpart("no such loss; sigmoid is used")
    return _LOSSES[value]


def _tracker(value: Any) -> str:
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if names in (["none"], ["all"]):
        raise NoCounterpart("no tracker; the report shows the curves")
    supported = [name for name in names if name in _TRACKERS]
    if not supported:
        raise NoCounterpart(f"the supported trackers are {', '.join(_TRACKERS)}")
    return str(supported[0])


_RULES: dict[str, Rule] = {
    "model_name_or_path": Rule("model.base", "a folder or a hub name", values.text),
    "bf16": Rule("model.compute", "true is bf16", values.compute("bf16")),
    "pure_bf16": Rule("model.compute", "true is bf16", values.compute("bf16")),
    "fp16": Rule("model.compute", "true is fp16", values.compute("fp16")),
    "default_system": Rule("system_prompt", "the first message of written samples and of exam prompts", values.text),
    "cutoff_len": Rule("training.max_tokens", "a longer sample is dropped and counted, never truncated", values.whole),
    "lora_dropout": Rule("training.dropout", "above 0, training takes the slower path", values.number),
    "lora_target": Rule("training.targets", "all becomes all-linear", values.targets),
    "optim": Rule("training.optimizer", "AdamW: plain, 8-bit or paged 8-bit", values.optimizer),
    "lr_scheduler_type": Rule("training.schedule", "cosine, linear, constant", values.schedule),
    "warmup_ratio": Rule("training.warmup_share", "", values.number),
    "max_grad_norm": Rule("training.max_grad_norm", "", values.number),
    "val_size": Rule(
        "training.held_out_share", "a share of the samples, for the held-out loss; the exam is separate", values.share
    ),
    "save_steps": Rule("training.checkpoint_steps", "a checkpoint per epoch is kept as well", values.steps),
    "seed": Rule("seed", "also seeds the split and the exam", values.whole),
    "report_to": Rule("training.tracker", "wandb, tensorboard, mlflow or trackio", _tracker),
    "pref_beta": Rule("preference.beta", "", values.number),
    "pref_loss": Rule("preference.loss", "sigmoid and ipo", _loss),
    "dpo_label_smoothing": Rule("preference.label_smoothing", "", values.number),
    "reward_model": Rule("curation.reward", "it ranks answers; nothing is trained against it", values.text),
    "max_steps": Rule("", "training is measured in epochs: training.epochs"),
    "warmup_steps": Rule("", "warm-up is a share of the steps: training.warmup_share"),
    "max_samples": Rule("", "every line is read"),
    "template": Rule("", "the tokenizer's own template; a base without one gets a documented default"),
    "packing": Rule("", "samples are always packed; each attends only to itself"),
    "neat_packing": Rule("", "samples are always packed; each attends only to itself"),
    "train_on_prompt": Rule("", "the loss covers the answers and the token that ends each"),
    "mask_history": Rule("", "the loss is on every answer of a conversation"),
    "weight_decay": Rule("", "adapters are trained without weight decay"),
    "trust_remote_code": Rule("", "code from a model repository is never run"),
    "adapter_name_or_path": Rule("", "training starts from the base model, not from an adapter"),
    "output_dir": Rule("", "the run folder is set on the command line: tunewright run RECIPE --dir FOLDER"),
    "resume_from_checkpoint": Rule("", "a run resumes from its last checkpoint automatically"),
    "overwrite_output_dir": Rule("", "nothing is overwritten; unchanged stages are skipped"),
    "overwrite_cache": Rule("", "data is prepared again when its file changes"),
    "do_train": Rule("", "tunewright run runs all stages; stop after one: tunewright run --until STAGE"),
    "do_eval": Rule("", "the exam is always answered: tunewright run"),
    "do_predict": Rule("", "the exam is always answered: tunewright run"),
    "predict_with_generate": Rule("", "the exam is always answered by generation"),
    "logging_steps": Rule("", "every step is logged, in metrics.jsonl"),
    "plot_loss": Rule("", "the report shows the curves"),
    "flash_attn": Rule("", "the fastest available attention is used"),
    "use_unsloth": Rule("", "built-in kernels: training.kernels"),
    "use_unsloth_gc": Rule("", "chosen by the available memory"),
    "enable_liger_kernel": Rule("", "built-in kernels: training.kernels"),
    "gradient_checkpointing": Rule("", "chosen by the available memory"),
    "disable_gradient_checkpointing": Rule("", "chosen by the available memory"),
    "quantization_method": Rule("", "by bitsandbytes: NF4 or int8"),
    "quantization_type": Rule("", "4-bit is NF4"),
    "pissa_init": Rule("", "plain LoRA with its usual initialization"),
    "neftune_noise_alpha": Rule("", "no noise is added to embeddings"),
    "early_stopping_steps": Rule("", "training never stops early; a rising held-out loss is reported"),
    "pref_ftx": Rule("", "no supervised loss beside the preference loss"),
    "ref_model": Rule("", "the reference is the model before preference training, or the base: preference.reference"),
    "eval_dataset": Rule("", "the exam comes from held-out documents, or from your own exam.file"),
    "deepspeed": Rule("", "several GPUs: torchrun -m tunewright run; model.sharded shards an unquantized base"),
    "run_name": Rule("", "the name of the run folder is used"),
    "fp8": Rule("", "model.fp8 = true, for LoRA without dropout on Hopper or later GPUs"),
}
_FAMILIES = {
    "eval_": "the held-out loss is measured before the first step and after each epoch; the exam follows training",
    "per_device_eval": "the largest size that fits",
    "save_": "checkpoints are written every training.checkpoint_steps steps and per epoch, as safetensors",
    "fsdp": "several GPUs: torchrun -m tunewright run; model.sharded shards an unquantized base",
    "ddp_": "set by the launcher",
    "dataloader_": "the fastest choice is made automatically",
    "preprocessing_": "the fastest choice is made automatically",
    "adam_": "AdamW with torch's default constants",
    "lr_scheduler_kwargs": "schedules have no further parameters: training.schedule",
    "loraplus_": "one learning rate for the whole adapter",
    "lora_": "plain LoRA",
    "galore_": "no such optimizer",
    "apollo_": "no such optimizer",
    "badam_": "no such optimizer",
    "use_galore": "no such optimizer",
    "use_apollo": "no such optimizer",
    "use_badam": "no such optimizer",
    "use_muon": "no such optimizer",
    "use_adam_mini": "no such optimizer",
    "swanlab_": "no such tracker",
    "use_swanlab": "no such tracker",
    "freeze_": "an adapter or all weights are trained: training.method",
    "oft_": "no such method",
    "ppo_": "only sft and dpo are supported",
    "kto_": "only sft and dpo are supported",
    "simpo_": "preference losses: preference.loss",
    "image_": "only text is read",
    "video_": "only text is read",
    "audio_": "only text is read",
    "media_dir": "only text is read",
    "push_to_hub": "publishing is a separate step after the verdict: tunewright push",
    "hub_": "publishing is a separate step after the verdict: tunewright push",
    "export_": "exporting is a separate step after the verdict: tunewright export",
    "infer_": "answers are generated by transformers",
    "vllm_": "answers are generated by transformers",
    "ray_": "set by the launcher",
}

LLAMA_FACTORY = Tool(
    name="LLaMA-Factory",
    known_by=f"model_name_or_path with one of {', '.join(_SIGNS)}",
    is_it=_is_it,
    rules=_RULES,
    groups=(
        Group(
            ("finetuning_type", "use_rslora", "use_dora", "quantization_bit", "double_quantization"),
            ("training.method", "model.quantization"),
            "full trains an unquantized base",
            _method,
        ),
        Group(
            ("lora_rank", "lora_alpha"), ("training.rank", "training.alpha"), "the default alpha is 2 × rank", _scale
        ),
        Group(
            ("per_device_train_batch_size", "gradient_accumulation_steps"),
            ("training.batch_size",),
            "their product: samples per step over all GPUs",
            values.batch("per_device_train_batch_size", "gradient_accumulation_steps", "packing"),
        ),
        Group(
            ("learning_rate", "num_train_epochs"),
            ("training.learning_rate", "training.epochs", "preference.learning_rate", "preference.epochs"),
            "in [preference] if stage is dpo; whole epochs",
            values.phase("learning_rate", "num_train_epochs", _prefers),
        ),
        Group(
            ("dataset", "dataset_dir", "stage"),
            ("synthesis.data", "preference.data", "training.epochs"),
            "local .jsonl and .json, also by dataset_info.json; if stage is dpo, only pairs are trained on",
            _data,
        ),
        Group(
            ("add_tokens", "add_special_tokens"),
            ("model.added_tokens",),
            "both lists; their embeddings are trained as well",
            values.merged_names("model.added_tokens", "add_tokens", "add_special_tokens"),
        ),
    ),
    families=_FAMILIES,
    defaults={
        "finetuning_type": "lora",
        "lora_rank": 8,
        "lora_dropout": 0.0,
        "cutoff_len": 2048,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "learning_rate": 5e-5,
        "num_train_epochs": 3.0,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.0,
        "val_size": 0.0,
        "seed": 42,
    },
)
