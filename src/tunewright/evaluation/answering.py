"""The exam's questions as every arm is asked them, and the answers that came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tunewright.evaluation.arms import BASE_AND_TUNED, RETRIEVING, arm_prompt, few_shot_examples, retriever
from tunewright.evaluation.generation import Batch, Outputs, answer_all, batch_size
from tunewright.evaluation.retention import ThirdRing
from tunewright.models.chat_template import IGNORED, encode, encode_prompt
from tunewright.models.generation import AnswerJob, answer_or_halve, batches
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.recipe import Recipe
from tunewright.records import (
    Answer,
    Chunk,
    Message,
    Question,
    RetentionAnswer,
    RetentionItem,
    Sample,
    SplitEntry,
    digest,
)
from tunewright.run_folder import RunFile, RunFolder
from tunewright.text.perturbation import false_versions

Sitting = Mapping[str, ModelWeights]  # arm → the weights that answer for it
Sheet = Sequence[tuple[str, AnswerJob]]  # for each question, in the exam's order: the key of its answer, and the job


def all_answers(
    run: RunFolder, recipe: Recipe, questions: Sequence[Question], sitting: Sitting, kept: Sequence[RetentionItem] = ()
) -> tuple[list[Answer], list[RetentionAnswer]]:
    """Return every arm's answer to every question, in the order of the arms and of the exam, and the third ring's.

    The third ring is sat by base and tuned; ``kept`` is empty where one of them is not there.
    """
    memory = ModelPool()
    sheets = {arm: _sheet(run, recipe, questions, arm, weights, memory) for arm, weights in sitting.items()}
    third = ThirdRing(kept, {arm: sitting[arm] for arm in BASE_AND_TUNED} if kept else {}, memory)
    told = answer_all(run, [*_plan(sheets, sitting, memory, recipe.evaluation.max_new_tokens), *third.plan()], memory)
    answers = [
        Answer(question=question.id, arm=arm, num_prompt_tokens=len(job.prompt_ids), **told[key])
        for arm, sheet in sheets.items()
        for question, (key, job) in zip(questions, sheet, strict=True)
    ]
    return answers, third.answers(told)


def _sheet(
    run: RunFolder, recipe: Recipe, questions: Sequence[Question], arm: str, weights: ModelWeights, memory: ModelPool
) -> Sheet:
    """Return an arm's jobs: prompt and gold tokens in the tokens of its own base, each with its answer's key.

    The key is a digest of all that the answer depends on.
    """
    settings, tokenizer = recipe.evaluation, memory.tokenizer(weights)
    retrieve = retriever(training_chunks(run) if arm in RETRIEVING else [], settings.rag_passages)
    shots = few_shot_examples(training_samples(run, recipe), settings.few_shot, recipe.seed)

    def answer_ids(prompt: Sequence[Message], skip: int, text: str) -> list[int]:
        whole = encode(tokenizer, (*prompt, Message(role="assistant", content=text)))
        return [label for label in whole.labels[skip:] if label != IGNORED]

    def job(question: Question) -> AnswerJob:
        prompt = arm_prompt(arm, question, recipe.system_prompt, shots, retrieve)
        prompt_ids = encode_prompt(tokenizer, prompt)
        changed = false_gold(question, recipe.seed)
        contrast = answer_ids(prompt, len(prompt_ids), changed) if changed else ()
        return AnswerJob(prompt_ids, answer_ids(prompt, len(prompt_ids), question.gold), contrast_ids=contrast)

    def key(job: AnswerJob) -> str:
        contrast = [list(job.contrast_ids)] if job.contrast_ids else []
        return digest(weights.identity, settings.max_new_tokens, list(job.prompt_ids), list(job.gold_ids), *contrast)

    return [(key(asked), asked) for asked in map(job, questions)]


def false_gold(question: Question, seed: int) -> str | None:
    """Return the gold answer with one number or one comparing word changed; None where there is none to change."""
    if not question.answerable:
        return None
    quote = question.evidence.quote if question.evidence else ""
    source = f"{question.gold}\n{quote}\n{question.passage or ''}"
    return next(false_versions(question.gold, source, seed), None)


def training_samples(run: RunFolder, recipe: Recipe) -> list[Sample]:
    """Return the chats that were trained on; none after raw text or preferences alone."""
    there = recipe.needs_samples and run.file(RunFile.TRAIN).exists()
    return run.read_records(RunFile.TRAIN, Sample) if there else []


def training_chunks(run: RunFolder) -> list[Chunk]:
    """Return the chunks of the training documents; none where a run has only the user's own data."""
    if not run.file(RunFile.SPLIT).exists():
        return []
    train_side = {entry.document for entry in run.read_records(RunFile.SPLIT, SplitEntry) if entry.side == "train"}
    return [chunk for chunk in run.read_records(RunFile.CHUNKS, Chunk) if chunk.document in train_side]


def _plan(sheets: Mapping[str, Sheet], sitting: Sitting, memory: ModelPool, limit: int) -> list[Batch]:
    """Batch the jobs arm by arm; what another arm of the same weights asks too is left out."""
    planned: list[Batch] = []
    seen: set[str] = set()
    for arm, sheet in sheets.items():
        weights, tokenizer = sitting[arm], memory.tokenizer(sitting[arm])
        fresh = [(key, job) for key, job in dict(sheet).items() if key not in seen]
        seen |= {key for key, _ in fresh}
        for places in batches([job for _, job in fresh], batch_size()):
            answer = partial(_outputs, tokenizer, limit, [fresh[place][1] for place in places])
            planned.append(Batch(weights, tuple(fresh[place][0] for place in places), answer))
    return planned


def _outputs(tokenizer: Any, limit: int, jobs: Sequence[AnswerJob], model: Any, ends: Sequence[int]) -> Outputs:
    """Answer the jobs; return what an ``Answer`` holds beside its question and arm."""
    return [
        {
            "text": tokenizer.decode(output.token_ids, skip_special_tokens=True).strip(),
            "finish": output.finish,
            "num_tokens": len(output.token_ids),
            "duration_s": round(output.duration_s, 4),
            "gold_nll": output.gold_nll,
            "contrast_nll": output.contrast_nll,
        }
        for output in answer_or_halve(model, jobs, limit, ends, tokenizer.pad_token_id)
    ]
