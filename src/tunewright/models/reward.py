"""Reward models and rerankers: sequence classifiers with a single output that score an answer to a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.errors import ModelError
from tunewright.models.loading import quiet_libraries
from tunewright.models.model_files import reading_model
from tunewright.models.source import read_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}  # of a padded batch
_MAX_TOKENS = 8192  # of an exchange, unless tokenizer or model say less


@dataclass(frozen=True)
class ExchangeScores:
    """The rewards in the order of the exchanges; ``num_cut`` exchanges were longer than ``limit`` tokens."""

    rewards: list[float]
    num_cut: int
    limit: int


def load_reward(
    folder: Path, device: str, kind: str = "reward model", setting: str = "curation.reward"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a reward model and its tokenizer.

    Args:
        folder: a local model folder; its weights must be safetensors.
        device: "cpu" or "cuda:0".
        kind: what it is to be, for messages.
        setting: that names it, for messages.

    Raises:
        ModelError: it is no sequence classifier with a single output and a trained head, or its files are damaged.
    """
    quiet_libraries()
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    def refused(cause: str) -> ModelError:
        hint = f"name a sequence classifier with a single output, trained to score an answer to a prompt, in {setting}"
        return ModelError(f"{folder} is not a {kind}", cause, hint)

    names = [str(name) for name in read_config(folder).get("architectures") or []]
    if not any(name.endswith("ForSequenceClassification") for name in names):
        raise refused(f"its architecture is {', '.join(names) or 'unknown'}")
    hint = f"name a model with model.safetensors in {setting}; loading a pickle (.bin) can run code"
    with reading_model(kind, folder, hint):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=torch.float32,  # DeBERTa overflows in fp16, and bf16 makes similar scores equal
            device_map={"": device},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if info["missing_keys"]:  # their weights would be random
        raise refused(f"its weights lack {', '.join(sorted(info['missing_keys'])[:3])}")
    if model.config.num_labels != 1:
        raise refused(f"it has {model.config.num_labels} outputs, and the score is a single number")
    if tokenizer.chat_template:
        raise refused("it scores whole chats, not a pair of prompt and answer")
    return model.eval(), tokenizer


def _limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the most tokens of an exchange; a tokenizer without a limit has a very large number."""
    positions = getattr(model.config, "max_position_embeddings", 0) or _MAX_TOKENS
    return int(min(tokenizer.model_max_length, positions, _MAX_TOKENS))


def score_exchanges(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    exchanges: Sequence[tuple[str, str]],
    advance: Callable[[int], object] = lambda n: None,
) -> ExchangeScores:
    """Score (prompt, answer) pairs in batches of similar length; a reward is the model's raw output.

    An exchange over the limit loses the beginning of its longer part: the question is at the end of a prompt.
    """
    import torch

    limit = _limit(model, tokenizer)
    tokenizer.truncation_side = "left"
    uncut = [tokenizer(prompt, answer, verbose=False) for prompt, answer in exchanges]
    kept = [
        tokenizer(prompt, answer, truncation="longest_first", max_length=limit)
        if len(encoded["input_ids"]) > limit
        else encoded
        for encoded, (prompt, answer) in zip(uncut, exchanges, strict=True)
    ]
    rewards = [0.0] * len(kept)
    for batch in _batches([len(encoded["input_ids"]) for encoded in kept], _BATCH_TOKENS[model.device.type]):
        rows = tokenizer.pad([kept[number] for number in batch], return_tensors="pt").to(model.device)
        with torch.inference_mode():
            logits = model(**rows).logits
        for number, reward in zip(batch, logits[:, 0].float().tolist(), strict=True):
            rewards[number] = reward
        advance(len(batch))
    return ExchangeScores(rewards, sum(len(encoded["input_ids"]) > limit for encoded in uncut), limit)


def _batches(lengths: Sequence[int], num_tokens: int) -> list[list[int]]:
    """Return the indices in batches of similar length, longest first, of at most ``num_tokens`` with padding."""
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > num_tokens:
            batches.append([])
        batches[-1].append(number)
    return batches
