"""The exam's questions as jobs for each arm, and the arms' answers to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from tunewright import console
from tunewright.errors import RunFolderError, StageError, reading
from tunewright.evaluation.arms import BASE_AND_TUNED, Passages, Shots, arm_prompts
from tunewright.evaluation.generation import AnswerBatch, Outputs, answer_again, answer_all, batch_size
from tunewright.evaluation.retention import RetentionExam
from tunewright.models.chat_template import answer_ids, answer_text, encode_prompt
from tunewright.models.generation import AnswerJob, answer_or_halve, batches
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.models.student import context_tokens
from tunewright.recipe import Recipe
from tunewright.records import Answer, Message, Question, RetentionAnswer, RetentionItem, digest
from tunewright.run_folder import Journal
from tunewright.text.choices import gold_of, lists_options
from tunewright.text.perturbation import false_versions
from tunewright.text.reasoning import strip_reasoning

KeyedJobs = Sequence[tuple[str, AnswerJob]]  # for each question, in the exam's order: its answer's key, and the job


def all_answers(
    journal: Journal,
    recipe: Recipe,
    questions: Sequence[Question],
    weights_by_arm: Mapping[str, ModelWeights],
    items: Sequence[RetentionItem] = (),
    shots: Mapping[str, Shots] = MappingProxyType({}),
    passages: Mapping[str, Passages] = MappingProxyType({}),
) -> tuple[list[Answer], list[RetentionAnswer]]:
    """Return every arm's answer to every question, by arm and in the exam's order, and the retention answers.

    Args:
        journal: holds the answers given before; new ones are appended.
        recipe: its evaluation settings, system prompt and seed shape the prompts.
        questions: of the exam.
        weights_by_arm: the weights that answer for each arm.
        items: the retention items, which base and tuned answer; empty where either arm is missing.
        shots: the examples of each arm that shows some, as ``shots_by_arm`` returns them.
        passages: the passages of each arm that shows some, as ``passages_by_arm`` returns them.

    Raises:
        StageError: a likelihood overflowed.
    """
    pool, settings = ModelPool(), recipe.evaluation
    jobs_by_arm = question_jobs(recipe, questions, weights_by_arm, pool, shots, passages)
    retention = RetentionExam(items, {arm: weights_by_arm[arm] for arm in BASE_AND_TUNED} if items else {}, pool)
    plan = _plan(jobs_by_arm, weights_by_arm, pool, settings.max_new_tokens)
    outputs = answer_all(journal, [*plan, *retention.plan()], pool)
    with reading("answers", journal.path, answer_again(journal), RunFolderError):
        shown = {key: _shown(output, recipe.training.reasoning) for key, output in outputs.items()}
        answers = [
            Answer(question=question.id, arm=arm, num_prompt_tokens=len(job.prompt_ids), **shown[key])
            for arm, jobs in jobs_by_arm.items()
            for question, (key, job) in zip(questions, jobs, strict=True)
        ]
        return answers, retention.answers(shown)


def question_jobs(
    recipe: Recipe,
    questions: Sequence[Question],
    weights_by_arm: Mapping[str, ModelWeights],
    pool: ModelPool,
    shots: Mapping[str, Shots] = MappingProxyType({}),
    passages: Mapping[str, Passages] = MappingProxyType({}),
) -> dict[str, KeyedJobs]:
    """Return each arm's jobs, as ``all_answers`` answers them; ``pool`` gives the tokenizers.

    Raises:
        StageError: a question alone does not fit the context of the model that answers it.
    """

    def prompts(arm: str, question: Question) -> Iterator[tuple[Message, ...]]:
        return arm_prompts(arm, question, recipe.system_prompt, shots, passages)

    return {
        arm: _keyed_jobs(recipe, questions, arm, partial(prompts, arm), weights, pool.tokenizer(weights))
        for arm, weights in weights_by_arm.items()
    }


def _shown(output: Mapping[str, Any], reasoning: str) -> Mapping[str, Any]:
    """Return an answer's fields, without its reasoning where the recipe strips it."""
    return {**output, "text": strip_reasoning(output["text"])} if reasoning == "strip" and "text" in output else output


