"""The records that stages exchange: frozen, one line of JSON each.

Offsets are character offsets into ``Document.text``, half open. Identifiers are hexadecimal digests of the content,
so that the same content has the same identifier in every run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewright.errors import RunFolderError, reading

Side = Literal["train", "exam"]
Ring = Literal["learned", "unseen"]
Role = Literal["system", "user", "assistant"]
RetentionKind = Literal["choice", "format", "passage"]
QuestionKind = Literal["free", "short", "choice", "list"]

# Tasks that later stages treat differently: own data, general instructions, and rewrites trained on as raw text.
OWN, GENERAL, VIEW = "own", "general", "view"


_as_json = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str).encode


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the parts as JSON."""
    text = _as_json(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Record(BaseModel):
    """A frozen record; unknown keys are errors, so that a typo in a hand-written file is noticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Section(Record):
    """A section of a document: its path of headings and the offsets of its body."""

    path: tuple[str, ...]
    start: int
    end: int


class Document(Record):
    """One source file (or one row of a .jsonl/.csv) as plain text.

    ``id`` is the digest of source and text; ``source`` is the path relative to the documents folder.
    """

    id: str
    title: str
    source: str
    text: str
    sections: tuple[Section, ...] = ()
    metadata: dict[str, str] = {}


class Span(Record):
    """A quotation from a document: ``document.text[start:end] == quote``."""

    document: str
    start: int
    end: int
    quote: str


class Chunk(Record):
    """A passage of one section: ``document.text[start:end] == text``; ``num_tokens`` in the student's tokens."""

    id: str
    document: str
    title: str
    section: tuple[str, ...]
    start: int
    end: int
    text: str
    num_tokens: int


class SplitEntry(Record):
    """A document's side of the split; near-duplicate documents share a group, and so a side."""

    document: str
    side: Side
    group: str


class Message(Record):
    """One chat turn; ``loss``: whether an assistant turn is trained on, else it is only read."""

    role: Role
    content: str
    loss: bool = True

    def as_turn(self) -> dict[str, str]:
        """Return the role and the content, as a chat template takes them."""
        return {"role": self.role, "content": self.content}


class Sample(Record):
    """One training sample as chat messages, with the source of its answer.

    ``evidence`` and ``chunk`` are None for refusals, general instructions and the user's own data. Where an answer
    rests on several passages, or a dialogue has several answers, ``further_evidence`` holds the others in order.
    ``kind`` is the kind of question in the taxonomy, if the task has one.
    """

    id: str
    task: str
    kind: str = ""
    messages: tuple[Message, ...]
    document: str | None = None
    chunk: str | None = None
    evidence: Span | None = None
    further_evidence: tuple[Span, ...] = ()

    @property
    def question(self) -> str:
        """The last user turn."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def answer(self) -> str:
        """The last assistant turn."""
        return next((m.content for m in reversed(self.messages) if m.role == "assistant"), "")


class PreferencePair(Record):
    """A prompt with a better and a worse answer; the last turn of ``prompt`` is the user's.

    ``origin`` is how the pair was made ("own": the user's data), ``sample`` the training sample it was made from.
    """

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    origin: str = "own"
    sample: str | None = None


class Question(Record):
    """One exam question.

    ``passage``, if any, is part of the prompt. The right answer to an unanswerable question is to decline; its
    ``gold`` is the recipe's refusal sentence. ``further_golds`` are as right as ``gold``. Of ``options``, ``gold`` is
    one: behind its letter where the question lists them, so that an answer can name one; else the likeliest is chosen.
    The ``kind`` of an answerable question decides how an answer is scored: "short" by its value, "choice" by the
    option, "list" by its items, "free" by shared words, or by fields where the gold is a JSON object. ``document`` is
    the cluster for the statistics.
    """

    id: str
    ring: Ring
    document: str
    question: str
    gold: str
    answerable: bool
    passage: str | None = None
    evidence: Span | None = None
    further_golds: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    kind: QuestionKind = "free"

    @property
    def golds(self) -> tuple[str, ...]:
        """All right answers."""
        return (self.gold, *self.further_golds)

    @property
    def shown_gold(self) -> str:
        """All right answers in one text, for people."""
        return " | ".join(self.golds)


class Answer(Record):
    """One arm's answer to one question.

    ``gold_nll`` is the negative log-likelihood of the gold answer, in nats per token; ``contrast_nll`` that of the gold
    answer with one fact changed, None where no fact can be changed. ``option_nlls`` holds the nats of each option that
    the question does not list. ``finish`` is the finish reason.
    """

    question: str
    arm: str
    text: str
    finish: Literal["stop", "length"]
    num_prompt_tokens: int
    num_tokens: int
    duration_s: float
    gold_nll: float
    contrast_nll: float | None = None
    option_nlls: tuple[float, ...] = ()


class Score(Record):
    """The metrics of one answer; ``primary``, in [0, 1], decides the verdict."""

    question: str
    arm: str
    ring: Ring
    document: str
    primary: float
    metrics: dict[str, float]


class RetentionItem(Record):
    """One retention item: a multiple choice, a prompt whose answer must have a format, or a general passage.

    A choice has ``options`` and the index of the ``right`` option; a format has ``checks``, each an object with its
    ``kind``. The ``topic`` of a passage is its kind of text, that of a format the kind of its first check.
    """

    id: str
    kind: RetentionKind
    topic: str
    text: str
    level: int = 0
    options: tuple[str, ...] = ()
    right: int = 0
    checks: tuple[dict[str, Any], ...] = ()


class RetentionAnswer(Record):
    """The result of base or tuned on one retention item.

    ``value`` is 1 (right) or 0 (wrong) for a choice or a format, and nats per token for a passage. ``text`` is the
    answer to a format or the chosen option; ``nll`` holds the nats of each option, summed over its tokens.
    """

    item: str
    arm: str
    kind: RetentionKind
    topic: str
    value: float
    text: str = ""
    nll: tuple[float, ...] = ()


class Mark(Record):
    """One person's judgment of two arms' answers to one question.

    ``winner`` is an arm, None without a preference. ``left`` is the arm on the left, None where the marker saw the
    arms by name (a spreadsheet). A hidden ``repeat`` shows the same question to the same marker again. ``seconds`` is
    the time from display to mark. ``answers`` is the digest of all that its page or table shows.
    """

    question: str
    document: str
    marker: str
    choice: Literal["better", "tie", "both bad", "cannot tell"]
    winner: str | None = None
    left: str | None = None
    repeat: bool = False
    at: str = ""
    seconds: float | None = None
    answers: str = ""


class Rejection(Record):
    """A record that a stage dropped, and why; ``task`` is that of a sample."""

    stage: str
    id: str
    reason: str
    detail: str = ""
    task: str = ""


class StageSummary(Record):
    """What a stage did: in = out + rejected (by reason), and any figures worth printing."""

    num_in: int
    num_out: int
    rejected: dict[str, int] = {}
    figures: dict[str, float | int | str] = {}


AnyRecord = TypeVar("AnyRecord", bound=Record)


def jsonl_lines(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield each record as a line of UTF-8 JSON."""
    return (record.model_dump_json(exclude_defaults=True).encode() + b"\n" for record in records)


def read_jsonl(path: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """Yield the records of a file.

    Raises:
        RunFolderError: a line is not a record of this kind; the file and the line number are named.
    """
    with reading("records", path, "restore the file from a copy, or run again: its stage writes it", RunFolderError):
        lines = path.open("rb")
    with lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                raise RunFolderError(
                    f"{path} line {number} is not a {kind.__name__}",
                    f"{'.'.join(map(str, first['loc'])) or 'line'}: {first['msg']}",
                    "fix the line, or delete the file and run again: its stage writes it",
                ) from error
