"""The arms that answer the exam: their weights, their context, and their prompt for a question."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunewright.metrics import read_object
from tunewright.models.chat_template import exam_prompt, passage_text
from tunewright.records import Answer, Chunk, Message, Question, Sample, digest
from tunewright.settings import Arm

WITH_ADAPTER = frozenset({Arm.TUNED, Arm.TUNED_RAG})  # arms that answer with the adapter on
BASE_AND_TUNED = (Arm.BASE, Arm.TUNED)  # the arms that answer the retention items
RETRIEVING = frozenset({Arm.RAG, Arm.TUNED_RAG})

Retrieve = Callable[[str], Sequence[str]]
Shots = Callable[[str], Sequence[Sample]]  # from a question to the worked examples in its prompt
Rank = Callable[[str, int], list[tuple[int, float]]]


def bm25_ranker(texts: Sequence[str]) -> Rank:
    """Return a function from (query, number) to (index, score) of the best texts by BM25 (Lù 2024), best first."""
    import bm25s

    if not texts:
        return lambda query, number: []
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(texts), stopwords="en", show_progress=False), show_progress=False)

    def rank(query: str, number: int) -> list[tuple[int, float]]:
        tokens = bm25s.tokenize(query, stopwords="en", show_progress=False)
        indices, scores = index.retrieve(tokens, k=min(number, len(texts)), show_progress=False)
        return [(int(i), float(score)) for i, score in zip(indices[0], scores[0], strict=True)]

    return rank


def retriever(chunks: Sequence[Chunk], num_passages: int) -> Retrieve:
    """Return a function from a question to the best passages by BM25, of the given chunks."""
    texts = [passage_text(chunk) for chunk in chunks]
    rank = bm25_ranker(texts)
    return lambda question: [texts[index] for index, _ in rank(question, num_passages)]


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


def similar_shots(samples: Sequence[Sample], number: int) -> Shots:
    """Return a function from a question to the similar-shot arm's examples, the most similar last.

    Similarity is BM25 of the question over the samples' prompts. Examples chosen for each question are a stronger
    rival than fixed ones (Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?"), and the example next to
    the question weighs most. Training samples are decontaminated, so none is a near-duplicate of the exam.
    """
    pool = _showable(samples)
    rank = bm25_ranker([next(m.content for m in sample.messages if m.role == "user") for sample in pool])
    return lambda question: [pool[index] for index, _ in reversed(rank(question, number))]


def shots_by_arm(samples: Sequence[Sample], number: int, seed: int) -> dict[str, Shots]:
    """Return the examples of each arm that shows some; empty where no sample can be shown."""
    fixed = few_shot_examples(samples, number, seed)
    if not fixed:
        return {}
    return {Arm.FEW_SHOT: lambda question: fixed, Arm.SIMILAR_SHOT: similar_shots(samples, number)}


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


def arm_prompt(
    arm: str, question: Question, system_prompt: str, shots: Mapping[str, Shots], retrieve: Retrieve
) -> tuple[Message, ...]:
    """Return the conversation that an arm continues."""
    passages = retrieve(question.question) if arm in RETRIEVING and question.passage is None else ()
    shown = shots[arm](question.question) if arm in shots else ()
    examples = [m for sample in shown for m in sample.messages if m.role != "system"]
    return exam_prompt(system_prompt, question, passages, examples)
