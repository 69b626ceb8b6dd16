"""Axolotl's settings, and what each becomes in a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunewright.importers import values
from tunewright.importers.rules import Decision, Joint, Rule, Tool, Unlike

_CHATS = ("chat_template", "sharegpt", "alpaca")
_PAIRS = {"dpo": "sigmoid", "ipo": "ipo"}
_FIELDS = ("messages", "conversations", "conversation")
_SUPERVISED = "the recipe trains supervised alone"


def _prefers(given: Mapping[str, Any]) -> bool:
    return str(given.get("rl")) in _PAIRS


def _method(given: Mapping[str, Any]) -> Decision:
    """Decide what is trained, on what kind of base."""
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
        result.remarks["adapter"] = "no such adapter: lora instead"
    if "bnb_4bit_use_double_quant" in config:
        result.taken["bnb_config_kwargs.bnb_4bit_use_double_quant"] = ("model.quantization",)
    if config.get("bnb_4bit_quant_type") == "nf4":
        result.taken["bnb_config_kwargs.bnb_4bit_quant_type"] = ("model.quantization",)
    elif "bnb_4bit_quant_type" in config:
        result.remarks["bnb_config_kwargs.bnb_4bit_quant_type"] = "4 bit is NF4 here"
    return values.without_quantization(result, "load_in_4bit", "load_in_8bit")


def _targets(given: Mapping[str, Any]) -> Decision:
    """Decide which layers get an adapter: all linear ones win, as there."""
    result, ours = Decision(), ("training.targets",)
    if values.on(given.get("lora_target_linear")):
        return Decision({"training.targets": ("all-linear",)}, dict.fromkeys(_named(given), ours))
    try:
        if given.get("lora_target_modules"):
            result.settings["training.targets"] = values.targets(given["lora_target_modules"])
            result.taken["lora_target_modules"] = ours
    except Unlike as error:
        result.remarks["lora_target_modules"] = str(error)
    if given.get("lora_target_linear") is not None:
        result.remarks["lora_target_linear"] = "off: the named modules, or all linear layers where none is named"
    return result


def _named(given: Mapping[str, Any]) -> list[str]:
    return [key for key in ("lora_target_linear", "lora_target_modules") if given.get(key)]


def _listed(given: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each data set under its full name."""
    sets = given.get("datasets")
    for place, one in enumerate(sets if isinstance(sets, list) else []):
        if isinstance(one, Mapping):
            yield f"datasets[{place}]", one


def _data(given: Mapping[str, Any]) -> Decision:
    """Decide what is trained on: local files are read where they lie, others have to be saved first."""
    preference, result = _prefers(given), Decision()
    ours = "preference.data" if preference else "synthesis.data"
    files: list[str] = []
    for name, one in _listed(given):
        within = one.get("data_files")
        named = {"data_files": within} if one.get("path") in ("json", None) and within else {"path": one.get("path")}
        for key, value in named.items():
            found = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            if found and all(values.is_data_file(path) for path in found):
                files += found
                result.taken[f"{name}.{key}"] = (ours,)
            elif value is not None:
                result.remarks[f"{name}.{key}"] = values.HUB_DATA.format(ours)
        kind = one.get("type")
        if isinstance(kind, str) and kind:
            result.remarks[f"{name}.type"] = _told_of(kind, preference)
        for key in ("field_messages", "field_chosen", "field_rejected"):
            if isinstance(one.get(key), str) and one[key]:
                result.remarks[f"{name}.{key}"] = _told_of_field(key, one[key])
    result.settings = values.data(files, preference)
    if preference:
        result.taken["rl"] = ("preference.data", "preference.loss", "training.epochs")
        result.settings["preference.loss"] = _PAIRS[given["rl"]]
    elif given.get("rl"):
        result.remarks["rl"] = f"of preferences DPO and IPO are known; {_SUPERVISED}"
    return result


def _told_of(kind: str, preference: bool) -> str:
    if preference:
        return "each line needs prompt, chosen and rejected"
    if kind.startswith(_CHATS):
        return "told from the keys of each line: messages, conversations, or instruction and output"
    if kind.startswith("completion"):
        return "raw text: put it as .txt into documents.paths and set training.text_share = 1.0"
    return "not a format that is read here: messages, ShareGPT, Alpaca, prompt and completion are"


