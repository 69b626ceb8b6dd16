"""The teacher as a judge: a verdict per claim of an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from tunewright.prompting import fill, load_prompt
from tunewright.teacher.protocol import Asks, Reply, Request

Finding = Literal["supported", "contradicted", "not mentioned"]

_PACKAGE = "tunewright.curation"
_VERDICT_TOKENS = 512
_FINDINGS: tuple[Finding, ...] = ("contradicted", "not mentioned", "supported")  # the worst first


class _Finding(BaseModel):
    claim: str
    verdict: Finding


class _Findings(BaseModel):
    claims: list[_Finding]


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