def _keyed_jobs(
    recipe: Recipe,
    questions: Sequence[Question],
    arm: str,
    prompts_of: Callable[[Question], Iterable[Sequence[Message]]],
    weights: ModelWeights,
    tokenizer: Any,
) -> KeyedJobs:
    """Return an arm's jobs: prompt and gold tokens in the tokens of its own base, each with its answer's key.

    The key is a digest of all that the answer depends on. A prompt that leaves no room for an answer in the base's
    context is replaced by the first shorter one that does, and counted.
    """
    max_new_tokens, context = recipe.evaluation.max_new_tokens, context_tokens(weights.recipe)
    num_shortened = 0

    def job(question: Question) -> AnswerJob:
        nonlocal num_shortened
        changed = false_gold(question, recipe.seed)
        for number, prompt in enumerate(prompts_of(question)):
            prompt_ids = encode_prompt(tokenizer, prompt)
            if len(prompt_ids) + max_new_tokens > context:
                continue
            ids = partial(answer_ids, tokenizer, prompt, len(prompt_ids))
            gold = ids(question.gold, with_end=True)
            contrast = ids(changed, with_end=True) if changed else []
            options = [ids(option, with_end=False) for option in options_to_score(question)]
            if len(prompt_ids) + max(map(len, (gold, contrast, *options))) <= context:
                num_shortened += number > 0
                return AnswerJob(prompt_ids, gold, contrast_ids=contrast, option_ids=options)
        raise _does_not_fit(question, arm, len(prompt_ids), max_new_tokens, context)

    def key(job: AnswerJob) -> str:
        contrast = [list(job.contrast_ids)] if job.contrast_ids else []
        options = [[list(ids) for ids in job.option_ids]] if job.option_ids else []
        return digest(weights.identity, max_new_tokens, list(job.prompt_ids), list(job.gold_ids), *contrast, *options)

    jobs = [(key(job), job) for job in map(job, questions)]
    if num_shortened:
        console.warning(
            f"{arm}: {num_shortened} of {len(questions)} prompts show fewer examples or passages than the recipe asks "
            f"for: the model's context of {context:,} tokens holds no more"
        )
    return jobs


def _does_not_fit(question: Question, arm: str, num_tokens: int, max_new_tokens: int, context: int) -> StageError:
    return StageError(
        f"a question does not fit the context of the model that answers for {arm}",
        f"question {question.id} ({question.question[:60]!r}) has {num_tokens:,} tokens alone, and with an answer of "
        f"{max_new_tokens} only {context:,} fit",
        "shorten it in the exam, or lower evaluation.max_new_tokens; of a compared base: leave that base out",
    )


def options_to_score(question: Question) -> tuple[str, ...]:
    """Return the options whose likelihood chooses: those that the question does not list, so that none can be named."""
    return () if lists_options(question.question, question.options) else question.options


def false_gold(question: Question, seed: int) -> str | None:
    """Return the gold answer with one number or word changed, or another option; None where that is not possible."""
    if not question.answerable:
        return None
    if question.options:  # the next option
        golds = [gold_of(question.question, question.options, index) for index in range(len(question.options))]
        return golds[(golds.index(question.gold) + 1) % len(golds)]
    quote = question.evidence.quote if question.evidence else ""
    source = f"{question.gold}\n{quote}\n{question.passage or ''}"
    return next(false_versions(question.gold, source, seed), None)


def _plan(
    jobs_by_arm: Mapping[str, KeyedJobs], weights_by_arm: Mapping[str, ModelWeights], pool: ModelPool, limit: int
) -> list[AnswerBatch]:
    """Batch the jobs arm by arm; a job that an earlier arm has with the same weights is left out."""
    planned: list[AnswerBatch] = []
    seen: set[str] = set()
    for arm, jobs in jobs_by_arm.items():
        weights, tokenizer = weights_by_arm[arm], pool.tokenizer(weights_by_arm[arm])
        fresh = [(key, job) for key, job in dict(jobs).items() if key not in seen]
        seen |= {key for key, _ in fresh}
        for indices in batches([job for _, job in fresh], batch_size()):
            answer = partial(_outputs, tokenizer, limit, [fresh[index][1] for index in indices])
            planned.append(AnswerBatch(weights, tuple(fresh[index][0] for index in indices), answer))
    return planned


def _outputs(tokenizer: Any, limit: int, jobs: Sequence[AnswerJob], model: Any, ends: Sequence[int]) -> Outputs:
    """Answer the jobs; return what an ``Answer`` holds beside its question and arm."""
    return [
        {
            "text": answer_text(tokenizer, job.prompt_ids, output.token_ids),
            "finish": output.finish,
            "num_tokens": len(output.token_ids),
            "duration_s": round(output.duration_s, 4),
            "gold_nll": output.gold_nll,
            "contrast_nll": output.contrast_nll,
            **({"option_nlls": output.option_nlls} if job.option_ids else {}),
        }
        for job, output in zip(jobs, answer_or_halve(model, jobs, limit, ends, tokenizer.pad_token_id), strict=True)
    ]
