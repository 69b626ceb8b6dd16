"""The seconds that the arms' answers take, for the plan: measured by a preview, else predicted from their lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunewright.commands.json_documents import Preview
from tunewright.commands.plan_sizes import Sizes, base_folder, known_questions
from tunewright.curation.chat_formats import read_own_data
from tunewright.evaluation.generation import BATCH_SIZE
from tunewright.models.answer_time import Answering, answering_seconds
from tunewright.models.data_sources import chat_paths
from tunewright.models.hardware import Shape
from tunewright.recipe import Recipe
from tunewright.records import Chunk
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm

_SECONDS_ON_GPU = (0.1, 0.02)  # a stated guess: of an answer, of a retention item
_CHATTY_TOKENS = 80  # of an answer by a model that neither examples nor training showed where to end
_TURN_TOKENS = 12  # that a template adds to a prompt
_USUAL_PASSAGES = 2
_RETENTION = (60, 8, 64)  # tokens of an item: read, written on average, and at most
_LOADING_S = 4.0
_QUESTIONS_TO_COUNT = 1000


@dataclass(frozen=True)
class ExamLengths:
    """Mean numbers of tokens, guessed where nothing is known yet: rules ask in about 60 and are answered in 8."""

    question: float = 60.0  # with its own passage
    gold: float = 8.0
    sample: float = 110.0
    chunk: float = 256.0
    system: float = 0.0
    measured: Mapping[str, float] = field(default_factory=dict)  # seconds of an answer by arm, by a preview here


def exam_lengths(recipe: Recipe, run: RunFolder, sizes: Sizes) -> ExamLengths:
    """Return the lengths of the exam's questions and answers, of examples and passages, as far as they are known."""
    count, guess = _counter(recipe), ExamLengths()
    known = known_questions(recipe, run)
    if known is not None:
        pairs = [(f"{question.question}{question.passage or ''}", question.gold) for question in known]
    else:
        own = read_own_data(chat_paths(recipe))[0] if sizes.num_held_out else []
        pairs = [(sample.question, sample.answer) for sample in own]
    some = pairs[:: math.ceil(len(pairs) / _QUESTIONS_TO_COUNT)] if pairs else []
    chunks = run.records_if_any(RunFile.CHUNKS, Chunk)
    return ExamLengths(
        question=_mean([count(prompt) for prompt, _ in some], guess.question),
        gold=_mean([count(gold) + 1 for _, gold in some], guess.gold),  # with the token that ends it
        sample=sizes.num_tokens / sizes.num_samples if sizes.num_samples else guess.sample,
        chunk=_mean([chunk.num_tokens for chunk in chunks], recipe.documents.chunk_tokens),
        system=count(recipe.system_prompt),
        measured=_seconds_in_preview(recipe, run),
    )


def _mean(values: Sequence[int], guess: float) -> float:
    return sum(values) / len(values) if values else guess


def _counter(recipe: Recipe) -> Callable[[str], int]:
    """Return a function from a text to its tokens, by the student's tokenizer where it is at hand."""
    folder = base_folder(recipe)
    if folder is None:
        return lambda text: len(text) // 4
    from tunewright.models.chat_template import load_tokenizer

    tokenizer = load_tokenizer(folder, recipe.model.added_tokens)
    return lambda text: len(tokenizer(text)["input_ids"]) if text else 0


def _seconds_in_preview(recipe: Recipe, run: RunFolder) -> dict[str, float]:
    """Return the seconds of an answer by arm; none where another base answered: it may be larger or smaller."""
    stored = run.json_if_any(RunFile.PREVIEW)
    preview = Preview.model_validate(stored) if stored else None
    return {row.arm: row.duration_s for row in preview.arms} if preview and preview.base == recipe.model.base else {}


def answers_seconds(
    recipe: Recipe,
    arms: Mapping[str, int],
    lengths: ExamLengths,
    shape: Shape,
    flops: float,
    processors: float,
) -> float:
    """Return about how many seconds the evaluation takes.

    Args:
        recipe: its limits, examples and passages shape the prompts.
        arms: the number of answers of each arm.
        lengths: of prompts and answers, and what a preview measured.
        shape: of the base.
        flops: operations per second of one processor; 0 on a GPU.
        processors: that this process gets.
    """
    measured = lengths.measured
    items = 2 * recipe.exam.retention_items  # read more than written: choices and passages need no answer
    if not flops:
        per_answer, per_item = _SECONDS_ON_GPU
        return sum(num * measured.get(arm, per_answer) for arm, num in arms.items()) + items * per_item

    def seconds(work: Answering) -> float:
        return answering_seconds(work, BATCH_SIZE["cpu"], shape, flops) / processors

    read, written, longest = _RETENTION
    predicted = (
        num * measured[arm] if arm in measured else seconds(_answering(recipe, arm, num, lengths))
        for arm, num in arms.items()
    )
    return _LOADING_S + sum(predicted) + seconds(Answering(items, read, 0, written, longest))


def _answering(recipe: Recipe, arm: str, num: int, lengths: ExamLengths) -> Answering:
    """Return an arm's answers: the prompt grows by examples or passages, and examples or training show where to end."""
    limit, shots = recipe.evaluation.max_new_tokens, recipe.evaluation.few_shot * lengths.sample
    retrieved = recipe.retrieval.passages or _USUAL_PASSAGES
    passages = {str(Arm.ORACLE): 1, str(Arm.RAG): retrieved, str(Arm.TUNED_RAG): retrieved}
    prompt = lengths.question + _TURN_TOKENS + passages.get(arm, 0) * lengths.chunk
    chatty = arm in (Arm.BASE, Arm.RAG, Arm.ORACLE)
    return Answering(
        num,
        prompt + (shots if arm == Arm.SIMILAR_SHOT else 0),
        lengths.system + (shots if arm == Arm.FEW_SHOT else 0),
        min(limit, max(_CHATTY_TOKENS, lengths.gold) if chatty else lengths.gold),
        limit if chatty else min(limit, 3 * lengths.gold),
        2 * lengths.gold,
    )
