"""A model as a judge: a verdict per claim of an answer, and the better of two answers, compared in both orders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from tunewright.teacher.protocol import Reply, Request, TeacherLike
from tunewright.text.prompts import fill, load_prompt

Finding = Literal["supported", "contradicted", "not mentioned"]
Better = Literal["first", "second", "tie"]

_PACKAGE = "tunewright.teacher"
_VERDICT_TOKENS = 512
_CHOICE_TOKENS = 32
_FINDINGS: tuple[Finding, ...] = ("contradicted", "not mentioned", "supported")  # the worst first


class _Finding(BaseModel):
    claim: str
    verdict: Finding


class _Findings(BaseModel):
    claims: list[_Finding]


class _Choice(BaseModel):
    better: Literal["A", "B", "tie"]


ReplyModel = TypeVar("ReplyModel", bound=BaseModel)


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer to judge: with its question, and the passage that must support it."""

    question: str
    answer: str
    passage: str


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_CLAIMS_SCHEMA = _object(
    claims={
        "type": "array",
        "minItems": 1,
        "items": _object(claim={"type": "string"}, verdict={"type": "string", "enum": list(_FINDINGS)}),
    }
)
_CHOICE_SCHEMA = _object(better={"type": "string", "enum": ["A", "B", "tie"]})


def judge_support(items: Sequence[JudgedAnswer], teacher: TeacherLike, seed: int = 0) -> list[Finding | None]:
    """Return the worst verdict on any claim of each answer; None where the reply failed, is cut or holds no verdict.

    The temperature is 0, so that a verdict is not a random draw.
    """
    turns = load_prompt("judge", _PACKAGE)
    requests = [
        Request(
            fill(turns, passage=item.passage, question=item.question, answer=item.answer),
            _VERDICT_TOKENS,
            0.0,
            seed,
            _CLAIMS_SCHEMA,
        )
        for item in items
    ]
    return [_worst(reply) for reply in teacher.ask_all(requests, "judging")] if requests else []


def _worst(reply: Reply | None) -> Finding | None:
    findings = read_reply(reply, _Findings)
    if findings is None:
        return None
    verdicts = {finding.verdict for finding in findings.claims}
    return next((verdict for verdict in _FINDINGS if verdict in verdicts), None)


def read_reply(reply: Reply | None, kind: type[ReplyModel]) -> ReplyModel | None:
    """Return the first JSON object of a complete reply as this model; None where it does not match."""
    if reply is None or reply.finish != "stop":
        return None
    try:
        content, _ = json.JSONDecoder().raw_decode(reply.text, max(reply.text.find("{"), 0))
        return kind.model_validate(content)
    except (ValueError, ValidationError, RecursionError):
        return None


@dataclass(frozen=True)
class Comparison:
    """A judge's preference between two answers.

    Attributes:
        better: the answer preferred in both orders, else a tie.
        flipped: whether the two orders disagree.
        choices: in how many of the two orders the judge preferred an answer.
        first_shown: in how many of them that was the answer shown first.
    """

    better: Better
    flipped: bool = False
    choices: int = 0
    first_shown: int = 0


def compare_answers(
    pairs: Sequence[tuple[JudgedAnswer, JudgedAnswer]], teacher: TeacherLike, seed: int = 0
) -> list[Comparison | None]:
    """Return which of two answers to the same question is better; None where either order yields no verdict.

    Judges have a position bias (Zheng et al. 2023, "Judging LLM-as-a-Judge"), so each pair is judged in both orders; if
    they disagree, it is a tie. Two equal answers are a tie without a call.
    """
    turns = load_prompt("compare", _PACKAGE)
    different = [pair for pair in pairs if pair[0].answer.strip() != pair[1].answer.strip()]
    requests = []
    for first, second in different:
        for a, b in ((first, second), (second, first)):
            filled = fill(turns, passage=first.passage, question=first.question, first=a.answer, second=b.answer)
            requests.append(Request(filled, _CHOICE_TOKENS, 0.0, seed, _CHOICE_SCHEMA))
    replies = iter(teacher.ask_all(requests, "comparing") if requests else [])
    same = Comparison("tie")
    judged = {id(pair) for pair in different}
    return [
        _settle(read_reply(next(replies), _Choice), read_reply(next(replies), _Choice)) if id(pair) in judged else same
        for pair in pairs
    ]


def _settle(straight: _Choice | None, swapped: _Choice | None) -> Comparison | None:
    if straight is None or swapped is None:
        return None
    labels = (straight.better, swapped.better)
    better: Better = "first" if labels == ("A", "B") else "second" if labels == ("B", "A") else "tie"
    choices = 2 - labels.count("tie")
    return Comparison(better, better == "tie" and choices > 0, choices, labels.count("A"))
