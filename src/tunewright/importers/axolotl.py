"""Axolotl's settings, and what each becomes in a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunewright.importers import values
from tunewright.importers.rules import Decision, Group, NoCounterpart, Rule, Tool

_CHATS = ("chat_template", "sharegpt", "alpaca")
_PAIRS = {"dpo": "sigmoid", "ipo": "ipo"}
_FIELDS = ("messages", "conversations", "conversation")
_SUPERVISED = "the recipe only trains supervised"


def _prefers(given: Mapping[str, Any]) -> bool:
    return str(given.get("rl")) in _PAIRS


def _method(given: Mapping[str, Any]) -> Decision:
    """Return the training method and the quantization of the base."""
    adapter = given.get("adapter")
    config = given.get("bnb_config_kwargs")
    config = config if isinstance(config, Mapping) else {}
    four = values.on(given.get("load_in_4bit")) or adapter == "qlora"
    eight = values.on(given.get("load_in_8bit")) and not four
    plain = config.get("bnb_4bit_use_double_quant") is False
    quantization = ("nf4" if plain else "nf4-double") if four else "int8" if eight else "none"
    flags = {"peft_use_rslora": "training.method", "peft_use_dora": "training.method"}
    flags |= {"load_in_4bit": "model.quantization", "load_in_8bit": "model.quantization"}
    result = Decision(
        values.method(
            full=adapter in (None, ""),
            rslora=values.on(given.get("peft_use_rslora")),
            dora=values.on(given.get("peft_use_dora")),
            quantization=quantization,
        )
    )
    result.taken = {key: (ours,) for key, ours in flags.items() if given.get(key) is not None}
    if adapter in ("lora", "qlora", None, ""):
        result.taken["adapter"] = ("training.method", "model.quantization")
    else:
        result.remarks["adapter"] = "no such adapter; lora is used"
    if "bnb_4bit_use_double_quant" in config:
        result.taken["bnb_config_kwargs.bnb_4bit_use_double_quant"] = ("model.quantization",)
    if config.get("bnb_4bit_quant_type") == "nf4":
        result.taken["bnb_config_kwargs.bnb_4bit_quant_type"] = ("model.quantization",)
    elif "bnb_4bit_quant_type" in config:
        result.remarks["bnb_config_kwargs.bnb_4bit_quant_type"] = "4-bit is always NF4"
    return values.without_quantization(result, "load_in_4bit", "load_in_8bit")


def _targets(given: Mapping[str, Any]) -> Decision:
    """Return which layers get an adapter; all linear layers win, as in Axolotl."""
    result, ours = Decision(), ("training.targets",)
    if values.on(given.get("lora_target_linear")):
        return Decision({"training.targets": ("all-linear",)}, dict.fromkeys(_target_keys(given), ours))
    try:
        if given.get("lora_target_modules"):
            result.settings["training.targets"] = values.targets(given["lora_target_modules"])
            result.taken["lora_target_modules"] = ours
    except NoCounterpart as error:
        result.remarks["lora_target_modules"] = str(error)
    if given.get("lora_target_linear") is not None:
        result.remarks["lora_target_linear"] = "off: the listed modules, or all linear layers if none is listed"
    return result


def _target_keys(given: Mapping[str, Any]) -> list[str]:
    return [key for key in ("lora_target_linear", "lora_target_modules") if given.get(key)]


def _data_sets(given: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each data set under its full name."""
    sets = given.get("datasets")
    for index, data_set in enumerate(sets if isinstance(sets, list) else []):
        if isinstance(data_set, Mapping):
            yield f"datasets[{index}]", data_set


def _data(given: Mapping[str, Any]) -> Decision:
    """Return the data: local files are read in place; data sets on the hub have to be saved first."""
    preference, result = _prefers(given), Decision()
    ours = "preference.data" if preference else "synthesis.data"
    files: list[str] = []
    for name, data_set in _data_sets(given):
        within, path = data_set.get("data_files"), data_set.get("path")
        sources = {"data_files": within} if path in ("json", None) and within else {"path": path}
        for key, value in sources.items():
            paths = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            if paths and all(values.is_data_file(path) for path in paths):
                files += paths
                result.taken[f"{name}.{key}"] = (ours,)
            elif value is not None:
                result.remarks[f"{name}.{key}"] = values.HUB_DATA.format(ours)
        kind = data_set.get("type")
        if isinstance(kind, str) and kind:
            result.remarks[f"{name}.type"] = _format_note(kind, preference)
        for key in ("field_messages", "field_chosen", "field_rejected"):
            if isinstance(data_set.get(key), str) and data_set[key]:
                result.remarks[f"{name}.{key}"] = _field_note(key, data_set[key])
    result.settings = values.data(files, preference)
    if preference:
        result.taken["rl"] = ("preference.data", "preference.loss", "training.epochs")
        result.settings["preference.loss"] = _PAIRS[given["rl"]]
    elif given.get("rl"):
        result.remarks["rl"] = f"only DPO and IPO are supported; {_SUPERVISED}"
    return result


