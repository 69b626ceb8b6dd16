"""Answers of all arms from one loaded base: batches are journalled, and none is ever answered twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright import console
from tunewright.edits import false_versions
from tunewright.evaluation.arms import TUNED, arm_prompt, few_shot_examples, retriever
from tunewright.models.generate import Job, answer_or_halve, batches
from tunewright.models.load import for_inference, load_adapter, pick_device
from tunewright.models.student import student_base, student_identity, student_tokenizer
from tunewright.models.template import IGNORED, encode, encode_prompt, end_ids
from tunewright.recipe import Recipe
from tunewright.records import Answer, Chunk, Message, Question, Sample, SplitEntry, digest
from tunewright.rundir import RunFolder, file_digest

JOURNAL = "answers-journal.jsonl"
BATCH_SIZE = {"cpu": 48, "cuda": 128}

Sheets = Mapping[str, Sequence[Job]]  # arm → one job per question, in the exam's order
Key = Callable[[bool, Job], str]  # (with adapter, job) → what names the job's answer


@dataclass(frozen=True)
class _Batch:
    """Jobs that the same weights answer together."""

    tuned: bool
    jobs: tuple[Job, ...]


def all_answers(run: RunFolder, recipe: Recipe, questions: Sequence[Question], arms: Sequence[str]) -> Iterator[Answer]:
    """Yield every arm's answer to every question, in the order of the arms and of the exam."""
    tokenizer = student_tokenizer(recipe)
    sheets = _sheets(run, recipe, questions, arms, tokenizer)
    key = _key(run, recipe, any(arm in TUNED for arm in sheets))
    told = _tell(run, recipe, tokenizer, _plan(sheets, key, BATCH_SIZE[pick_device().partition(":")[0]]), key)
    for arm, jobs in sheets.items():
        for question, job in zip(questions, jobs, strict=True):
            output = told[key(arm in TUNED, job)]
            yield Answer(question=question.id, arm=arm, num_prompt_tokens=len(job.prompt_ids), **output)


def _sheets(
    run: RunFolder, recipe: Recipe, questions: Sequence[Question], arms: Sequence[str], tokenizer: Any
) -> Sheets:
    """Return the prompt and gold tokens of each question for each arm."""
    settings = recipe.evaluation
    retrieve = retriever(training_chunks(run), settings.rag_passages)
    shots = few_shot_examples(training_samples(run), settings.few_shot, recipe.seed)

    def answer_ids(prompt: Sequence[Message], skip: int, text: str) -> list[int]:
        whole = encode(tokenizer, (*prompt, Message(role="assistant", content=text)))
        return [label for label in whole.labels[skip:] if label != IGNORED]

    def job(arm: str, question: Question) -> Job:
        prompt = arm_prompt(arm, question, recipe.system_prompt, shots, retrieve)
        prompt_ids = encode_prompt(tokenizer, prompt)
        changed = false_gold(question, recipe.seed)
        contrast = answer_ids(prompt, len(prompt_ids), changed) if changed else ()
        return Job(prompt_ids, answer_ids(prompt, len(prompt_ids), question.gold), contrast_ids=contrast)

    return {arm: [job(arm, question) for question in questions] for arm in arms}


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


def training_chunks(run: RunFolder) -> list[Chunk]:
    """Return the chunks of the training documents; none where a run has only the user's own data."""
    if not run.file("split.jsonl").exists():
        return []
    train_side = {entry.document for entry in run.read_records("split.jsonl", SplitEntry) if entry.side == "train"}
    return [chunk for chunk in run.read_records("chunks.jsonl", Chunk) if chunk.document in train_side]


def _key(run: RunFolder, recipe: Recipe, with_adapter: bool) -> Key:
    """Return the function that names a job's answer by all that it depends on."""
    base = student_identity(recipe, pick_device())
    weights = {False: base, True: f"{base} {file_digest(run.file('adapter'))}" if with_adapter else base}
    limit = recipe.evaluation.max_new_tokens

    def key(tuned: bool, job: Job) -> str:
        contrast = [list(job.contrast_ids)] if job.contrast_ids else []
        return digest(weights[tuned], limit, list(job.prompt_ids), list(job.gold_ids), *contrast)

    return key


def _plan(sheets: Sheets, key: Key, batch_size: int) -> list[_Batch]:
    """Batch the jobs arm by arm, base weights first; what another arm of the same weights asks too is left out."""
    planned: list[_Batch] = []
    seen: set[str] = set()
    for arm, jobs in sorted(sheets.items(), key=lambda sheet: sheet[0] in TUNED):
        tuned = arm in TUNED
        own = {key(tuned, job): job for job in jobs if key(tuned, job) not in seen}
        seen |= set(own)
        fresh = list(own.values())
        planned += [_Batch(tuned, tuple(fresh[n] for n in batch)) for batch in batches(fresh, batch_size)]
    return planned


def _tell(run: RunFolder, recipe: Recipe, tokenizer: Any, planned: Sequence[_Batch], key: Key) -> dict[str, Any]:
    """Return all outputs by key: from the journal where they stand there, else by answering their batch now."""
    journal = run.journal(JOURNAL)
    told: dict[str, Any] = {}
    for entry in journal.entries:
        told |= entry.get("outputs", {})  # a line of another kind answers nothing, and is answered anew
    missing = [batch for batch in planned if any(key(batch.tuned, job) not in told for job in batch.jobs)]
    if not missing:
        return told
    device = pick_device()
    console.line(f"loading {recipe.model.base} on {device}")
    model = for_inference(student_base(recipe, device, tokenizer))
    ends, limit, adapted = end_ids(tokenizer, model), recipe.evaluation.max_new_tokens, False
    with console.progress("answers", sum(len(batch.jobs) for batch in missing)) as bar:
        for batch in missing:
            if batch.tuned and not adapted:
                model, adapted = load_adapter(model, run.file("adapter")), True
            outputs = {}
            answered = answer_or_halve(model, batch.jobs, limit, ends, tokenizer.pad_token_id)
            for job, output in zip(batch.jobs, answered, strict=True):
                outputs[key(batch.tuned, job)] = {
                    "text": tokenizer.decode(output.token_ids, skip_special_tokens=True).strip(),
                    "finish": output.finish,
                    "num_tokens": len(output.token_ids),
                    "duration_s": round(output.duration_s, 4),
                    "gold_nll": output.gold_nll,
                    "contrast_nll": output.contrast_nll,
                }
            journal.append({"outputs": outputs})
            told |= outputs
            bar.advance(len(batch.jobs))
    return told
