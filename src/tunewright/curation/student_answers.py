"""The base student's own answers to the training prompts, sampled; each batch is journaled, and paid for once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunewright import console
from tunewright.curation.judged import Told
from tunewright.models.generate import Job, Sampling, answer_or_halve, batches
from tunewright.models.load import for_inference, pick_device
from tunewright.models.student import student_base, student_identity, student_tokenizer
from tunewright.models.template import encode_prompt, end_ids
from tunewright.recipe import Recipe
from tunewright.records import Sample, digest
from tunewright.rundir import RunFolder

JOURNAL = "student-answers.jsonl"
# Near the model's own distribution, without its long tail of tokens that it hardly believes itself.
SAMPLING = Sampling(temperature=0.8, top_p=0.95)
_BATCH_SIZE = {"cpu": 48, "cuda": 128}
_MOST_TOKENS = 512
_ROOM = 1.5  # of the longest verified answer: more would be too long to be a pair with any


def student_answers(run: RunFolder, recipe: Recipe, samples: Sequence[Sample]) -> list[list[Told]]:
    """Return ``preference.samples`` answers of the untrained student to each sample's prompt.

    The same recipe gives the same answers: each draw has its own seed, whatever batch it falls into.
    """
    tokenizer = student_tokenizer(recipe)
    lengths = [len(tokenizer(sample.answer, add_special_tokens=False)["input_ids"]) for sample in samples]
    limit = min(_MOST_TOKENS, round(_ROOM * max(lengths, default=0)) + 8)
    jobs = [
        Job(prompt, (), int(digest(recipe.seed, sample.id, draw)[:8], 16))
        for sample in samples
        for prompt in [encode_prompt(tokenizer, sample.messages[:-1])]
        for draw in range(recipe.preference.samples)
    ]
    weights = student_identity(recipe, pick_device())
    keys = [
        digest(weights, SAMPLING.temperature, SAMPLING.top_p, limit, list(job.prompt_ids), job.seed) for job in jobs
    ]
    told = _tell(run, recipe, tokenizer, jobs, keys, limit)
    answers = iter(told[key] for key in keys)
    return [[next(answers) for _ in range(recipe.preference.samples)] for _ in samples]


def _tell(
    run: RunFolder, recipe: Recipe, tokenizer: Any, jobs: Sequence[Job], keys: Sequence[str], limit: int
) -> dict[str, Told]:
    """Return all answers by key: from the journal where they stand there, else by answering their batch now."""
    journal = run.journal(JOURNAL)
    told: dict[str, Told] = {}
    for entry in journal.entries:
        told |= {key: Told(**answer) for key, answer in entry.get("answers", {}).items()}
    device = pick_device()
    planned = batches(jobs, _BATCH_SIZE[device.partition(":")[0]])
    missing = [batch for batch in planned if any(keys[number] not in told for number in batch)]
    if not missing:
        return told
    console.line(f"loading {recipe.model.base} on {device}")
    model = for_inference(student_base(recipe, device, tokenizer))
    ends = end_ids(tokenizer, model)
    with console.progress("the student's answers", sum(map(len, missing))) as bar:
        for batch in missing:
            outputs = answer_or_halve(
                model, [jobs[number] for number in batch], limit, ends, tokenizer.pad_token_id, SAMPLING
            )
            answers = {
                keys[number]: {
                    "text": tokenizer.decode(output.token_ids, skip_special_tokens=True).strip(),
                    "cut": output.finish == "length",
                }
                for number, output in zip(batch, outputs, strict=True)
            }
            journal.append({"answers": answers})
            told |= {key: Told(**answer) for key, answer in answers.items()}
            bar.advance(len(batch))
    return told
