"""The documents that commands write with ``--json``: a model for each, its schema, and the document of an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tunewright.evaluation.results import Difference
from tunewright.evaluation.verdict import Verdict, VerdictName
from tunewright.records import Question, Record, StageSummary
from tunewright.statistics.agreement import Strength
from tunewright.statistics.intervals import Interval

StateName = Literal["fresh", "stale", "new"]


class JsonPart(BaseModel):
    """A part of a document; the strings below its fields are their descriptions in the schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PlannedStage(JsonPart):
    """What a stage will do."""

    stage: str
    state: StateName
    why: str
    """Why it is stale or new."""
    work: str
    """What it will do, in words."""
    seconds: float | None
    """Estimated; null where the base model is not on this machine yet."""
    calls: tuple[int, int]
    """The least and the most calls of the teacher or the judge, as if no reply were journaled."""


class PlannedKey(JsonPart):
    """A key that the recipe sends to a server."""

    section: str
    name: str
    """Of the environment variable; the key itself is never shown."""
    origin: str
    state: str


class PlannedMemory(JsonPart):
    """The predicted peak memory of training, in bytes."""

    total: float
    base: float
    trained: float
    activations: float
    logits: float
    capacity: str
    """How many tokens are computed at once, and what is kept in memory."""
    path: Literal["fast", "plain"]
    why_plain: str
    """Why the fast path cannot be taken; empty on the fast path."""


class PlanDocument(JsonPart):
    """``plan --json``: what each stage will do."""

    folder: str
    stages: tuple[PlannedStage, ...]
    seconds: float | None
    """Of all stages; null where one is not known."""
    keys: tuple[PlannedKey, ...]
    memory: PlannedMemory | None
    """Null where the base model is not on this machine yet."""
    notes: tuple[str, ...]
    """The smallest difference that the exam can prove, and what another arm would cost."""
    proven: dict[str, Any] | None = None
    """With --prove: memory and time by real steps, as in plan.json."""


class ArmPreview(Record):
    """One arm's score on the exploratory questions, and what an answer costs."""

    arm: str
    score: Interval
    num_prompt_tokens: float
    duration_s: float


class Preview(Record):
    """What the arms that need no training reach on exploratory questions.

    ``left`` is 1 minus the best rival's score, with its interval: no training can bring more. ``gap`` is oracle minus
    the best rival, where there are documents.
    """

    advice: str
    num_questions: int
    num_documents: int
    arms: tuple[ArmPreview, ...]
    best: str
    left: Interval
    gap: Interval | None
    base: str = ""
    """The model that answered."""


class PreviewDocument(JsonPart):
    """``preview --json``: what a training can bring at most."""

    folder: str
    preview: Preview
    next: str
    """The next command."""


class StageStatus(JsonPart):
    """The state of a stage."""

    stage: str
    state: StateName
    why: str
    duration_s: float
    summary: StageSummary | None
    """What it did when it last finished."""


class StatusDocument(JsonPart):
    """``status --json``: the state of each stage of a run."""

    folder: str
    stages: tuple[StageStatus, ...]
    finished: bool
    """Whether every stage is fresh."""
    busy: bool
    """Whether a process is working on the folder now."""
    checkpoint: str | None
    """The checkpoint from which an unfinished training continues."""
    verdict: VerdictName | None
    """As verdict.json has it; ``report`` also checks the seal."""
    next: str | None
    """The command that continues the run; null when it is finished."""


class ReportDocument(JsonPart):
    """``report --json``: the verdict and the files of a finished run, whose seal holds."""

    folder: str
    verdict: Verdict
    files: dict[str, str]
    """Path by name, of those that exist."""
    no_digests: tuple[str, ...]
    """Files whose changes would not be seen, since no digest of them was noted."""


class ComparedRun(JsonPart):
    """A run of a comparison."""

    run: str
    base_model: str
    verdict: VerdictName
    scores: dict[str, Interval]
    """By arm."""
    gain: Interval | None
    """Tuned minus base."""
    seconds_per_answer: float | None
    training_seconds: float | None
    training_bytes: float | None
    """Peak memory; null on a CPU, where it is not measured."""


