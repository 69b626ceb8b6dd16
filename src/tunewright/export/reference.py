"""The examined model's next-token distributions on the exam's prompts: computed once, kept in the run folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.export.adapter import base_under
from tunewright.export.comparison import LONG, conversations
from tunewright.export.target import Base, HFRunner
from tunewright.models.chat_template import IGNORED, encode, encode_prompt, exam_prompt
from tunewright.models.loading import compute_dtype, is_full, load_adapter, pick_device
from tunewright.models.student import student_identity, student_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import Message, Question, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import file_digest

if TYPE_CHECKING:
    import numpy as np

NUM_POSITIONS = 64


@dataclass(frozen=True)
class Reference:
    """What the examined model says.

    Attributes:
        tokenizer: as training, the exam and chat load it.
        prompts: token ids; of the exam's questions first, then of the same with the gold answer begun.
        log_probs: of the token after each, [prompt, vocabulary], natural logarithms.
        original: the same of the adapter on the unquantized base; None where the examined base is that one.
        computed: device and type.
    """

    tokenizer: Any
    prompts: Sequence[Sequence[int]]
    log_probs: np.ndarray
    original: np.ndarray | None
    computed: str


def exam_questions(run: RunFolder) -> list[Question]:
    """Return the exam's questions, none where the run has no exam yet."""
    return run.records_if_any(RunFile.EXAM, Question)


def most_tokens(run: RunFolder, recipe: Recipe) -> int:
    """Return how many tokens the exam's longest question takes with its answer, the gold one or one of the model's."""
    tokenizer, found = student_tokenizer(recipe), [0]
    for question in exam_questions(run):
        asked = exam_prompt(recipe.system_prompt, question)
        found.append(len(encode_prompt(tokenizer, asked)) + recipe.evaluation.max_new_tokens)
        found.append(len(encode(tokenizer, (*asked, Message(role="assistant", content=question.gold))).input_ids))
    return max(found)


def _positions(run: RunFolder, recipe: Recipe, tokenizer: Any) -> list[list[int]]:
    """Return the prompts to compare after: each question's, then the places inside of its gold answer, in turns."""
    questions = exam_questions(run)
    if not questions:
        told = [encode_prompt(tokenizer, turns) for kind, turns in conversations() if kind != LONG]
        return told[:NUM_POSITIONS]
    prompts, golds = [], []
    for question in questions:
        asked = exam_prompt(recipe.system_prompt, question)
        prompts.append(encode_prompt(tokenizer, asked))
        whole = encode(tokenizer, (*asked, Message(role="assistant", content=question.gold)))
        golds.append([label for label in whole.labels[len(prompts[-1]) :] if label != IGNORED])
    longest = max(len(gold) for gold in golds)
    rounds = ([p + g[:n] for p, g in zip(prompts, golds, strict=True) if n < len(g)] for n in range(1, longest))
    return [*prompts, *(prompt for one in rounds for prompt in one)][:NUM_POSITIONS]


def reference(run: RunFolder, recipe: Recipe) -> Reference:
    """Return the examined model's distributions, from the run folder where they were kept.

    The examined model is the base as evaluated, quantized as the recipe says, with the adapter beside it.
    """
    import numpy as np

    tokenizer = student_tokenizer(recipe)
    prompts = _positions(run, recipe, tokenizer)
    device = pick_device()
    computed = f"{str(compute_dtype(device, recipe.model.compute)).removeprefix('torch.')} on {device}"
    key = digest(student_identity(recipe, device), file_digest(run.file(RunFile.ADAPTER)), prompts)
    name = f"exports/reference-{key}.npz"
    if not run.file(name).is_file():
        kept = _compute(run, recipe, tokenizer, prompts)
        for old in run.path.glob("exports/*reference-*.npz*"):
            old.unlink()
        run.write(name, _packed(kept))
    with np.load(run.file(name), allow_pickle=False) as kept:
        original = kept.get("original")
        return Reference(tokenizer, prompts, kept["examined"], original, computed)


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _compute(run: RunFolder, recipe: Recipe, tokenizer: Any, prompts: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Ask the examined model, and the same adapter on the original base where that is another one."""
    import numpy as np

    adapter = run.file(RunFile.ADAPTER)
    bases: dict[str, Base] = {"examined": "trained"}
    if recipe.model.quantization != "none" and not is_full(adapter):
        bases["original"] = "original"
    told = {}
    for name, base in bases.items():
        console.line(f"asking the tuned model on its {base} base after {len(prompts)} prompts")
        model = load_adapter(base_under(recipe, base, tokenizer), adapter)
        told[name] = np.stack(list(HFRunner(model, tokenizer).log_probs(prompts)))
    return told
