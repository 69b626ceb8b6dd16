"""The proof before the door opens: exam questions whose answers tell the tuned model from its base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from tunewright.errors import RunFolderError, StageError, command
from tunewright.models.chat_template import encode_prompt, exam_prompt
from tunewright.pipeline import require
from tunewright.recipe import Recipe
from tunewright.records import Answer, Question
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm

_MOST = 8
# A quantized file rounds otherwise than what was examined, so that an answer may part from it in a near tie.
_LEAST_TUNED, _LEAST_EQUAL = 0.75, 0.5


@dataclass(frozen=True)
class Canary:
    """An exam question's prompt, and what base and tuned answered in the exam."""

    prompt_ids: list[int]
    base: str
    tuned: str

    def leans(self, served: str) -> str:
        """Return whose answer the served one follows for longer: "tuned", "base", or "neither"."""
        if served == self.tuned:  # it may begin as the base's does and end sooner, or be empty
            return Arm.TUNED
        if served == self.base:
            return Arm.BASE
        with_tuned, with_base = (len(commonprefix([served, own])) for own in (self.tuned, self.base))
        if with_tuned == with_base:
            return "neither"
        return Arm.TUNED if with_tuned > with_base else Arm.BASE


def canaries(run: RunFolder, recipe: Recipe, tokenizer: Any) -> list[Canary]:
    """Return the exam questions that tell tuned from base, the shortest answers first.

    Raises:
        RunFolderError: the exam was not sat by both, or both answered all of it alike.
    """
    require(run, RunFile.ADAPTER, RunFile.EXAM, RunFile.ANSWERS)
    told: dict[str, dict[str, str]] = {}
    for answer in run.read_records(RunFile.ANSWERS, Answer):
        told.setdefault(answer.question, {})[answer.arm] = answer.text
    found, num_both = [], 0
    for question in run.read_records(RunFile.EXAM, Question):
        answers = told.get(question.id, {})
        if {Arm.BASE, Arm.TUNED} <= set(answers):
            num_both += 1
            if answers[Arm.BASE] != answers[Arm.TUNED]:
                prompt = exam_prompt(recipe.system_prompt, question)
                found.append(Canary(encode_prompt(tokenizer, prompt), answers[Arm.BASE], answers[Arm.TUNED]))
    if not num_both:
        raise RunFolderError(
            "nothing shows how base and tuned answer",
            f"answers.jsonl of {run.path} holds no question that both answered",
            f"add both to evaluation.arms, then: {command('run', 'RECIPE', '--dir', run.path)}",
        )
    if not found:
        raise RunFolderError(
            "the tuned model cannot be told from its base",
            f"both gave the same answer to all {num_both} exam questions: serving it would be serving the base",
            f"see what training did: {command('report', run.path)}; then train longer or on more",
        )
    return sorted(found, key=lambda canary: (len(canary.tuned), canary.prompt_ids))[:_MOST]


def judge(asked: Sequence[Canary], served: Iterable[str], hint: str) -> str:
    """Return a sentence on how the served answers compare with those of the exam.

    Args:
        asked: the canaries.
        served: the answers to them.
        hint: what to type where they are neither the base's nor the tuned model's.

    Raises:
        StageError: they are not the tuned model's.
    """
    answers = list(served)
    leans = [canary.leans(text) for canary, text in zip(asked, answers, strict=True)]
    equal = sum(text == canary.tuned for canary, text in zip(asked, answers, strict=True))
    total, tuned, base = len(asked), leans.count(Arm.TUNED), leans.count(Arm.BASE)
    counted = f"of {total} exam questions, it answers {equal} word for word as tuned did, {base} as the base"
    if tuned >= _LEAST_TUNED * total and equal >= _LEAST_EQUAL * total:
        return counted
    if base > tuned:
        raise StageError(
            "the served model is not the tuned one: the adapter is not applied",
            counted,
            "nothing is served; delete what was exported from this run, and start again",
        )
    raise StageError(
        "the served model is not the one that was examined",
        f"{counted}; first it says {answers[0][:80]!r}, where the exam has {asked[0].tuned[:80]!r}",
        hint,
    )
