"""Checks before training (are the right tokens supervised?) and advice after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.errors import TrainingError
from tunewright.models.chat_template import IGNORED
from tunewright.records import Rejection
from tunewright.text.remedies import reasons_text, remedy
from tunewright.training.dataset import TOO_LONG
from tunewright.training.packing import Example
from tunewright.training.teacher_prompts import FORGED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FEW = 100
_RISE = 1.02  # a held-out loss this many times its lowest value has risen beyond noise
_LEAST_FALL = 0.05  # share of its first value that a loss must fall by to count as learning


def advise(rows: Sequence[Mapping[str, Any]], num_examples: int) -> list[str]:
    """Return a sentence on each fault: too little data, overfitting, no effect.

    Args:
        rows: the lines of metrics.jsonl.
        num_examples: number of examples that were trained on.
    """
    advice = []
    if num_examples < _FEW:
        advice.append(
            f"Only {num_examples} samples: fine-tuning rarely beats a few examples in the prompt below {_FEW}. "
            "Add documents, or raise synthesis.samples_per_document."
        )
    for phase in dict.fromkeys(row["phase"] for row in rows):
        own = [row for row in rows if row["phase"] == phase]
        section = "preference" if phase == "dpo" else "training"
        advice += [sentence for sentence in (_overfit(own, section), _no_effect(own, section)) if sentence]
    return advice


def _overfit(rows: Sequence[Mapping[str, Any]], section: str) -> str:
    held = [(float(row["epoch"]), float(row["held_out_loss"])) for row in rows if "held_out_loss" in row]
    if len(held) < 3:
        return ""
    best_epoch, best = min(held[1:], key=lambda item: item[1])
    last_epoch, last = held[-1]
    if best_epoch == last_epoch or last < best * _RISE:
        return ""
    return (
        f"The held-out loss was lowest after epoch {best_epoch:.0f} ({best:.3f}) and rose to {last:.3f} by epoch "
        f"{last_epoch:.0f}: the later epochs learned the samples by heart. "
        f"Run again with --set {section}.epochs={best_epoch:.0f}, or add data."
    )


def _no_effect(rows: Sequence[Mapping[str, Any]], section: str) -> str:
    losses = [float(row["loss"]) for row in rows if "loss" in row]
    if len(losses) < 10:
        return ""
    part = max(1, len(losses) // 5)
    first, last = sum(losses[:part]) / part, sum(losses[-part:]) / part
    if last < first * (1 - _LEAST_FALL):
        return ""
    return (
        f"The training loss hardly moved ({first:.3f} to {last:.3f}): the adapter learned next to nothing. "
        f"Raise {section}.learning_rate or {section}.epochs, and check the training samples."
    )


_MAX_SHARE_TOO_LONG = 0.005  # of samples that may be left out for their length
_NUM_PRINTED = 120  # tokens


def check_examples(examples: Sequence[Example], rejections: Sequence[Rejection], max_tokens: int) -> None:
    """Refuse a training set whose tokens are wrong.

    Raises:
        TrainingError: there is nothing to train on, an example has no supervised token or its end token is masked,
            or more than 0.5 % of the samples are longer than ``max_tokens``.
    """
    forged = sum(rejection.reason == FORGED for rejection in rejections)
    if forged:
        console.warning(
            f"{forged} of {len(examples) + len(rejections)} samples hold a control token of the chat template and "
            "are left out; give data that was rendered through a template as messages instead"
        )
    too_long = [rejection for rejection in rejections if rejection.reason == TOO_LONG]
    num_samples = len(examples) + len(rejections)
    if len(too_long) > _MAX_SHARE_TOO_LONG * num_samples:
        longest = max(int(rejection.detail.split()[0]) for rejection in too_long)
        raise TrainingError(
            f"{len(too_long)} of {num_samples} samples are longer than training.max_tokens = {max_tokens}",
            f"truncation would cut their answers; the longest has {longest} tokens",
            f"run again with --set training.max_tokens={longest}, or remove the long samples from the data",
        )
    if not examples:
        raise TrainingError(
            "there is nothing to train on",
            f"all {len(rejections)} samples were left out: {reasons_text(rejections)}"
            if rejections
            else "the training set is empty",
            remedy(rejections) if rejections else "tunewright run RECIPE --until curate",
        )
    for example in examples:
        if example.num_supervised == 0:
            raise TrainingError(
                f"sample {example.sample} has no supervised token",
                "no assistant turn was found in the rendered conversation",
                "check the sample in train.jsonl and the tokenizer's chat template",
            )
        if not all(sequence.ends_supervised for sequence in example.sequences):
            raise TrainingError(
                f"the end of the answer is not supervised in sample {example.sample}",
                "the chat template puts no special token after an assistant turn, so the model would never stop",
                "use a chat template that ends each turn with a special token",
            )


def show_example(example: Example, tokenizer: PreTrainedTokenizerBase) -> None:
    """Print an example's tokens: the supervised ones in green, the rest dim."""
    ids, labels = example.sequences[0].input_ids, example.sequences[0].labels
    first = next(index for index, label in enumerate(labels) if label != IGNORED)
    start = max(0, first - _NUM_PRINTED // 2)
    parts = [("  … " if start else "  ", "dim")]
    for token, label in zip(ids[start : start + _NUM_PRINTED], labels[start:], strict=False):
        text = tokenizer.decode([token]).replace("\n", "⏎\n  ")
        parts.append((text, "dim" if label == IGNORED else "bold green"))
    console.line(
        f"a sample as the model sees it ({example.sequences[0].num_supervised} of {len(ids)} tokens are supervised):"
    )
    console.segments(parts)
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        console.line(
            "  the padding token is the end token; padding is masked by position, so the end is still learned",
            "dim",
        )
