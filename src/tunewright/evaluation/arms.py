"""The arms that answer the exam: their weights, their context, and their prompt for a question."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tunewright.metrics import read_object
from tunewright.models.chat_template import exam_prompt, passage_text
from tunewright.records import Answer, Chunk, Message, Question, Sample, digest
from tunewright.retrieval.index import Embeds, Index
from tunewright.settings import Arm

WITH_ADAPTER = frozenset({Arm.TUNED, Arm.TUNED_RAG})  # arms that answer with the adapter on
BASE_AND_TUNED = (Arm.BASE, Arm.TUNED)  # the arms that answer the retention items
RETRIEVING = frozenset({Arm.RAG, Arm.TUNED_RAG})
SEARCHING = RETRIEVING | {Arm.SIMILAR_SHOT}  # arms that need an index

RECALL_DEPTHS = (1, 2, 3, 5, 10)
_MOST_PASSAGES = 32  # that a recipe may ask for
_USUAL_PASSAGES, _MOST_DERIVED = 2, 5  # where the recipe names no number
_SAME_RECALL = 0.01

Passages = Callable[[Question], Sequence[str]]  # from a question to the passages in its prompt
Shots = Callable[[str], Sequence[Sample]]  # from a question to the worked examples in its prompt


class Library:
    """The passages of all documents, held-out ones too, as a user's own retrieval would have them.

    Args:
        chunks: of all documents.
        index: over their texts, in the same order.
        groups: the near-duplicate group of each document, as the split found them.
    """

    def __init__(self, chunks: Sequence[Chunk], index: Index, groups: Mapping[str, str]) -> None:
        self.chunks, self._index, self._groups = chunks, index, groups
        self._ranked_by_question: dict[str, list[Chunk]] = {}  # several arms, and the recall, ask for the same
        self._of_group: dict[str, set[int]] = {}
        for number, chunk in enumerate(chunks):
            self._of_group.setdefault(groups.get(chunk.document, chunk.document), set()).add(number)

    def retrieved(self, question: Question, number: int) -> list[Chunk]:
        """Return the best passages for a question.

        A question on an unseen document whose right answer is to decline asks what happens without that document: the
        document, and its near-duplicates, are hidden from it.
        """
        if question.id not in self._ranked_by_question:
            ranked = self._index.search(question.question, _MOST_PASSAGES, self._hidden_from(question))
            self._ranked_by_question[question.id] = [self.chunks[index] for index, _ in ranked]
        return self._ranked_by_question[question.id][:number]

    def _hidden_from(self, question: Question) -> frozenset[int]:
        if question.ring == "unseen" and not question.answerable:
            group = self._groups.get(question.document, question.document)
            return frozenset(self._of_group.get(group, ()))
        return frozenset()

    def evidence(self, question: Question) -> Chunk | None:
        """Return the passage that holds the most of a question's evidence; None where the question names none."""
        span = question.evidence
        if span is None or not question.answerable:
            return None

        def overlap(chunk: Chunk) -> int:
            return min(chunk.end, span.end) - max(chunk.start, span.start) if chunk.document == span.document else 0

        best = max(self.chunks, key=overlap, default=None)
        return best if best is not None and overlap(best) > 0 else None


def recall(library: Library, questions: Sequence[Question]) -> tuple[int, dict[int, float]]:
    """Return how many closed-book questions name their evidence, and the share found by number of passages.

    A question counts as found where its evidence's own passage is among those retrieved.
    """
    ranks: list[int] = []
    for question in questions:
        evidence = library.evidence(question) if question.passage is None else None
        if evidence is None:
            continue
        retrieved = [chunk.id for chunk in library.retrieved(question, max(RECALL_DEPTHS))]
        ranks.append(retrieved.index(evidence.id) if evidence.id in retrieved else max(RECALL_DEPTHS))
    shares = {depth: sum(rank < depth for rank in ranks) / len(ranks) for depth in RECALL_DEPTHS} if ranks else {}
    return len(ranks), shares


def num_passages(library: Library | None, questions: Sequence[Question], wanted: int) -> int:
    """Return the wanted number of passages; of 0, the fewest with which the search finds as much as with five.

    The exam's own evidence decides, so that the choice favors the rag arms, if anything. Where no question names its
    evidence, there are two.
    """
    if wanted or library is None:
        return wanted
    num_questions, shares = recall(library, questions)
    if not num_questions:
        return _USUAL_PASSAGES
    return min(depth for depth, share in shares.items() if share >= shares[_MOST_DERIVED] - _SAME_RECALL)


