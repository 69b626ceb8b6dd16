"""The evaluated model's next-token distributions on the exam's prompts: what an artifact is compared with."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.export.adapter import base_under
from tunewright.export.comparison import LONG, conversations
from tunewright.export.target import Base, HFRunner
from tunewright.models.chat_template import IGNORED, encode, encode_prompt, exam_prompt
from tunewright.models.loading import compute_dtype, is_full, load_adapter, pick_device
from tunewright.models.source import locate, read_config
from tunewright.models.stored_quantization import stored_nf4
from tunewright.models.student import student_identity, student_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import Message, Question, digest
from tunewright.storage import file_digest

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

NUM_POSITIONS = 64


@dataclass(frozen=True)
class Reference:
    """The evaluated model's distributions.

    Attributes:
        tokenizer: as training, exam and chat load it.
        prompts: token ids: the exam's questions first, then the same with the beginning of the gold answer.
        log_probs: of the token after each prompt: [prompt, vocabulary], natural logarithms.
        original: the same of the adapter on the unquantized base; None where the evaluated base is that one.
        computed: the type and the device that computed them.
    """

    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[Sequence[int]]
    log_probs: np.ndarray
    original: np.ndarray | None
    computed: str


def longest_exchange(recipe: Recipe, questions: Sequence[Question]) -> int:
    """Return the tokens of the exam's longest question with its answer: the gold one, or the model's longest."""
    tokenizer, lengths = student_tokenizer(recipe), [0]
    for question in questions:
        prompt = exam_prompt(recipe.system_prompt, question)
        lengths.append(len(encode_prompt(tokenizer, prompt)) + recipe.evaluation.max_new_tokens)
        lengths.append(len(encode(tokenizer, (*prompt, Message(role="assistant", content=question.gold))).input_ids))
    return max(lengths)


def reference_prompts(
    tokenizer: PreTrainedTokenizerBase, system_prompt: str, questions: Sequence[Question]
) -> list[list[int]]:
    """Return the prompts to compare after: each question's, then positions inside the gold answers, in turns.

    Without an exam they are fixed conversations.
    """
    if not questions:
        prompts = [encode_prompt(tokenizer, turns) for kind, turns in conversations() if kind != LONG]
        return prompts[:NUM_POSITIONS]
    prompts, golds = [], []
    for question in questions:
        prompt = exam_prompt(system_prompt, question)
        prompts.append(encode_prompt(tokenizer, prompt))
        answered = encode(tokenizer, (*prompt, Message(role="assistant", content=question.gold)))
        golds.append([label for label in answered.labels[len(prompts[-1]) :] if label != IGNORED])
    longest = max(len(gold) for gold in golds)
    rounds = ([p + g[:n] for p, g in zip(prompts, golds, strict=True) if n < len(g)] for n in range(1, longest))
    return [*prompts, *(prompt for prompts_of_round in rounds for prompt in prompts_of_round)][:NUM_POSITIONS]


def reference_name(adapter: Path, recipe: Recipe, prompts: Sequence[Sequence[int]]) -> str:
    """Return the file name for the distributions of this model after these prompts."""
    return f"reference-{digest(student_identity(recipe, pick_device()), file_digest(adapter), prompts)}.npz"


def compute_reference(
    adapter: Path, recipe: Recipe, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]
) -> bytes:
    """Return the content of a reference file (npz).

    The evaluated model is the base as the recipe quantizes it, with the adapter on it. Where the base is quantized, the
    same adapter on the original base is computed as well.
    """
    import numpy as np

    bases: dict[str, Base] = {"examined": "trained"}
    files_quantized = stored_nf4(read_config(locate(recipe.model.base, recipe.folder)))
    if recipe.model.quantization != "none" and not files_quantized and not is_full(adapter):
        bases["original"] = "original"
    arrays: dict[str, Any] = {}
    for name, base in bases.items():
        console.line(f"computing the tuned model on its {base} base after {len(prompts)} prompts")
        model = load_adapter(base_under(recipe, base, tokenizer), adapter)
        arrays[name] = np.stack(list(HFRunner(model, tokenizer).log_probs(prompts)))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read_reference(
    file: Path, recipe: Recipe, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]
) -> Reference:
    """Return the distributions of a reference file."""
    import numpy as np

    device = pick_device()
    computed = f"{str(compute_dtype(device, recipe.model.compute)).removeprefix('torch.')} on {device}"
    with np.load(file, allow_pickle=False) as arrays:
        by_name: Mapping[str, np.ndarray] = dict(arrays)
    return Reference(tokenizer, prompts, by_name["examined"], by_name.get("original"), computed)