def _told_of_field(key: str, name: str) -> str:
    known = _FIELDS if key == "field_messages" else (key.removeprefix("field_"),)
    return "the name that is looked for" if name in known else f"looked for under {known[0]}: rename it in the file"


_RULES: dict[str, Rule] = {
    "base_model": Rule("model.base", "a folder or a hub name", values.text),
    "bf16": Rule("model.compute", "true is bf16", values.compute("bf16")),
    "bfloat16": Rule("model.compute", "true is bf16", values.compute("bf16")),
    "fp16": Rule("model.compute", "true is fp16", values.compute("fp16")),
    "float16": Rule("model.compute", "true is fp16", values.compute("fp16")),
    "tokens": Rule("model.added_tokens", "their embeddings are trained too", values.names),
    "default_system_message": Rule("system_prompt", "first message of written samples and of the exam", values.text),
    "sequence_len": Rule("training.max_tokens", "a longer sample is left out and counted, never cut", values.whole),
    "lora_r": Rule("training.rank", "", values.whole),
    "lora_alpha": Rule("training.alpha", "", values.number),
    "lora_dropout": Rule("training.dropout", "above 0 takes the slower path", values.number),
    "optimizer": Rule("training.optimizer", "AdamW: plain, 8-bit or paged 8-bit", values.optimizer),
    "lr_scheduler": Rule("training.schedule", "cosine, linear, constant", values.schedule),
    "warmup_ratio": Rule("training.warmup_share", "", values.number),
    "max_grad_norm": Rule("training.max_grad_norm", "", values.number),
    "val_set_size": Rule("training.held_out_share", "a share; kept for the loss, beside the exam", values.share),
    "save_steps": Rule("training.checkpoint_steps", "a checkpoint per epoch is kept besides", values.steps),
    "seed": Rule("seed", "also of the split and of the exam", values.whole),
    "wandb_project": Rule("training.tracker", "its name: export WANDB_PROJECT=...", lambda value: "wandb"),
    "mlflow_tracking_uri": Rule("training.tracker", "export MLFLOW_TRACKING_URI=...", lambda value: "mlflow"),
    "use_tensorboard": Rule("training.tracker", "", values.switch("tensorboard")),
    "rl_beta": Rule("preference.beta", "", values.number),
    "dpo_label_smoothing": Rule("preference.label_smoothing", "", values.number),
    "max_steps": Rule("", "the training is counted in epochs: training.epochs"),
    "warmup_steps": Rule("", "the warm-up is a share of the steps: training.warmup_share"),
    "sample_packing": Rule("", "samples are always packed, each seeing only itself"),
    "pad_to_sequence_len": Rule("", "rows are packed, not padded"),
    "group_by_length": Rule("", "rows are packed: the order stays random"),
    "train_on_inputs": Rule("", "the loss is on the answers and on the token that ends each"),
    "gradient_checkpointing": Rule("", "decided by the memory there is: training.activation_checkpointing"),
    "gradient_checkpointing_kwargs": Rule("", "decided by the memory there is"),
    "weight_decay": Rule("", "adapters are trained without weight decay"),
    "chat_template": Rule("", "the tokenizer's own; a base without one gets a stated one"),
    "chat_template_jinja": Rule("", "the tokenizer's own; a base without one gets a stated one"),
    "trust_remote_code": Rule("", "code of a model is never run"),
    "output_dir": Rule("", "the run folder is named at the start: tunewright run RECIPE --dir FOLDER"),
    "resume_from_checkpoint": Rule("", "a run goes on from its last checkpoint by itself"),
    "auto_resume_from_checkpoints": Rule("", "a run goes on from its last checkpoint by itself"),
    "early_stopping_patience": Rule("", "nothing stops early; a held-out loss that turns is told"),
    "neftune_noise_alpha": Rule("", "no noise is put on embeddings"),
    "strict": Rule("", "an unknown setting is always an error"),
    "tf32": Rule("", "decided by the hardware"),
    "logging_steps": Rule("", "every step is logged, in metrics.jsonl"),
    "save_total_limit": Rule("", "the last checkpoint and one per epoch are kept"),
    "eval_batch_size": Rule("", "what fits is taken"),
    "lora_model_dir": Rule("", "training starts from the base, not from an adapter"),
    "lora_modules_to_save": Rule("", "new tokens' embeddings are trained and saved: model.added_tokens"),
    "model_type": Rule("", "told from the base's config.json"),
    "tokenizer_type": Rule("", "told from the base's files"),
    "dataset_exact_deduplication": Rule("", "near duplicates are always dropped: curation.near_duplicate"),
    "pretraining_dataset": Rule("", "raw text: put it as .txt into documents.paths and set training.text_share = 1.0"),
    "deepspeed": Rule("", "several GPUs: torchrun -m tunewright run; model.sharded spreads an unquantized base"),
    "fp8": Rule("", "model.fp8 = true, for LoRA without dropout on Hopper and later"),
}
_FAMILIES = {
    "datasets": "each line is read by its own keys, the whole file, in its order",
    "test_datasets": "the exam is made of held-out documents, or is yours: exam.file",
    "fsdp": "several GPUs: torchrun -m tunewright run; model.sharded spreads an unquantized base",
    "special_tokens": "the tokenizer's own; padding is masked by its place, so that it may be the end token",
    "wandb_": "names come from the tracker's own variables, such as WANDB_NAME",
    "mlflow_": "names come from the tracker's own variables",
    "comet_": "no such tracker",
    "use_comet": "no such tracker",
    "hub_": "publishing is a step of its own, after the verdict",
    "push_dataset_to_hub": "publishing is a step of its own, after the verdict",
    "dataset_": "data is prepared anew when its file changes",
    "eval": "the held-out loss is taken before the first step and after each epoch; then comes the exam",
    "save": "checkpoints are kept each training.checkpoint_steps and per epoch, as safetensors",
    "flash_": "the fastest attention that is at hand is taken",
    "xformers_attention": "the fastest attention that is at hand is taken",
    "sdp_attention": "the fastest attention that is at hand is taken",
    "attn_implementation": "the fastest attention that is at hand is taken",
    "s2_attention": "attention is the model's own",
    "sample_pack": "samples are always packed, each seeing only itself",
    "lora_": "plain LoRA, with kernels of its own: training.kernels",
    "loraplus_": "one learning rate for the whole adapter",
    "peft": "plain LoRA, initialized as LoRA is",
    "relora_": "no restarts: plain LoRA",
    "bnb_config_kwargs": "4 bit is NF4, 8 bit is int8",
    "adam_": "AdamW with torch's own constants",
    "optim_": "AdamW with torch's own constants",
    "lr_": "the schedules are plain: training.schedule",
    "cosine_": "the schedules are plain: training.schedule",
    "ddp_": "told by the launcher",
    "dataloader_": "what is fastest is taken",
    "trl": "of preferences DPO and IPO are known",
    "plugins": "kernels of its own: training.kernels",
    "liger_": "kernels of its own: training.kernels",
    "torch_compile": "kernels of its own: training.kernels",
    "unsloth_": "kernels of its own: training.kernels",
}