def passages_by_arm(library: Library, num_passages: int) -> dict[str, Passages]:
    """Return the passages of each arm that shows some: what a search returns, or the evidence's own passage."""

    def retrieved(question: Question) -> Sequence[str]:
        return [passage_text(chunk) for chunk in library.retrieved(question, num_passages)]

    def evidence(question: Question) -> Sequence[str]:
        chunk = library.evidence(question)
        return [passage_text(chunk)] if chunk else []

    return {**dict.fromkeys(RETRIEVING, retrieved), Arm.ORACLE: evidence}


def few_shot_examples(samples: Sequence[Sample], number: int, seed: int) -> list[Sample]:
    """Choose the few-shot arm's examples: the same for every question, by digest of (seed, sample).

    Answered questions without a passage come first. Of two or more examples the last is a refusal, so that the arm
    sees both kinds of answer that the exam rewards.
    """
    ranked = sorted(_showable(samples), key=lambda sample: digest("few-shot", seed, sample.id))
    refusals = [sample for sample in ranked if sample.task == "refusal"][: int(number > 1)]
    plain = [sample for sample in ranked if sample.task != "refusal"]
    return [*plain[: number - len(refusals)], *refusals] if plain else []


def _showable(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples that can be worked examples: one question, without a passage."""
    return [s for s in samples if s.task != "grounded" and sum(m.role == "user" for m in s.messages) == 1]


def similar_shots(samples: Sequence[Sample], number: int, model: Embeds | None) -> Shots:
    """Return a function from a question to the similar-shot arm's examples, the most similar last.

    Similarity is the index's, of the question over the samples' prompts. Examples chosen for each question are a
    stronger rival than fixed ones (Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?"), and the example
    next to the question weighs most. Training samples are decontaminated, so none is a near-duplicate of the exam.
    """
    pool = _showable(samples)
    index = Index([next(m.content for m in sample.messages if m.role == "user") for sample in pool], model)
    return lambda question: [pool[number] for number, _ in reversed(index.search(question, number))]


def shots_by_arm(samples: Sequence[Sample], number: int, seed: int, model: Embeds | None = None) -> dict[str, Shots]:
    """Return the examples of each arm that shows some; empty where no sample can be shown."""
    fixed = few_shot_examples(samples, number, seed)
    if not fixed:
        return {}
    return {Arm.FEW_SHOT: lambda question: fixed, Arm.SIMILAR_SHOT: similar_shots(samples, number, model)}


def majority_answer(samples: Sequence[Sample]) -> str | None:
    """Return the answer of a model that learned how often each label occurs, and nothing else; None without labels.

    Where most answers are JSON objects, it has the most frequent value of each field. Other answers are labels where
    at most a quarter of them differ. The baseline is known as majority class, or ZeroR.
    """
    answers = [sample.messages[-1].content for sample in _showable(samples)]
    objects = [fields for answer in answers if (fields := read_object(answer))]
    if objects and 2 * len(objects) > len(answers):
        names = Counter(tuple(fields) for fields in objects).most_common(1)[0][0]
        values = {name: Counter(json.dumps(fields.get(name)) for fields in objects) for name in names}
        return json.dumps({name: json.loads(counts.most_common(1)[0][0]) for name, counts in values.items()})
    counts = Counter(answers)
    return counts.most_common(1)[0][0] if answers and 4 * len(counts) <= len(answers) else None


def majority_answers(questions: Sequence[Question], text: str) -> list[Answer]:
    """Return this answer to every question; no model writes it, so that it has no tokens and no likelihood."""
    cost: dict[str, Any] = {"num_prompt_tokens": 0, "num_tokens": 0, "duration_s": 0.0, "gold_nll": 0.0}
    return [Answer(question=q.id, arm=Arm.MAJORITY, text=text, finish="stop", **cost) for q in questions]


def arm_prompts(
    arm: str, question: Question, system_prompt: str, shots: Mapping[str, Shots], passages: Mapping[str, Passages]
) -> Iterator[tuple[Message, ...]]:
    """Yield the conversation that an arm continues, then shorter ones, for a model whose context it does not fit.

    Examples give way first, the first of them (the least similar) before the others; then retrieved passages, the last
    (the least relevant) before the others. The system prompt, the question and its own passage never do.
    """
    context = list(passages[arm](question)) if arm in passages and question.passage is None else []
    shown = list(shots[arm](question.question)) if arm in shots else []
    while True:
        examples = [m for sample in shown for m in sample.messages if m.role != "system"]
        yield exam_prompt(system_prompt, question, context, examples)
        if shown:
            shown = shown[1:]
        elif context:
            context = context[:-1]
        else:
            return
