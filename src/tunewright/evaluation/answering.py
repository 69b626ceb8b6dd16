"""Answers of all arms, weights by weights: batches are journalled, and none is ever answered twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright import console
from tunewright.edits import false_versions
from tunewright.evaluation.arms import RETRIEVING, arm_prompt, few_shot_examples, retriever
from tunewright.evaluation.weights import Memory, Weights
from tunewright.models.generate import Job, answer_or_halve, batches
from tunewright.models.load import pick_device
from tunewright.models.template import IGNORED, encode, encode_prompt, end_ids
from tunewright.recipe import Recipe
from tunewright.records import Answer, Chunk, Message, Question, Sample, SplitEntry, digest
from tunewright.rundir import RunFolder

JOURNAL = "answers-journal.jsonl"
BATCH_SIZE = {"cpu": 48, "cuda": 128}

Sitting = Mapping[str, Weights]  # arm → the weights that answer for it
Sheet = Sequence[tuple[str, Job]]  # for each question, in the exam's order: the key of its answer, and the job


@dataclass(frozen=True)
class _Batch:
    """Jobs, by the keys of their answers, that the same weights answer together."""

    weights: Weights
    jobs: Mapping[str, Job]


def all_answers(run: RunFolder, recipe: Recipe, questions: Sequence[Question], sitting: Sitting) -> Iterator[Answer]:
    """Yield every arm's answer to every question, in the order of the arms and of the exam."""
    memory = Memory()
    sheets = {arm: _sheet(run, recipe, questions, arm, weights, memory) for arm, weights in sitting.items()}
    told = _tell(run, recipe, _plan(sheets, sitting, BATCH_SIZE[pick_device().partition(":")[0]]), memory)
    for arm, sheet in sheets.items():
        for question, (key, job) in zip(questions, sheet, strict=True):
            yield Answer(question=question.id, arm=arm, num_prompt_tokens=len(job.prompt_ids), **told[key])


def _sheet(
    run: RunFolder, recipe: Recipe, questions: Sequence[Question], arm: str, weights: Weights, memory: Memory
) -> Sheet:
    """Return an arm's jobs: prompt and gold tokens in the tokens of its own base, each with its answer's key.

    The key is a digest of all that the answer depends on.
    """
    settings, tokenizer = recipe.evaluation, memory.tokenizer(weights)
    retrieve = retriever(_training_chunks(run) if arm in RETRIEVING else [], settings.rag_passages)
    shots = few_shot_examples(training_samples(run), settings.few_shot, recipe.seed)

    def answer_ids(prompt: Sequence[Message], skip: int, text: str) -> list[int]:
        whole = encode(tokenizer, (*prompt, Message(role="assistant", content=text)))
        return [label for label in whole.labels[skip:] if label != IGNORED]

    def job(question: Question) -> Job:
        prompt = arm_prompt(arm, question, recipe.system_prompt, shots, retrieve)
        prompt_ids = encode_prompt(tokenizer, prompt)
        changed = false_gold(question, recipe.seed)
        contrast = answer_ids(prompt, len(prompt_ids), changed) if changed else ()
        return Job(prompt_ids, answer_ids(prompt, len(prompt_ids), question.gold), contrast_ids=contrast)

    def key(job: Job) -> str:
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


def training_samples(run: RunFolder) -> list[Sample]:
    """Return the chats that were trained on; none after raw text or preferences alone."""
    return run.read_records("train.jsonl", Sample) if run.file("train.jsonl").exists() else []


def _training_chunks(run: RunFolder) -> list[Chunk]:
    """Return the chunks of the training documents; none where a run has only the user's own data."""
    if not run.file("split.jsonl").exists():
        return []
    train_side = {entry.document for entry in run.read_records("split.jsonl", SplitEntry) if entry.side == "train"}
    return [chunk for chunk in run.read_records("chunks.jsonl", Chunk) if chunk.document in train_side]


def _plan(sheets: Mapping[str, Sheet], sitting: Sitting, batch_size: int) -> list[_Batch]:
    """Batch the jobs arm by arm, model by model, bases before their adapters.

    What another arm of the same weights asks too is left out.
    """
    planned: list[_Batch] = []
    seen: set[str] = set()
    models = list(dict.fromkeys(weights.loaded_as for weights in sitting.values()))
    for arm in sorted(sheets, key=lambda arm: (models.index(sitting[arm].loaded_as), sitting[arm].adapter is not None)):
        fresh = [(key, job) for key, job in dict(sheets[arm]).items() if key not in seen]
        seen |= {key for key, _ in fresh}
        for batch in batches([job for _, job in fresh], batch_size):
            planned.append(_Batch(sitting[arm], dict(fresh[n] for n in batch)))
    return planned


def _tell(run: RunFolder, recipe: Recipe, planned: Sequence[_Batch], memory: Memory) -> dict[str, Any]:
    """Return all outputs by key: from the journal where they stand there, else by answering their batch now."""
    journal = run.journal(JOURNAL)
    told: dict[str, Any] = {}
    for entry in journal.entries:
        told |= entry.get("outputs", {})  # a line of another kind answers nothing, and is answered anew
    missing = [batch for batch in planned if not batch.jobs.keys() <= told.keys()]
    if not missing:
        return told
    with console.progress("answers", sum(len(batch.jobs) for batch in missing)) as bar:
        for batch in missing:
            outputs = _answer(batch, memory, recipe.evaluation.max_new_tokens)
            journal.append({"outputs": outputs})
            told |= outputs
            bar.advance(len(batch.jobs))
    return told


def _answer(batch: _Batch, memory: Memory, limit: int) -> dict[str, Any]:
    tokenizer = memory.tokenizer(batch.weights)
    with memory.holding(batch.weights) as model:
        ends = end_ids(tokenizer, model)
        answered = answer_or_halve(model, list(batch.jobs.values()), limit, ends, tokenizer.pad_token_id)
    return {
        key: {
            "text": tokenizer.decode(output.token_ids, skip_special_tokens=True).strip(),
            "finish": output.finish,
            "num_tokens": len(output.token_ids),
            "duration_s": round(output.duration_s, 4),
            "gold_nll": output.gold_nll,
            "contrast_nll": output.contrast_nll,
        }
        for key, output in zip(batch.jobs, answered, strict=True)
    }