class CompareDocument(JsonPart):
    """``compare --json``: finished runs on the same exam."""

    num_questions: int
    num_documents: int
    runs: tuple[ComparedRun, ...]
    differences: tuple[Difference, ...]
    """Between the tuned models; exploratory, with Holm's correction."""
    strengths: tuple[Strength, ...]
    """Bradley-Terry log strengths by people's marks; empty without marks."""
    no_strengths: str
    """Why the marks give no common scale."""


class RingCount(JsonPart):
    """How many questions a ring has."""

    ring: str
    questions: int
    answerable: int
    with_passage: int
    documents: int


class ExamDocument(JsonPart):
    """``exam --json``: a run's exam, whose seal holds."""

    folder: str
    digest: str
    """The SHA-256 of exam.jsonl: the sealed one."""
    retention_digest: str | None
    rings: tuple[RingCount, ...]
    """The last is that of all questions."""
    questions: tuple[Question, ...]
    num_retention_items: int


class TaskCount(JsonPart):
    """The funnel of a task."""

    task: str
    tried: int
    rejected: int
    kept: int | None
    """Null before curation."""
    unaccounted: int
    """Neither rejected nor kept; other than 0, the files are of different runs."""


class RejectedCount(JsonPart):
    """How many samples a reason rejected."""

    reason: str
    stage: str
    samples: int


class InspectDocument(JsonPart):
    """``inspect --json``: the training data."""

    folder: str
    curated: bool
    num_samples: int
    tasks: tuple[TaskCount, ...]
    rejected: tuple[RejectedCount, ...]
    measures: dict[str, str]
    """Refusals, diversity, duplicates, coverage and leaks, as printed."""
    not_shown: tuple[str, ...]
    data_report: str
    """The path of data.html, which has all of it."""


class DoctorCheck(JsonPart):
    """A check of this machine, or a call of a recipe's teacher."""

    name: str
    passed: bool
    text: str
    server: str = ""
    """With --teacher: the section and the address."""


class DoctorDocument(JsonPart):
    """``doctor --json``: whether this machine, or a recipe's teacher, is fit for a run; exit code 1 where not."""

    passed: bool
    checks: tuple[DoctorCheck, ...]


class ErrorDocument(JsonPart):
    """Any command with ``--json`` that fails: the error, in place of the command's own document."""

    code: str
    """Of the table in docs/errors.md."""
    headline: str
    cause: str
    hint: str
    """The next thing to type."""
    exit_code: int


# The version of a document goes up when a field goes, or changes its type or meaning; new fields do not raise it.
VERSIONS: dict[type[JsonPart], tuple[str, int]] = {
    CompareDocument: ("compare", 1),
    DoctorDocument: ("doctor", 1),
    ErrorDocument: ("error", 1),
    ExamDocument: ("exam", 1),
    InspectDocument: ("inspect", 1),
    PlanDocument: ("plan", 1),
    PreviewDocument: ("preview", 1),
    ReportDocument: ("report", 1),
    StatusDocument: ("status", 1),
}


def content(document: JsonPart) -> dict[str, Any]:
    """Return a document as JSON's own types, led by the name of its schema; what is no number is null."""
    name, version = VERSIONS[type(document)]
    values: dict[str, Any] = json.loads(document.model_dump_json())
    return {"schema": f"tunewright/{name}/{version}", **values}


def schema(kind: type[JsonPart]) -> dict[str, Any]:
    """Return the JSON schema of a document; further fields are allowed, for a later version of tunewright adds them."""
    name, version = VERSIONS[kind]
    result = kind.model_json_schema(mode="serialization")
    for node in _nodes(result):
        node.pop("title", None)
        if node.get("additionalProperties") is False:
            del node["additionalProperties"]
        if node.get("type") == "number":
            node["type"] = ["number", "null"]  # null: a number that is not defined, such as a share of nothing
    result["properties"] = {"schema": {"const": f"tunewright/{name}/{version}"}, **result["properties"]}
    result["required"] = ["schema", *result["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"tunewright {name}", **result}


def _nodes(value: object) -> Iterator[dict[str, Any]]:
    """Yield every schema within a schema; a mapping of names to schemas is not one itself."""
    if isinstance(value, dict):
        yield value
        for key, inner in value.items():
            for part in inner.values() if key in ("properties", "$defs") else [inner]:
                yield from _nodes(part)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)
