"""Who sits the exam: base, few-shot, RAG, tuned, tuned+RAG, and the prompt that each gets for a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunewright.models.prompts import chat, passage_text
from tunewright.records import Chunk, Message, Question, Sample, digest

TUNED = frozenset({"tuned", "tuned+rag"})  # arms that answer with the adapter on
BASE_AND_TUNED = ("base", "tuned")  # who sits the third ring
RETRIEVING = frozenset({"rag", "tuned+rag"})

Retrieve = Callable[[str], Sequence[str]]


def retriever(chunks: Sequence[Chunk], num_passages: int) -> Retrieve:
    """Return a function from a question to the best passages by BM25 (Lù 2024), over the training documents."""
    import bm25s

    if not chunks:
        return lambda question: ()
    texts = [passage_text(chunk) for chunk in chunks]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)

    def retrieve(question: str) -> Sequence[str]:
        tokens = bm25s.tokenize(question, stopwords="en", show_progress=False)
        found, _ = index.retrieve(tokens, k=min(num_passages, len(texts)), show_progress=False)
        return [texts[number] for number in found[0]]

    return retrieve


def few_shot_examples(samples: Sequence[Sample], number: int, seed: int) -> list[Sample]:
    """Choose the few-shot arm's examples: the same for every question, by digest of (seed, sample).

    Answered questions without a passage come first; when there are two or more examples, the last is a refusal, so
    that the arm has seen both kinds of answer that the exam rewards.
    """
    ranked = sorted(samples, key=lambda sample: digest("few-shot", seed, sample.id))
    single = [sample for sample in ranked if sum(m.role == "user" for m in sample.messages) == 1]
    refusals = [sample for sample in single if sample.task == "refusal"][: int(number > 1)]
    plain = [sample for sample in single if sample.task not in ("refusal", "grounded")]
    return [*plain[: number - len(refusals)], *refusals]


def arm_prompt(
    arm: str, question: Question, system_prompt: str, shots: Sequence[Sample], retrieve: Retrieve
) -> tuple[Message, ...]:
    """Return the conversation that an arm is asked to continue.

    A question that comes with its own passage is asked with that passage in every arm; retrieval adds nothing to it.
    """
    passages: Sequence[str] = ()
    if question.passage is not None:
        passages = (question.passage,)
    elif arm in RETRIEVING:
        passages = retrieve(question.question)
    examples = [m for sample in shots for m in sample.messages if m.role != "system"] if arm == "few-shot" else []
    return chat(system_prompt, question.question, passages=passages, shots=examples)
