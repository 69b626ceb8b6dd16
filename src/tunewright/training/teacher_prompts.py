"""The teacher of distillation: which passages it reads with each sample, and its prompt with the same answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunewright.errors import ModelError
from tunewright.models.chat_template import IGNORED, Encoded, encode, passage_text, question_prompt, special_ids
from tunewright.records import Chunk, Message, Rejection, Sample, digest
from tunewright.retrieval.index import Embeds, Index
from tunewright.text.injection import injection_fault
from tunewright.training.packing import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORGED = "holds a control token of the template"
OTHER_TOKENS = "its answer has other tokens beside its passage"
NO_ROOM = "its passage exceeds the model's context"


def passages_of(
    samples: Sequence[Sample], chunks: Sequence[Chunk], distractors: int, model: Embeds | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the passages that the teacher reads with each sample, the most useful first.

    A sample's own passages hold its evidence. Distractors are what a search for its question returns beside them
    (Kujanpää et al. 2024, sec. 4). A sample without a passage of its own, or with passages in its prompt, has none
    here: the teacher would know no more than the student.

    Args:
        samples: chats.
        chunks: passages of the training side alone, so that the exam's documents teach nothing.
        distractors: how many further passages to add.
        model: gives the vectors of the search; None searches by words.
    """
    harmless = [chunk for chunk in chunks if not injection_fault("\n".join([chunk.title, *chunk.section, chunk.text]))]
    index = Index([passage_text(chunk) for chunk in harmless], model, [chunk.title for chunk in harmless])
    passages: dict[str, tuple[str, ...]] = {}
    by_document: dict[str, list[Chunk]] = {}
    for chunk in harmless:
        by_document.setdefault(chunk.document, []).append(chunk)
    for sample in samples:
        own = list(_own(sample, by_document))
        if not own or any(chunk.text in message.content for chunk in own for message in _prompt(sample)):
            continue
        others: list[Chunk] = []
        if distractors:
            ranked = [harmless[number] for number, _ in index.search(sample.question, distractors + len(own))]
            others = [chunk for chunk in ranked if chunk not in own][:distractors]
        passages[sample.id] = tuple(passage_text(chunk) for chunk in [*own, *others])
    return passages


def _own(sample: Sample, by_document: Mapping[str, Sequence[Chunk]]) -> Iterator[Chunk]:
    """Yield the passages that hold a sample's evidence, its own chunk first."""
    spans = [span for span in (sample.evidence, *sample.further_evidence) if span]
    own = by_document.get(sample.document or "", ())
    yield from (chunk for chunk in own if chunk.id == sample.chunk)
    for chunk in own:
        if chunk.id != sample.chunk and any(chunk.start <= span.start and span.end <= chunk.end for span in spans):
            yield chunk


def _prompt(sample: Sample) -> list[Message]:
    return [message for message in sample.messages if message.role == "user"]


def with_teachers(
    examples: Sequence[Example],
    samples: Sequence[Sample],
    passages: Mapping[str, Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    most_tokens: int,
) -> tuple[list[Example], list[Rejection]]:
    """Return the examples, each with its teacher's prompt if it has passages, and rejections of those that have none.

    Where the prompt exceeds ``most_tokens``, the least useful distractor gives way. Passages stand in the first user
    turn, in an order that digests decide: the right one is not always the first.
    """
    control = special_ids(tokenizer)
    by_id = {sample.id: sample for sample in samples}
    taught: list[Example] = []
    rejections: list[Rejection] = []
    for example in examples:
        shown = list(passages.get(example.sample, ()))
        if not shown:
            taught.append(example)
            continue
        if any(control.intersection(ids) for ids in tokenizer(shown, add_special_tokens=False)["input_ids"]):
            rejections.append(Rejection(stage="train", id=example.sample, reason=FORGED, detail="in its passage"))
            continue
        teacher, fault = _teacher(by_id[example.sample], example, shown, tokenizer, most_tokens)
        if teacher is None:
            rejections.append(Rejection(stage="train", id=example.sample, reason=fault))
        else:
            taught.append(replace(example, teacher=teacher))
    return taught, rejections


def _teacher(
    sample: Sample, example: Example, passages: list[str], tokenizer: PreTrainedTokenizerBase, most_tokens: int
) -> tuple[Encoded | None, str]:
    """Return the sample as its teacher reads it; or None, and why it cannot."""
    while passages:
        try:
            teacher = encode(tokenizer, _shown(sample, passages))
        except ModelError:
            return None, OTHER_TOKENS
        if len(teacher.input_ids) <= most_tokens:
            same = _supervised(teacher) == _supervised(example.sequences[0])
            return (teacher, "") if same else (None, OTHER_TOKENS)
        if len(passages) == 1:
            break
        passages = passages[:-1]
    return None, NO_ROOM


def _supervised(sequence: Encoded) -> list[int]:
    return [label for label in sequence.labels[1:] if label != IGNORED]


def _shown(sample: Sample, passages: Sequence[str]) -> tuple[Message, ...]:
    """Return the sample's messages with the passages in the first user turn."""
    order = sorted(passages, key=lambda passage: digest(sample.id, passage))
    first = next(number for number, message in enumerate(sample.messages) if message.role == "user")
    turn = sample.messages[first]
    shown = turn.model_copy(update={"content": question_prompt(turn.content, order)})
    return (*sample.messages[:first], shown, *sample.messages[first + 1 :])
