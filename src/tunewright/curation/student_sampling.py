"""The student's sampled answers to the training prompts, their rewards, and which of them make a pair."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright import console
from tunewright.curation.answer_edits import evidence_of
from tunewright.curation.sample_rules import teaches_refusal
from tunewright.metrics import is_refusal, token_f1, tokens
from tunewright.models.chat_template import answer_text, encode_prompt, end_ids
from tunewright.models.generation import AnswerJob, Sampling, answer_or_halve, batches
from tunewright.models.loading import for_inference, pick_device
from tunewright.models.reward import load_reward, score_exchanges
from tunewright.models.source import locate
from tunewright.models.student import student_base, student_identity, student_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import Record, Sample, digest
from tunewright.run_folder import Journal
from tunewright.text.prompts import split_prompt
from tunewright.text.quantities import number_values, states_unknown_facts
from tunewright.text.reasoning import text_to_score


class Reward(Record):
    """A sample's score by ``curation.reward``, on that model's own scale."""

    sample: str
    reward: float


def rewards_of(exchanges: Sequence[tuple[str, str]], recipe: Recipe) -> list[float]:
    """Return the reward of each (prompt, answer), by the model that ``curation.reward`` names.

    Raises:
        ModelError: the model cannot be loaded, or is no reward model.
    """
    if not exchanges:
        return []
    device = pick_device()
    console.line(f"loading {recipe.curation.reward} on {device}")
    model, tokenizer = load_reward(locate(recipe.curation.reward, recipe.folder), device)
    with console.progress("rewards", len(exchanges)) as bar:
        scored = score_exchanges(model, tokenizer, exchanges, bar.advance)
    if scored.num_cut:
        console.warning(
            f"{scored.num_cut} of {len(exchanges)} exchanges are longer than the {scored.limit} tokens of the reward "
            "model: it did not see the beginning of their prompt"
        )
    return scored.rewards


def sample_rewards(samples: Sequence[Sample], recipe: Recipe) -> list[Reward]:
    """Return the reward of each sample's last answer to its last question, in the samples' order.

    Raises:
        ModelError: the reward model cannot be loaded, or is none.
    """
    rewards = rewards_of([(sample.question, sample.answer) for sample in samples], recipe)
    return [Reward(sample=sample.id, reward=reward) for sample, reward in zip(samples, rewards, strict=True)]


def reward_figures(rewards: Sequence[Reward]) -> dict[str, float | int | str]:
    """Return the mean, least and greatest reward."""
    values = [reward.reward for reward in rewards]
    return {
        "reward_mean": round(sum(values) / len(values), 4),
        "reward_min": round(min(values), 4),
        "reward_max": round(max(values), 4),
    }


_WRONG_BELOW = 0.3  # token F1 with the verified answer
_OWN_WORDS = 0.5  # of a wrong answer's words are not in the evidence: a short right answer has a low F1 too
_LENGTHS = 2.0  # largest ratio of the answers' lengths; beyond it, length alone shows which is better
_LEAST_GAP = 1.0  # between best and worst, in standard deviations of all scores: reward models have no common scale


@dataclass(frozen=True)
class StudentAnswer:
    """A sampled answer; ``cut``: it reached the limit of tokens."""

    text: str
    cut: bool


@dataclass(frozen=True)
class PairChoice:
    """A prompt's rejected and chosen answer (None: the verified answer), or the fault why there is no pair."""

    rejected: str = ""
    chosen: str | None = None
    fault: str = ""
    detail: str = ""


def _refused(text: str, sample: Sample, recipe: Recipe) -> bool:
    return not teaches_refusal(sample, recipe.refusal) and is_refusal(text, recipe.refusal)


def _answered(text: str, sample: Sample, recipe: Recipe) -> bool:
    return teaches_refusal(sample, recipe.refusal) and not is_refusal(text, recipe.refusal)


def _other_number(text: str, sample: Sample, recipe: Recipe) -> bool:
    """Return whether an answer has a number that occurs in neither evidence, question nor verified answer."""
    del recipe
    source = f"{evidence_of(sample)}\n{split_prompt(sample.question)[1]}\n{sample.answer}"
    return not number_values(text) <= number_values(source)


