"""The exam's questions as every arm is asked them, and the answers that came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tunewright.edits import false_versions
from tunewright.evaluation.arms import TUNED, arm_prompt, few_shot_examples, retriever
from tunewright.evaluation.kept_answering import ThirdRing
from tunewright.evaluation.sitting import Batch, Outputs, answer_all, batch_size, weights_names
from tunewright.models.generate import Job, answer_or_halve, batches
from tunewright.models.student import student_tokenizer
from tunewright.models.template import IGNORED, encode, encode_prompt
from tunewright.recipe import Recipe
from tunewright.records import Answer, Chunk, KeptAnswer, KeptItem, Message, Question, Sample, SplitEntry, digest
from tunewright.rundir import RunFolder

Sheets = Mapping[str, Sequence[Job]]  # arm → one job per question, in the exam's order
Key = Callable[[bool, Job], str]  # (with adapter, job) → what names the job's answer


def all_answers(
    run: RunFolder, recipe: Recipe, questions: Sequence[Question], arms: Sequence[str], kept: Sequence[KeptItem] = ()
) -> tuple[list[Answer], list[KeptAnswer]]:
    """Return every arm's answer to every question, in the order of the arms and of the exam, and the third ring's."""
    tokenizer = student_tokenizer(recipe)
    sheets = _sheets(run, recipe, questions, arms, tokenizer)
    weights = weights_names(run, recipe, any(arm in TUNED for arm in sheets))
    key, third = _key(weights, recipe), ThirdRing(kept, tokenizer, weights)
    told = answer_all(run, recipe, tokenizer, [*_plan(sheets, key, batch_size(), recipe, tokenizer), *third.plan()])
    answers = [
        Answer(question=question.id, arm=arm, num_prompt_tokens=len(job.prompt_ids), **told[key(arm in TUNED, job)])
        for arm, jobs in sheets.items()
        for question, job in zip(questions, jobs, strict=True)
    ]
    return answers, third.answers(told)


def _sheets(
    run: RunFolder, recipe: Recipe, questions: Sequence[Question], arms: Sequence[str], tokenizer: Any
) -> Sheets:
    """Return the prompt and gold tokens of each question for each arm."""
    settings = recipe.evaluation
    retrieve = retriever(_training_chunks(run), settings.rag_passages)
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


def _training_chunks(run: RunFolder) -> list[Chunk]:
    """Return the chunks of the training documents; none where a run has only the user's own data."""
    if not run.file("split.jsonl").exists():
        return []
    train_side = {entry.document for entry in run.read_records("split.jsonl", SplitEntry) if entry.side == "train"}
    return [chunk for chunk in run.read_records("chunks.jsonl", Chunk) if chunk.document in train_side]


def _key(weights: Mapping[bool, str], recipe: Recipe) -> Key:
    """Return the function that names a job's answer by all that it depends on."""
    limit = recipe.evaluation.max_new_tokens

    def key(tuned: bool, job: Job) -> str:
        contrast = [list(job.contrast_ids)] if job.contrast_ids else []
        return digest(weights[tuned], limit, list(job.prompt_ids), list(job.gold_ids), *contrast)

    return key


def _plan(sheets: Sheets, key: Key, size: int, recipe: Recipe, tokenizer: Any) -> list[Batch]:
    """Batch the jobs arm by arm; what another arm of the same weights asks too is left out."""
    planned: list[Batch] = []
    seen: set[str] = set()
    for arm, jobs in sorted(sheets.items(), key=lambda sheet: sheet[0] in TUNED):
        tuned = arm in TUNED
        own = {key(tuned, job): job for job in jobs if key(tuned, job) not in seen}
        seen |= set(own)
        names, fresh = list(own), list(own.values())
        for places in batches(fresh, size):
            asked = [fresh[place] for place in places]
            answer = partial(_outputs, tokenizer, recipe.evaluation.max_new_tokens, asked)
            planned.append(Batch(tuned, tuple(names[place] for place in places), answer))
    return planned


def _outputs(tokenizer: Any, limit: int, jobs: Sequence[Job], model: Any, ends: Sequence[int]) -> Outputs:
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
