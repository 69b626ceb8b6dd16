"""The student's own answers judged without a call: which of them are wrong, and which are best and worst."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunewright.answers import is_refusal as declines
from tunewright.answers import token_f1, tokens
from tunewright.curation.edits import evidence_of
from tunewright.curation.facts import number_values, unsupported
from tunewright.curation.reward import rewards_of
from tunewright.curation.rules import is_refusal, split_prompt
from tunewright.recipe import Recipe
from tunewright.records import Sample

_WRONG_BELOW = 0.3  # token F1 with the verified answer
_OWN_WORDS = 0.5  # of a wrong answer's words stand not in the evidence: a short right answer has a low F1 too
_LENGTHS = 2.0  # how many times as long one answer may be as the other, or length tells which is better
_LEAST_GAP = 1.0  # between best and worst, in standard deviations of all scores: reward models have no common scale


@dataclass(frozen=True)
class Told:
    """One sampled answer; ``cut`` where it met the limit of tokens."""

    text: str
    cut: bool


@dataclass(frozen=True)
class Judged:
    """What came of a prompt's answers: a rejected one, with its chosen one (None: the verified answer), or a fault."""

    rejected: str = ""
    chosen: str | None = None
    fault: str = ""
    detail: str = ""


def _refused(text: str, sample: Sample, recipe: Recipe) -> bool:
    return not is_refusal(sample, recipe) and declines(text, recipe.refusal)


def _answered(text: str, sample: Sample, recipe: Recipe) -> bool:
    return is_refusal(sample, recipe) and not declines(text, recipe.refusal)


def _other_number(text: str, sample: Sample, recipe: Recipe) -> bool:
    """A number that neither evidence, question nor verified answer has."""
    del recipe
    known = f"{evidence_of(sample)}\n{split_prompt(sample.question)[1]}\n{sample.answer}"
    return not number_values(text) <= number_values(known)


def _other_words(text: str, sample: Sample, recipe: Recipe) -> bool:
    del recipe
    told, known = tokens(text), set(tokens(f"{evidence_of(sample)}\n{sample.answer}"))
    own = sum(word not in known for word in told) / len(told) if told else 0.0
    return token_f1(text, sample.answer) < _WRONG_BELOW and own >= _OWN_WORDS


WRONG: dict[str, Callable[[str, Sample, Recipe], bool]] = {
    "refused": _refused,
    "answered": _answered,
    "other number": _other_number,
    "other words": _other_words,
}


def error_of(text: str, sample: Sample, recipe: Recipe) -> str | None:
    """Return the name of the first rule in WRONG that an answer breaks, or None.

    A refusal's twin rules come first: what refuses or should have refused is judged by that alone.
    """
    if is_refusal(sample, recipe) or declines(text, recipe.refusal):
        return next((name for name in ("refused", "answered") if WRONG[name](text, sample, recipe)), None)
    return next((name for name, wrong in WRONG.items() if wrong(text, sample, recipe)), None)


def _usable(answers: Sequence[Told]) -> list[str]:
    """Return the different answers that came to their own end; a cut one would teach that stopping is better."""
    return list(dict.fromkeys(answer.text for answer in answers if answer.text.strip() and not answer.cut))


def _apart(first: str, second: str) -> float:
    """Return how many times as long the longer text is, in words."""
    lengths = sorted((len(first.split()), len(second.split())))
    return lengths[1] / max(lengths[0], 1)


def students_error(sample: Sample, answers: Sequence[Told], recipe: Recipe) -> Judged:
    """Return the student's wrong answer that is nearest in length to the verified one.

    A wrong refusal and a wrong answer may be of any length: both directions are balanced later.
    """
    usable = _usable(answers)
    if not usable:
        return Judged(fault="student's answers are cut or empty")
    wrong = {text: error for text in usable if (error := error_of(text, sample, recipe))}
    if not wrong:
        return Judged(fault="student makes no error")
    text = min(wrong, key=lambda text: (_apart(text, sample.answer), text))
    if wrong[text] not in ("refused", "answered") and _apart(text, sample.answer) > _LENGTHS:
        return Judged(fault="lengths too far apart", detail=text)
    return Judged(rejected=text)


def _may_be_best(text: str, sample: Sample, recipe: Recipe) -> bool:
    """Whether an answer refuses as it should, and has no number or name that nothing before it has."""
    if declines(text, recipe.refusal) or is_refusal(sample, recipe):
        return declines(text, recipe.refusal) and is_refusal(sample, recipe)
    return not unsupported(text, f"{sample.question}\n{evidence_of(sample)}\n{sample.answer}")


def best_and_worst(samples: Sequence[Sample], answers: Sequence[Sequence[Told]], recipe: Recipe) -> list[Judged]:
    """Return for each sample its best and worst answer by the reward model.

    The model ranks and never decides alone: it does not see the document. The best one must also hold against the
    rules that need no model.
    """
    usable = [_usable(told) for told in answers]
    flat = [(sample, text) for sample, texts in zip(samples, usable, strict=True) for text in texts]
    scores = iter(rewards_of([(sample.question, text) for sample, text in flat], recipe))
    scored = [{text: next(scores) for text in texts} for texts in usable]
    everything = [score for rewards in scored for score in rewards.values()]
    spread = statistics.pstdev(everything) if len(everything) > 1 else 0.0
    return [_extremes(sample, rewards, spread, recipe) for sample, rewards in zip(samples, scored, strict=True)]


def _extremes(sample: Sample, rewards: Mapping[str, float], spread: float, recipe: Recipe) -> Judged:
    if len(rewards) < 2:
        return Judged(fault="fewer than two different answers")
    worst = min(rewards, key=lambda text: (rewards[text], text))
    fit = [text for text in rewards if _may_be_best(text, sample, recipe)]
    if not fit:
        return Judged(fault="no answer holds against the passage")
    best = max(fit, key=lambda text: (rewards[text], text))
    if best == worst or rewards[best] - rewards[worst] < _LEAST_GAP * spread:
        return Judged(fault="scores too close", detail=best)
    if declines(best, recipe.refusal) == declines(worst, recipe.refusal) and _apart(best, worst) > _LENGTHS:
        return Judged(fault="lengths too far apart", detail=best)
    return Judged(rejected=worst, chosen=best)