AXOLOTL = Tool(
    name="Axolotl",
    known_by="base_model",
    is_it=lambda given: "base_model" in given,
    rules=_RULES,
    joints=(
        Joint(
            ("adapter", "load_in_4bit", "load_in_8bit", "peft_use_rslora", "peft_use_dora", "bnb_config_kwargs"),
            ("training.method", "model.quantization"),
            "no adapter is full, on an unquantized base",
            _method,
        ),
        Joint(("lora_target_linear", "lora_target_modules"), ("training.targets",), "", _targets),
        Joint(
            ("micro_batch_size", "gradient_accumulation_steps"),
            ("training.batch_size",),
            "their product: samples of one step over all GPUs; packed rows are counted there",
            values.batch("micro_batch_size", "gradient_accumulation_steps", "sample_packing"),
        ),
        Joint(
            ("learning_rate", "num_epochs"),
            ("training.learning_rate", "training.epochs", "preference.learning_rate", "preference.epochs"),
            "of [preference] where rl is dpo or ipo; whole epochs",
            values.phase("learning_rate", "num_epochs", _prefers),
        ),
        Joint(
            ("datasets[].path", "datasets[].data_files", "rl"),
            ("synthesis.data", "preference.data", "preference.loss", "training.epochs"),
            "local .jsonl and .json; pairs alone, without supervised training, where rl is dpo or ipo",
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
