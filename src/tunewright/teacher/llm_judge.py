"""A model as a judge: a verdict per claim of an answer, and the better of two answers, asked in both orders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from tunewright.teacher.protocol import Asks, Reply, Request
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


Parsed = TypeVar("Parsed", bound=BaseModel)


@dataclass(frozen=True)
class Judged:
    """What a judge reads: an answer to a question, and the passage that must carry it."""

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


def judge(items: Sequence[Judged], teacher: Asks, seed: int = 0) -> list[Finding | None]:
    """Return the worst verdict on any claim of each answer; None where the reply is cut, failed or no verdict.

    Asked at temperature 0: a verdict is no draw.
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
    found = {finding.verdict for finding in findings.claims}
    return next((verdict for verdict in _FINDINGS if verdict in found), None)


def read_reply(reply: Reply | None, kind: type[Parsed]) -> Parsed | None:
    """Return the first JSON object of a complete reply, when it is of this kind; else None."""
    if reply is None or reply.finish != "stop":
        return None
    try:
        content, _ = json.JSONDecoder().raw_decode(reply.text, max(reply.text.find("{"), 0))
        return kind.model_validate(content)
    except (ValueError, ValidationError, RecursionError):
        return None


@dataclass(frozen=True)
class Comparison:
    """What a judge said of two answers: which one in both orders, else a tie; ``flipped`` when the orders disagree.

    ``choices``: how often, of the two times, it chose one; ``first_shown``: how often that was the one shown first.
    """

    better: Better
    flipped: bool = False
    choices: int = 0
    first_shown: int = 0


def compare(pairs: Sequence[tuple[Judged, Judged]], teacher: Asks, seed: int = 0) -> list[Comparison | None]:
    """Return which of two answers to the same question is better; None where either order brings no verdict.

    A judge favors a place (Zheng et al. 2023, "Judging LLM-as-a-Judge"): asked in both orders, it must say the same
    twice, or it is a tie. The same answer twice is a tie without a call.
    """
    turns = load_prompt("compare", _PACKAGE)
    different = [pair for pair in pairs if pair[0].answer.strip() != pair[1].answer.strip()]
    requests = []
    for first, second in different:
        for one, other in ((first, second), (second, first)):
            filled = fill(turns, passage=first.passage, question=first.question, first=one.answer, second=other.answer)
            requests.append(Request(filled, _CHOICE_TOKENS, 0.0, seed, _CHOICE_SCHEMA))
    replies = iter(teacher.ask_all(requests, "comparing") if requests else [])
    same = Comparison("tie")
    asked = {id(pair) for pair in different}
    return [
        _settle(read_reply(next(replies), _Choice), read_reply(next(replies), _Choice)) if id(pair) in asked else same
        for pair in pairs
    ]


def _settle(straight: _Choice | None, turned: _Choice | None) -> Comparison | None:
    if straight is None or turned is None:
        return None
    told = (straight.better, turned.better)
    better: Better = "first" if told == ("A", "B") else "second" if told == ("B", "A") else "tie"
    choices = 2 - told.count("tie")
    return Comparison(better, better == "tie" and choices > 0, choices, told.count("A"))
