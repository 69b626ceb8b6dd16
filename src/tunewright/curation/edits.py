"""Edits of single samples by people: reject, approve, reword, undo; each is a record of its own, applied by curate."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import ValidationError

from tunewright.curation.packed_samples import Selection
from tunewright.records import Message, Record, Rejection, Sample, digest
from tunewright.text.prompts import split_prompt

BY_HAND = "rejected by hand"
Action = Literal["reject", "approve", "edit", "undo"]
ACTIONS: dict[str, Action] = {name: name for name in get_args(Action)}
# What a person's approval does not override: a sample that cannot be trained on, private data, orders to the model,
# and whatever the exam asks.
OVERRIDABLE = frozenset(
    {"wording", "evidence", "support", "decline", "contradiction", "duplicates", "embedding duplicates"}
)


class Edit(Record):
    """One edit: who, when, what. ``sample`` is the identifier of the sample, of "undo" that of an earlier edit.

    ``question`` and ``answer`` are the new texts of the last user and assistant turn, None where they stay.
    """

    id: str
    time: str
    who: str
    action: Action
    sample: str
    question: str | None = None
    answer: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Decision:
    """What all edits of one sample come to; ``last`` is the one that an undo takes back.

    Whoever edits a sample answers for it: an edited sample counts as approved, until it is rejected.
    """

    last: Edit
    rejected: bool = False
    approved: bool = False
    question: str | None = None
    answer: str | None = None

    @property
    def edited(self) -> bool:
        """Whether a text of the sample is a person's."""
        return self.question is not None or self.answer is not None

    @property
    def state(self) -> str:
        """The decision in a word."""
        return "rejected" if self.rejected else "edited" if self.edited else "approved"


def new_edit(
    action: Action,
    sample: str,
    who: str,
    time: str,
    question: str | None = None,
    answer: str | None = None,
    note: str = "",
) -> Edit:
    """Return an edit with its identifier."""
    identifier = digest("edit", action, sample, who, time, question, answer, note)
    return Edit(
        id=identifier, time=time, who=who, action=action, sample=sample, question=question, answer=answer, note=note
    )


def read_edits(entries: Iterable[Mapping[str, Any]]) -> list[Edit]:
    """Return the edits of a journal's entries; an entry that is none is left out."""
    edits = []
    for entry in entries:
        try:
            edits.append(Edit.model_validate(dict(entry)))
        except ValidationError:
            continue
    return edits


def decisions(edits: Sequence[Edit]) -> dict[str, Decision]:
    """Return what the edits come to, by sample; an undone edit counts as never made."""
    undone: set[str] = set()
    for edit in reversed(edits):  # so that an undo can be undone
        if edit.action == "undo" and edit.id not in undone:
            undone.add(edit.sample)
    result: dict[str, Decision] = {}
    for edit in edits:
        if edit.action == "undo" or edit.id in undone:
            continue
        before = result.get(edit.sample)
        question, answer = (before.question, before.answer) if before else (None, None)
        result[edit.sample] = Decision(
            last=edit,
            rejected=edit.action == "reject",
            approved=edit.action != "reject",
            question=question if edit.question is None else edit.question,
            answer=answer if edit.answer is None else edit.answer,
        )
    return result


def reworded(sample: Sample, question: str | None, answer: str | None) -> Sample:
    """Return the sample with the question of its last user turn, and its last answer, in other words.

    The passage before a question stays, and so does the identifier: the sample's sources are the same.
    """
    messages = list(sample.messages)
    for role, text in (("user", question), ("assistant", answer)):
        numbers = [number for number, message in enumerate(messages) if message.role == role]
        if text is None or not numbers:
            continue
        old = messages[numbers[-1]]
        content = text
        if role == "user":
            context, asks = split_prompt(old.content)
            content = old.content[: old.content.rindex(asks)] + text if context and asks else text
        messages[numbers[-1]] = Message(role=old.role, content=content, loss=old.loss)
    return sample.model_copy(update={"messages": tuple(messages)})


@dataclass(frozen=True)
class Applied:
    """The samples after the edits, what people rejected, and the samples that they answer for."""

    samples: Sequence[Sample]
    rejections: list[Rejection]
    approved: frozenset[str]
    figures: dict[str, float | int | str]


def apply_edits(samples: Sequence[Sample], made: Mapping[str, Decision], stage: str) -> Applied:
    """Return the samples as people decided; the rules of curation see what is left."""
    if not made:
        return Applied(samples, [], frozenset(), {})
    left, changed = array("I"), dict[int, Sample]()
    rejections: list[Rejection] = []
    approved: set[str] = set()
    num_edited = num_approved = 0
    for number, sample in enumerate(samples):
        decision = made.get(sample.id)
        if decision is None:
            left.append(number)
        elif decision.rejected:
            detail = " ".join(filter(None, (f"by {decision.last.who}", decision.last.note)))
            rejections.append(Rejection(stage=stage, id=sample.id, reason=BY_HAND, detail=detail, task=sample.task))
        else:
            num_edited += decision.edited
            num_approved += not decision.edited  # each decision counts once, as the studio names it
            approved.add(sample.id)
            left.append(number)
            changed[number] = reworded(sample, decision.question, decision.answer)
    figures: dict[str, float | int | str] = {"edited by hand": num_edited, "approved by hand": num_approved}
    return Applied(
        Selection(samples, left, changed),
        rejections,
        frozenset(approved),
        {name: num for name, num in figures.items() if num},
    )