def _other_words(text: str, sample: Sample, recipe: Recipe) -> bool:
    del recipe
    answered, known = tokens(text), set(tokens(f"{evidence_of(sample)}\n{sample.answer}"))
    own = sum(word not in known for word in answered) / len(answered) if answered else 0.0
    return token_f1(text, sample.answer) < _WRONG_BELOW and own >= _OWN_WORDS


WRONG: dict[str, Callable[[str, Sample, Recipe], bool]] = {
    "refused": _refused,
    "answered": _answered,
    "other number": _other_number,
    "other words": _other_words,
}


def error_of(text: str, sample: Sample, recipe: Recipe) -> str | None:
    """Return the name of the first rule in WRONG that an answer breaks, or None.

    An answer that refuses or should refuse is judged by that alone.
    """
    if teaches_refusal(sample, recipe.refusal) or is_refusal(text, recipe.refusal):
        return next((name for name in ("refused", "answered") if WRONG[name](text, sample, recipe)), None)
    return next((name for name, wrong in WRONG.items() if wrong(text, sample, recipe)), None)


def _usable(answers: Sequence[StudentAnswer]) -> list[str]:
    """Return the distinct complete answers after their reasoning; a cut one would teach that ending is better."""
    texts = [text_to_score(answer.text) for answer in answers if not answer.cut]
    return list(dict.fromkeys(text for text in texts if text.strip()))


def _length_ratio(first: str, second: str) -> float:
    """Return the ratio of the texts' lengths in words, at least 1."""
    lengths = sorted((len(first.split()), len(second.split())))
    return lengths[1] / max(lengths[0], 1)


def students_error(sample: Sample, answers: Sequence[StudentAnswer], recipe: Recipe) -> PairChoice:
    """Return the student's wrong answer that is nearest in length to the verified one.

    A wrong refusal, or an answer in place of a refusal, may be of any length: both directions are balanced later.
    """
    usable = _usable(answers)
    if not usable:
        return PairChoice(fault="student's answers are cut or empty")
    wrong = {text: error for text in usable if (error := error_of(text, sample, recipe))}
    if not wrong:
        return PairChoice(fault="student makes no error")
    text = min(wrong, key=lambda text: (_length_ratio(text, sample.answer), text))
    if wrong[text] not in ("refused", "answered") and _length_ratio(text, sample.answer) > _LENGTHS:
        return PairChoice(fault="lengths too far apart", detail=text)
    return PairChoice(rejected=text)


def _may_be_best(text: str, sample: Sample, recipe: Recipe) -> bool:
    """Return whether an answer refuses exactly where it should, and states no number or name without a source."""
    if is_refusal(text, recipe.refusal) or teaches_refusal(sample, recipe.refusal):
        return is_refusal(text, recipe.refusal) and teaches_refusal(sample, recipe.refusal)
    return not states_unknown_facts(text, f"{sample.question}\n{evidence_of(sample)}\n{sample.answer}")


def best_and_worst(
    samples: Sequence[Sample], answers: Sequence[Sequence[StudentAnswer]], recipe: Recipe
) -> list[PairChoice]:
    """Return for each sample its best and worst answer by the reward model.

    The reward model does not see the document, so it never decides alone: the best answer must also pass the rules
    that need no model.
    """
    usable = [_usable(own) for own in answers]
    flat = [(sample, text) for sample, texts in zip(samples, usable, strict=True) for text in texts]
    scores = iter(rewards_of([(sample.question, text) for sample, text in flat], recipe))
    scored = [{text: next(scores) for text in texts} for texts in usable]
    values = [score for rewards in scored for score in rewards.values()]
    spread = statistics.pstdev(values) if len(values) > 1 else 0.0
    return [_extremes(sample, rewards, spread, recipe) for sample, rewards in zip(samples, scored, strict=True)]