def _format_note(kind: str, preference: bool) -> str:
    if preference:
        return "each line needs prompt, chosen and rejected"
    if kind.startswith(_CHATS):
        return "detected from the keys of each line: messages, conversations, or instruction and output"
    if kind.startswith("completion"):
        return "raw text: list it as .txt in documents.paths and set training.text_share = 1.0"
    return "not a supported format; supported are messages, ShareGPT, Alpaca, and prompt with completion"


def _field_note(key: str, name: str) -> str:
    names = _FIELDS if key == "field_messages" else (key.removeprefix("field_"),)
    return "the expected name" if name in names else f"the expected name is {names[0]}: rename it in the file"


_RULES: dict[str, Rule] = {
    "base_model": Rule("model.base", "a folder or a hub name", values.text),
    "bf16": Rule("model.compute", "true is bf16", values.compute("bf16")),
    "bfloat16": Rule("model.compute", "true is bf16", values.compute("bf16")),
    "fp16": Rule("model.compute", "true is fp16", values.compute("fp16")),
    "float16": Rule("model.compute", "true is fp16", values.compute("fp16")),
    "tokens": Rule("model.added_tokens", "their embeddings are trained as well", values.names),
    "default_system_message": Rule(
        "system_prompt", "the first message of written samples and of exam prompts", values.text
    ),
    "sequence_len": Rule(
        "training.max_tokens", "a longer sample is dropped and counted, never truncated", values.whole
    ),
    "lora_r": Rule("training.rank", "", values.whole),
    "lora_alpha": Rule("training.alpha", "", values.number),
    "lora_dropout": Rule("training.dropout", "above 0, training takes the slower path", values.number),
    "optimizer": Rule("training.optimizer", "AdamW: plain, 8-bit or paged 8-bit", values.optimizer),
    "lr_scheduler": Rule("training.schedule", "cosine, linear, constant", values.schedule),
    "warmup_ratio": Rule("training.warmup_share", "", values.number),
    "max_grad_norm": Rule("training.max_grad_norm", "", values.number),
    "val_set_size": Rule(
        "training.held_out_share", "a share of the samples, for the held-out loss; the exam is separate", values.share
    ),
    "save_steps": Rule("training.checkpoint_steps", "a checkpoint per epoch is kept as well", values.steps),
    "seed": Rule("seed", "also seeds the split and the exam", values.whole),
    "wandb_project": Rule("training.tracker", "its name: export WANDB_PROJECT=...", lambda value: "wandb"),
    "mlflow_tracking_uri": Rule("training.tracker", "export MLFLOW_TRACKING_URI=...", lambda value: "mlflow"),
    "use_tensorboard": Rule("training.tracker", "", values.switch("tensorboard")),
    "rl_beta": Rule("preference.beta", "", values.number),
    "dpo_label_smoothing": Rule("preference.label_smoothing", "", values.number),
    "max_steps": Rule("", "training is measured in epochs: training.epochs"),
    "warmup_steps": Rule("", "warm-up is a share of the steps: training.warmup_share"),
    "sample_packing": Rule("", "samples are always packed; each attends only to itself"),
    "pad_to_sequence_len": Rule("", "rows are packed, not padded"),
    "group_by_length": Rule("", "rows are packed; the order stays random"),
    "train_on_inputs": Rule("", "the loss covers the answers and the token that ends each"),
    "gradient_checkpointing": Rule("", "chosen by the available memory"),
    "gradient_checkpointing_kwargs": Rule("", "chosen by the available memory"),
    "weight_decay": Rule("", "adapters are trained without weight decay"),
    "chat_template": Rule("", "the tokenizer's own template; a base without one gets a documented default"),
    "chat_template_jinja": Rule("", "the tokenizer's own template; a base without one gets a documented default"),
    "trust_remote_code": Rule("", "code from a model repository is never run"),
    "output_dir": Rule("", "the run folder is set on the command line: tunewright run RECIPE --dir FOLDER"),
    "resume_from_checkpoint": Rule("", "a run resumes from its last checkpoint automatically"),
    "auto_resume_from_checkpoints": Rule("", "a run resumes from its last checkpoint automatically"),
    "early_stopping_patience": Rule("", "training never stops early; a rising held-out loss is reported"),
    "neftune_noise_alpha": Rule("", "no noise is added to embeddings"),
    "strict": Rule("", "an unknown setting is always an error"),
    "tf32": Rule("", "chosen by the hardware"),
    "logging_steps": Rule("", "every step is logged, in metrics.jsonl"),
    "save_total_limit": Rule("", "the last checkpoint and one per epoch are kept"),
    "eval_batch_size": Rule("", "the largest size that fits"),
    "lora_model_dir": Rule("", "training starts from the base model, not from an adapter"),
    "lora_modules_to_save": Rule("", "embeddings of new tokens are trained and saved: model.added_tokens"),
    "model_type": Rule("", "read from the base's config.json"),
    "tokenizer_type": Rule("", "read from the base's files"),
    "dataset_exact_deduplication": Rule("", "near-duplicates are always dropped: curation.near_duplicate"),
    "pretraining_dataset": Rule("", "raw text: list it as .txt in documents.paths and set training.text_share = 1.0"),
    "deepspeed": Rule("", "several GPUs: torchrun -m tunewright run; model.sharded shards an unquantized base"),
    "fp8": Rule("", "model.fp8 = true, for LoRA without dropout on Hopper or later GPUs"),
}
_FAMILIES = {
    "datasets": "every line of a file is read, in order, by its own keys",
    "test_datasets": "the exam comes from held-out documents, or from your own exam.file",
    "fsdp": "several GPUs: torchrun -m tunewright run; model.sharded shards an unquantized base",
    "special_tokens": "the tokenizer's own; padding is masked by position, so it may be the end token",
    "wandb_": "names come from the tracker's own environment variables, such as WANDB_NAME",
    "mlflow_": "names come from the tracker's own environment variables",
    "comet_": "no such tracker",
    "use_comet": "no such tracker",
    "hub_": "publishing is a separate step after the verdict: tunewright push",
    "push_dataset_to_hub": "publishing is a separate step after the verdict: tunewright push",
    "dataset_": "data is prepared again when its file changes",
    "eval": "the held-out loss is measured before the first step and after each epoch; the exam follows training",
    "save": "checkpoints are written every training.checkpoint_steps steps and per epoch, as safetensors",
    "flash_": "the fastest available attention is used",
    "xformers_attention": "the fastest available attention is used",
    "sdp_attention": "the fastest available attention is used",
    "attn_implementation": "the fastest available attention is used",
    "s2_attention": "the model's own attention is used",
    "sample_pack": "samples are always packed; each attends only to itself",
    "lora_": "plain LoRA with built-in kernels: training.kernels",
    "loraplus_": "one learning rate for the whole adapter",
    "peft": "plain LoRA with its usual initialization",
    "relora_": "no restarts: plain LoRA",
    "bnb_config_kwargs": "4-bit is NF4, 8-bit is int8",
    "adam_": "AdamW with torch's default constants",
    "optim_": "AdamW with torch's default constants",
    "lr_": "schedules have no further parameters: training.schedule",
    "cosine_": "schedules have no further parameters: training.schedule",
    "ddp_": "set by the launcher",
    "dataloader_": "the fastest choice is made automatically",
    "trl": "only DPO and IPO are supported",
    "plugins": "built-in kernels: training.kernels",
    "liger_": "built-in kernels: training.kernels",
    "torch_compile": "built-in kernels: training.kernels",
    "unsloth_": "built-in kernels: training.kernels",
}

