"""LLaMA-Factory's settings, and what each becomes in a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.importers import values
from tunewright.importers.rules import Decision, Joint, Rule, Tool, Unlike

_LOSSES = {"sigmoid": "sigmoid", "ipo": "ipo"}
_TRACKERS = ("wandb", "tensorboard", "mlflow", "trackio")
_SIGNS = ("stage", "finetuning_type", "template", "cutoff_len", "dataset_dir", "do_train")
_RAW_TEXT = "raw text: put it as .txt into documents.paths and set training.text_share = 1.0"


def _is_it(given: Mapping[str, Any]) -> bool:
    return "model_name_or_path" in given and any(sign in given for sign in _SIGNS)


def _prefers(given: Mapping[str, Any]) -> bool:
    return given.get("stage") == "dpo"


def _method(given: Mapping[str, Any]) -> Decision:
    """Decide what is trained, on what kind of base."""
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
        result.remarks["finetuning_type"] = "no such method: lora instead"
    if given.get("quantization_bit") is not None and bits not in ("4", "8"):
        result.remarks["quantization_bit"] = "4 and 8 bit are known: the base stays unquantized"
    return values.without_quantization(result, "quantization_bit", "double_quantization")


def _scale(given: Mapping[str, Any]) -> Decision:
    """Decide rank and scale: there, a scale that is not named is twice the rank."""
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
        except Unlike as error:
            result.remarks[key] = str(error)
    if given.get("lora_alpha") is None and "training.rank" in result.settings:
        result.settings["training.alpha"] = 2.0 * result.settings["training.rank"]
        result.taken["lora_rank"] = ("training.rank", "training.alpha")
    return result


def _registered(folder: Path) -> Mapping[str, Any]:
    """Return what dataset_info.json of a data folder says of each data set, where there is one to read."""
    try:
        told = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, Mapping) else {}


def _data(given: Mapping[str, Any]) -> Decision:
    """Decide what is trained on: files by their path, or by their entry in dataset_info.json."""
    preference, result = _prefers(given), Decision()
    ours = "preference.data" if preference else "synthesis.data"
    folder = given.get("dataset_dir")
    root = Path(folder) if isinstance(folder, str) and "\0" not in folder and len(folder) < 1024 else Path("data")
    files: list[str] = []
    missing: list[str] = []
    try:
        wanted = values.names(given["dataset"]) if given.get("dataset") else ()
    except Unlike as error:
        wanted, result.remarks["dataset"] = (), str(error)
    known = _registered(root) if wanted else {}
    for name in wanted:
        entry = known.get(name)
        file = entry.get("file_name") if isinstance(entry, Mapping) else None
        path = str(root / file) if isinstance(file, str) else name
        (files if values.is_data_file(path) else missing).append(path)
    if files:
        result.taken["dataset"] = (ours,)
    if missing:
        result.remarks["dataset"] = f"{', '.join(missing)}: {values.HUB_DATA.format(ours)}"
    if given.get("stage") == "pt" and wanted:
        result.taken.pop("dataset", None)
        result.remarks["dataset"], files = _RAW_TEXT, []
    if given.get("dataset_dir") is not None:
        result.remarks["dataset_dir"] = "paths are named whole, from the recipe's folder"
    result.settings = values.data(files, preference)
    _stage(given, result)
    return result


def _stage(given: Mapping[str, Any], result: Decision) -> None:
    """Enter the stage: supervised is what a recipe trains anyway; DPO trains on pairs alone."""
    stage = given.get("stage")
    if stage == "dpo":
        result.taken["stage"] = ("preference.data", "training.epochs")
    elif stage == "pt":
        result.remarks["stage"] = _RAW_TEXT
    elif stage == "sft":
        result.remarks["stage"] = "what a recipe trains when it is not told otherwise"
    elif stage is not None:
        result.remarks["stage"] = "supervised and DPO are known; the recipe trains supervised alone"


def _loss(value: Any) -> str:
    if str(value) not in _LOSSES:
        raise Unlike("no such loss: sigmoid instead")
    return _LOSSES[value]


def _tracker(value: Any) -> str:
    wanted = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if wanted in (["none"], ["all"]):
        raise Unlike("no tracker; the report has the curves")
    found = [name for name in wanted if name in _TRACKERS]
    if not found:
        raise Unlike(f"trackers are {', '.join(_TRACKERS)}")
    return str(found[0])


_RULES: dict[str, Rule] = {
    "model_name_or_path": Rule("model.base", "a folder or a hub name", values.text),
    "bf16": Rule("model.compute", "true is bf16", values.compute("bf16")),
    "pure_bf16": Rule("model.compute", "true is bf16", values.compute("bf16")),
    "fp16": Rule("model.compute", "true is fp16", values.compute("fp16")),
    "default_system": Rule("system_prompt", "first message of written samples and of the exam", values.text),
    "cutoff_len": Rule("training.max_tokens", "a longer sample is left out and counted, never cut", values.whole),
    "lora_dropout": Rule("training.dropout", "above 0 takes the slower path", values.number),
    "lora_target": Rule("training.targets", "all is all-linear", values.targets),
    "optim": Rule("training.optimizer", "AdamW: plain, 8-bit or paged 8-bit", values.optimizer),
    "lr_scheduler_type": Rule("training.schedule", "cosine, linear, constant", values.schedule),
    "warmup_ratio": Rule("training.warmup_share", "", values.number),
    "max_grad_norm": Rule("training.max_grad_norm", "", values.number),
    "val_size": Rule("training.held_out_share", "a share; kept for the loss, beside the exam", values.share),
    "save_steps": Rule("training.checkpoint_steps", "a checkpoint per epoch is kept besides", values.steps),
    "seed": Rule("seed", "also of the split and of the exam", values.whole),
    "report_to": Rule("training.tracker", "wandb, tensorboard, mlflow or trackio", _tracker),
    "pref_beta": Rule("preference.beta", "", values.number),
    "pref_loss": Rule("preference.loss", "sigmoid and ipo", _loss),
    "dpo_label_smoothing": Rule("preference.label_smoothing", "", values.number),
    "reward_model": Rule("curation.reward", "it ranks; nothing is trained against it", values.text),
    "max_steps": Rule("", "the training is counted in epochs: training.epochs"),
    "warmup_steps": Rule("", "the warm-up is a share of the steps: training.warmup_share"),
    "max_samples": Rule("", "every line is read"),
    "template": Rule("", "the tokenizer's own; a base without one gets a stated one"),
    "packing": Rule("", "samples are always packed, each seeing only itself"),
    "neat_packing": Rule("", "samples are always packed, each seeing only itself"),
    "train_on_prompt": Rule("", "the loss is on the answers and on the token that ends each"),
    "mask_history": Rule("", "the loss is on every answer of a conversation"),
    "weight_decay": Rule("", "adapters are trained without weight decay"),
    "trust_remote_code": Rule("", "code of a model is never run"),
    "adapter_name_or_path": Rule("", "training starts from the base, not from an adapter"),
    "output_dir": Rule("", "the run folder is named at the start: tunewright run RECIPE --dir FOLDER"),
    "resume_from_checkpoint": Rule("", "a run goes on from its last checkpoint by itself"),
    "overwrite_output_dir": Rule("", "nothing is overwritten; unchanged stages are skipped"),
    "overwrite_cache": Rule("", "data is prepared anew when its file changes"),
    "do_train": Rule("", "the whole path is run; up to a stage: tunewright run --until STAGE"),
    "do_eval": Rule("", "the exam is always sat: tunewright run"),
    "do_predict": Rule("", "the exam is always sat: tunewright run"),
    "predict_with_generate": Rule("", "the exam is always answered by generation"),
    "logging_steps": Rule("", "every step is logged, in metrics.jsonl"),
    "plot_loss": Rule("", "the report has the curves"),
    "flash_attn": Rule("", "the fastest attention that is at hand is taken"),
    "use_unsloth": Rule("", "kernels of its own: training.kernels"),
    "use_unsloth_gc": Rule("", "decided by the memory there is: training.activation_checkpointing"),
    "enable_liger_kernel": Rule("", "kernels of its own: training.kernels"),
    "gradient_checkpointing": Rule("", "decided by the memory there is: training.activation_checkpointing"),
    "disable_gradient_checkpointing": Rule("", "decided by the memory there is: training.activation_checkpointing"),
    "quantization_method": Rule("", "by bitsandbytes: NF4 or int8"),
    "quantization_type": Rule("", "4 bit is NF4"),
    "pissa_init": Rule("", "plain LoRA, initialized as LoRA is"),
    "neftune_noise_alpha": Rule("", "no noise is put on embeddings"),
    "early_stopping_steps": Rule("", "nothing stops early; a held-out loss that turns is told"),
    "pref_ftx": Rule("", "no supervised loss beside the preference loss"),
    "ref_model": Rule("", "the reference is the model before, or the base: preference.reference"),
    "eval_dataset": Rule("", "the exam is made of held-out documents, or is yours: exam.file"),
    "deepspeed": Rule("", "several GPUs: torchrun -m tunewright run; model.sharded spreads an unquantized base"),
    "run_name": Rule("", "the run folder's name is used"),
    "fp8": Rule("", "model.fp8 = true, for LoRA without dropout on Hopper and later"),
}
_FAMILIES = {
    "eval_": "the held-out loss is taken before the first step and after each epoch; then comes the exam",
    "per_device_eval": "what fits is taken",
    "save_": "checkpoints are kept each training.checkpoint_steps and per epoch, as safetensors",
    "fsdp": "several GPUs: torchrun -m tunewright run; model.sharded spreads an unquantized base",
    "ddp_": "told by the launcher",
    "dataloader_": "what is fastest is taken",
    "preprocessing_": "what is fastest is taken",
    "adam_": "AdamW with torch's own constants",
    "lr_scheduler_kwargs": "the schedules are plain: training.schedule",
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
    "freeze_": "an adapter, or every weight: training.method",
    "oft_": "no such method",
    "ppo_": "supervised and DPO are known",
    "kto_": "supervised and DPO are known",
    "simpo_": "of the preference losses: preference.loss",
    "image_": "text alone is read",
    "video_": "text alone is read",
    "audio_": "text alone is read",
    "media_dir": "text alone is read",
    "push_to_hub": "publishing is a step of its own, after the verdict",
    "hub_": "publishing is a step of its own, after the verdict",
    "export_": "exporting is a step of its own, after the verdict",
    "infer_": "answers are generated by transformers",
    "vllm_": "answers are generated by transformers",
    "ray_": "told by the launcher",
}

LLAMA_FACTORY = Tool(
    name="LLaMA-Factory",
    known_by=f"model_name_or_path with one of {', '.join(_SIGNS)}",
    is_it=_is_it,
    rules=_RULES,
    joints=(
        Joint(
            ("finetuning_type", "use_rslora", "use_dora", "quantization_bit", "double_quantization"),
            ("training.method", "model.quantization"),
            "full is on an unquantized base",
            _method,
        ),
        Joint(("lora_rank", "lora_alpha"), ("training.rank", "training.alpha"), "a scale left out is 2 × rank", _scale),
        Joint(
            ("per_device_train_batch_size", "gradient_accumulation_steps"),
            ("training.batch_size",),
            "their product: samples of one step over all GPUs",
            values.batch("per_device_train_batch_size", "gradient_accumulation_steps", "packing"),
        ),
        Joint(
            ("learning_rate", "num_train_epochs"),
            ("training.learning_rate", "training.epochs", "preference.learning_rate", "preference.epochs"),
            "of [preference] in the stage dpo; whole epochs",
            values.phase("learning_rate", "num_train_epochs", _prefers),
        ),
        Joint(
            ("dataset", "dataset_dir", "stage"),
            ("synthesis.data", "preference.data", "training.epochs"),
            "local .jsonl and .json, also by dataset_info.json; pairs alone in the stage dpo",
            _data,
        ),
        Joint(
            ("add_tokens", "add_special_tokens"),
            ("model.added_tokens",),
            "both lists; their embeddings are trained too",
            values.united("model.added_tokens", "add_tokens", "add_special_tokens"),
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
