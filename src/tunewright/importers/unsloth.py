"""The settings of Unsloth's own training files (its Studio and CLI), and what each becomes in a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunewright.importers import values
from tunewright.importers.rules import Decision, Group, Rule, Tool, leaves


def _is_it(given: Mapping[str, Any]) -> bool:
    return isinstance(given.get("model"), str) and any(
        isinstance(given.get(key), Mapping) for key in ("training", "lora")
    )


def _flat(decide: Callable[[Mapping[str, Any]], Decision]) -> Callable[[Mapping[str, Any]], Decision]:
    """Return the decision for nested settings, applied to their full names."""
    return lambda given: decide(dict(leaves(given)))


def _method(given: Mapping[str, Any]) -> Decision:
    """Return the training method and the quantization of the base."""
    kind = given.get("training.training_type")
    quantization = "nf4-double" if values.on(given.get("training.load_in_4bit")) else "none"
    settings = values.method(
        full=kind == "full", rslora=values.on(given.get("lora.use_rslora")), dora=False, quantization=quantization
    )
    result = Decision(settings)
    for key, ours in (
        ("training.training_type", "training.method"),
        ("training.load_in_4bit", "model.quantization"),
        ("lora.use_rslora", "training.method"),
    ):
        if given.get(key) is not None:
            result.taken[key] = (ours,)
    if kind not in ("lora", "full", None):
        result.taken.pop("training.training_type")
        result.remarks["training.training_type"] = "no such method; lora is used"
    return values.without_quantization(result, "training.load_in_4bit")


def _data(given: Mapping[str, Any]) -> Decision:
    """Return the data."""
    named = given.get("data.local_dataset")
    files = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    result = Decision()
    if files and all(values.is_data_file(path) for path in files):
        result = Decision(values.data(files, False), {"data.local_dataset": ("synthesis.data",)})
    elif named:
        result.remarks["data.local_dataset"] = values.HUB_DATA.format("synthesis.data")
    return result


_MODALITY = "only text is read; training.targets covers all kinds of layers"

_RULES: dict[str, Rule] = {
    "model": Rule("model.base", "a folder or a hub name, of an unquantized model", values.text),
    "training.max_seq_length": Rule("training.max_tokens", "a longer sample is dropped, never truncated", values.whole),
    "training.random_seed": Rule("seed", "also seeds the split and the exam", values.whole),
    "training.optim": Rule("training.optimizer", "AdamW: plain, 8-bit or paged 8-bit", values.optimizer),
    "training.lr_scheduler_type": Rule("training.schedule", "cosine, linear, constant", values.schedule),
    "training.save_steps": Rule("training.checkpoint_steps", "a checkpoint per epoch is kept as well", values.steps),
    "lora.lora_r": Rule("training.rank", "", values.whole),
    "lora.lora_alpha": Rule("training.alpha", "", values.number),
    "lora.lora_dropout": Rule("training.dropout", "above 0, training takes the slower path", values.number),
    "lora.target_modules": Rule("training.targets", "", values.targets),
    "logging.enable_wandb": Rule("training.tracker", "", lambda value: "wandb" if values.on(value) else ""),
    "data.dataset": Rule("", values.HUB_DATA.format("synthesis.data")),
    "data.format_type": Rule("", "detected from the keys of each line"),
    "training.max_steps": Rule("", "training is measured in epochs: training.epochs"),
    "training.warmup_steps": Rule("", "warm-up is a share of the steps: training.warmup_share"),
    "training.weight_decay": Rule("", "adapters are trained without weight decay"),
    "training.packing": Rule("", "samples are always packed; each attends only to itself"),
    "training.train_on_completions": Rule("", "the loss covers the answers and the token that ends each"),
    "training.gradient_checkpointing": Rule("", "chosen by the available memory"),
    "training.output_dir": Rule("", "the run folder is set on the command line: tunewright run RECIPE --dir FOLDER"),
    "lora.use_loftq": Rule("", "plain LoRA with its usual initialization"),
    "lora.vision_all_linear": Rule("", _MODALITY),
    "logging.enable_tensorboard": Rule("", 'training.tracker = "tensorboard"'),
}

UNSLOTH = Tool(
    name="Unsloth",
    known_by="model with a section training or lora",
    is_it=_is_it,
    rules=_RULES,
    groups=(
        Group(
            ("training.training_type", "training.load_in_4bit", "lora.use_rslora"),
            ("training.method", "model.quantization"),
            "full trains an unquantized base",
            _flat(_method),
        ),
        Group(
            ("training.batch_size", "training.gradient_accumulation_steps"),
            ("training.batch_size",),
            "their product: samples per step over all GPUs",
            _flat(values.batch("training.batch_size", "training.gradient_accumulation_steps", "training.packing")),
        ),
        Group(
            ("training.learning_rate", "training.num_epochs"),
            ("training.learning_rate", "training.epochs"),
            "whole epochs",
            _flat(values.phase("training.learning_rate", "training.num_epochs", lambda given: False)),
        ),
        Group(("data.local_dataset",), ("synthesis.data",), "local .jsonl and .json", _flat(_data)),
    ),
    families={
        "lora.finetune_": _MODALITY,
        "logging.": "names come from the tracker's own environment variables",
        "data.": "every line of a file is read, in order, by its own keys",
    },
    defaults={},
)