AXOLOTL = Tool(
    name="Axolotl",
    known_by="base_model",
    is_it=lambda given: "base_model" in given,
    rules=_RULES,
    groups=(
        Group(
            ("adapter", "load_in_4bit", "load_in_8bit", "peft_use_rslora", "peft_use_dora", "bnb_config_kwargs"),
            ("training.method", "model.quantization"),
            "without an adapter: full, on an unquantized base",
            _method,
        ),
        Group(("lora_target_linear", "lora_target_modules"), ("training.targets",), "", _targets),
        Group(
            ("micro_batch_size", "gradient_accumulation_steps"),
            ("training.batch_size",),
            "their product: samples per step over all GPUs; Axolotl counts packed rows",
            values.batch("micro_batch_size", "gradient_accumulation_steps", "sample_packing"),
        ),
        Group(
            ("learning_rate", "num_epochs"),
            ("training.learning_rate", "training.epochs", "preference.learning_rate", "preference.epochs"),
            "in [preference] if rl is dpo or ipo; whole epochs",
            values.phase("learning_rate", "num_epochs", _prefers),
        ),
        Group(
            ("datasets[].path", "datasets[].data_files", "rl"),
            ("synthesis.data", "preference.data", "preference.loss", "training.epochs"),
            "local .jsonl and .json; if rl is dpo or ipo, only pairs are trained on",
            _data,
        ),
    ),
    families=_FAMILIES,
    defaults={
        "sequence_len": 512,
        "lora_dropout": 0.0,
        "val_set_size": 0.0,
        "num_epochs": 1.0,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
    },
)