def _extremes(sample: Sample, rewards: Mapping[str, float], spread: float, recipe: Recipe) -> PairChoice:
    if len(rewards) < 2:
        return PairChoice(fault="fewer than two different answers")
    worst = min(rewards, key=lambda text: (rewards[text], text))
    fit = [text for text in rewards if _may_be_best(text, sample, recipe)]
    if not fit:
        return PairChoice(fault="no answer holds against the passage")
    best = max(fit, key=lambda text: (rewards[text], text))
    if best == worst or rewards[best] - rewards[worst] < _LEAST_GAP * spread:
        return PairChoice(fault="scores too close", detail=best)
    if is_refusal(best, recipe.refusal) == is_refusal(worst, recipe.refusal) and _length_ratio(best, worst) > _LENGTHS:
        return PairChoice(fault="lengths too far apart", detail=best)
    return PairChoice(rejected=worst, chosen=best)


# Near the model's own distribution, without its tail of improbable tokens.
SAMPLING = Sampling(temperature=0.8, top_p=0.95)
_BATCH_SIZE = {"cpu": 48, "cuda": 128}
_MOST_TOKENS = 512
_ROOM = 1.5  # times the longest verified answer: a longer answer makes no pair


def student_answers(journal: Journal, recipe: Recipe, samples: Sequence[Sample]) -> list[list[StudentAnswer]]:
    """Return ``preference.samples`` answers of the untrained student to each sample's prompt.

    Each draw has its own seed, so that the answers depend on the recipe and not on the batches. Every batch is
    journaled, and generated once.
    """
    tokenizer = student_tokenizer(recipe)
    lengths = [len(tokenizer(sample.answer, add_special_tokens=False)["input_ids"]) for sample in samples]
    limit = min(_MOST_TOKENS, round(_ROOM * max(lengths, default=0)) + 8)
    jobs = [
        AnswerJob(prompt, (), int(digest(recipe.seed, sample.id, draw)[:8], 16))
        for sample in samples
        for prompt in [encode_prompt(tokenizer, sample.messages[:-1])]
        for draw in range(recipe.preference.samples)
    ]
    weights = student_identity(recipe, pick_device())
    keys = [
        digest(weights, SAMPLING.temperature, SAMPLING.top_p, limit, list(job.prompt_ids), job.seed) for job in jobs
    ]
    by_key = _generated(journal, recipe, tokenizer, jobs, keys, limit)
    answers = iter(by_key[key] for key in keys)
    return [[next(answers) for _ in range(recipe.preference.samples)] for _ in samples]


def _generated(
    journal: Journal, recipe: Recipe, tokenizer: Any, jobs: Sequence[AnswerJob], keys: Sequence[str], limit: int
) -> dict[str, StudentAnswer]:
    """Return all answers by key: from the journal, else by generating their batch now."""
    answers_by_key: dict[str, StudentAnswer] = {}
    for entry in journal.entries:
        answers_by_key |= {key: StudentAnswer(**answer) for key, answer in entry.get("answers", {}).items()}
    device = pick_device()
    planned = batches(jobs, _BATCH_SIZE[device.partition(":")[0]])
    missing = [batch for batch in planned if any(keys[number] not in answers_by_key for number in batch)]
    if not missing:
        return answers_by_key
    console.line(f"loading {recipe.model.base} on {device}")
    model = for_inference(student_base(recipe, device, tokenizer))
    ends = end_ids(tokenizer, model)
    with console.progress("the student's answers", sum(map(len, missing))) as bar:
        for batch in missing:
            outputs = answer_or_halve(
                model, [jobs[number] for number in batch], limit, ends, tokenizer.pad_token_id, SAMPLING
            )
            answers: dict[str, dict[str, Any]] = {
                keys[number]: {
                    "text": answer_text(tokenizer, jobs[number].prompt_ids, output.token_ids),
                    "cut": output.finish == "length",
                }
                for number, output in zip(batch, outputs, strict=True)
            }
            journal.append({"answers": answers})
            answers_by_key |= {key: StudentAnswer(**answer) for key, answer in answers.items()}
            bar.advance(len(batch))
    return answers_by_key
