"""The check before the server listens: exam questions that base and tuned model answered differently."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.errors import RunFolderError, StageError, command
from tunewright.models.chat_template import encode_prompt, exam_prompt
from tunewright.records import Answer, Question
from tunewright.run_folder import RunFile
from tunewright.settings import Arm

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MAX_CANARIES = 8
# A quantized file rounds differently from the evaluated model, so an answer may differ after a near tie.
_LEAST_TUNED, _LEAST_EQUAL = 0.75, 0.5


@dataclass(frozen=True)
class Canary:
    """An exam question's prompt, and the answers of base and tuned in the exam."""

    prompt_ids: list[int]
    base: str
    tuned: str

    def leans(self, served: str) -> str:
        """Return whose answer has the longer common beginning with the served one: "tuned", "base", or "neither"."""
        if served == self.tuned:  # it may be a beginning of the base's answer, or empty
            return Arm.TUNED
        if served == self.base:
            return Arm.BASE
        with_tuned, with_base = (len(commonprefix([served, own])) for own in (self.tuned, self.base))
        if with_tuned == with_base:
            return "neither"
        return Arm.TUNED if with_tuned > with_base else Arm.BASE


def choose_canaries(
    questions: Sequence[Question],
    answers: Sequence[Answer],
    system_prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> list[Canary]:
    """Return the exam questions that base and tuned answered differently, the shortest answers first.

    Args:
        questions: the exam's.
        answers: of all arms.
        system_prompt: of the evaluation.
        tokenizer: the student's.
        folder: the run's, for the hints.

    Raises:
        RunFolderError: base and tuned have no question in common, or answered all of them alike.
    """
    texts: dict[str, dict[str, str]] = {}
    for answer in answers:
        texts.setdefault(answer.question, {})[answer.arm] = answer.text
    canaries, num_both = [], 0
    for question in questions:
        by_arm = texts.get(question.id, {})
        if {Arm.BASE, Arm.TUNED} <= set(by_arm):
            num_both += 1
            if by_arm[Arm.BASE] != by_arm[Arm.TUNED]:
                prompt = exam_prompt(system_prompt, question)
                canaries.append(Canary(encode_prompt(tokenizer, prompt), by_arm[Arm.BASE], by_arm[Arm.TUNED]))
    if not num_both:
        raise RunFolderError(
            "there are no answers of both base and tuned",
            f"{RunFile.ANSWERS} of {folder} holds no question answered by both base and tuned",
            f"add both to evaluation.arms, then: {command('run', 'RECIPE', '--dir', folder)}",
        )
    if not canaries:
        raise RunFolderError(
            "the tuned model cannot be distinguished from its base",
            f"both gave the same answer to all {num_both} exam questions",
            f"check the training: {command('report', folder)}; then train longer or on more data",
        )
    return sorted(canaries, key=lambda canary: (len(canary.tuned), canary.prompt_ids))[:_MAX_CANARIES]


def require_tuned(canaries: Sequence[Canary], served: Iterable[str], hint: str) -> str:
    """Return a sentence that compares the served answers with those of the exam.

    Args:
        canaries: the questions.
        served: the answers to them.
        hint: for answers that are neither the base's nor the tuned model's.

    Raises:
        StageError: the answers are not the tuned model's.
    """
    answers = list(served)
    leans = [canary.leans(text) for canary, text in zip(canaries, answers, strict=True)]
    equal = sum(text == canary.tuned for canary, text in zip(canaries, answers, strict=True))
    total, tuned, base = len(canaries), leans.count(Arm.TUNED), leans.count(Arm.BASE)
    counted = f"of {total} exam questions, it answers {equal} word for word as tuned did, {base} as the base"
    if tuned >= _LEAST_TUNED * total and equal >= _LEAST_EQUAL * total:
        return counted
    if base > tuned:
        raise StageError(
            "the served model is not the tuned one: the adapter is not applied",
            counted,
            "nothing is served; delete the exports of this run, and start again",
        )
    raise StageError(
        "the served model is not the evaluated one",
        f"{counted}; its first answer is {answers[0][:80]!r}, in the exam it was {canaries[0].tuned[:80]!r}",
        hint,
    )
