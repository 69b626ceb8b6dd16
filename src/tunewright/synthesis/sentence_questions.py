"""Questions to given sentences, some or all: answered word for word, or by the teacher with the passage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunewright.metrics import is_refusal
from tunewright.models.chat_template import chat, passage_text
from tunewright.records import Document, Sample
from tunewright.synthesis.context import (
    NO_SENTENCE,
    TaskContext,
    TaskResult,
    ask_questions,
    plain_sample,
    reply_fault,
    sample_id,
)
from tunewright.synthesis.questions import (
    EvidenceSentence,
    clean_question,
    ranked_evidence,
    sentence_fault,
    stand_alone,
    subjects,
)
from tunewright.synthesis.rule_questions import RuleWriter
from tunewright.synthesis.taxonomy import allocate, kind_of, read_quotas

Pair = tuple[Document, EvidenceSentence]
REPEATS_WORDS = "question has the words of an earlier one on its sentence"
_ANSWER_TOKENS = 96
SPARE_VIEWS = 2  # further attempts at a sentence whose questions failed or repeated each other
_MOST_SHARED = 0.8  # Jaccard similarity of the subjects of two questions on a sentence; from there, they repeat


@dataclass(frozen=True)
class SentenceQuestion:
    """A usable question with the sentence that answers it."""

    document: Document
    evidence: EvidenceSentence
    question: str


# From questions to samples; what cannot be answered is rejected in the result.
Answers = Callable[[TaskContext, Sequence[SentenceQuestion], TaskResult], list[Sample]]


def answer_first(context: TaskContext, answered: Sequence[Sample]) -> TaskResult:
    """Ask for the question that an evidence sentence answers; the answer is the sentence, word for word."""
    del answered
    return _ask(context, TaskResult("answer-first"), _word_for_word)


def passage_qa(context: TaskContext, answered: Sequence[Sample]) -> TaskResult:
    """Ask for questions as ``answer_first`` does; the teacher answers each with the sentence's passage in its prompt.

    So a base can be its own teacher (Kujanpää et al. 2024, arXiv 2412.14964, sec. 3): with the passage, it knows.
    """
    del answered
    return _ask(context, TaskResult("passage-qa"), _with_passage)


def _ask(context: TaskContext, result: TaskResult, answers: Answers) -> TaskResult:
    pairs: list[Pair] = []
    ruled: list[Pair] = []
    for document in context.documents:
        chosen = chosen_evidence(context, document)
        if not chosen and context.focus is None:
            result.num_tried += 1
            result.reject(document.id, NO_SENTENCE, document.source)
        (ruled if context.is_ruled(document.id) else pairs).extend((document, evidence) for evidence in chosen)
    _answer_by_rules(context, ruled, result)
    write_samples(context, pairs, result, answers)
    return result


def _in_focus(context: TaskContext, evidence: EvidenceSentence) -> bool:
    return context.focus is None or _key(evidence) in context.focus


def chosen_evidence(context: TaskContext, document: Document) -> list[EvidenceSentence]:
    """Return the document's sentences to write questions for, by rank and by the recipe's quotas if it sets any.

    If no sentence of the document fits a quota, the next one by rank takes its place. ``synthesis.coverage`` takes all
    sentences.
    """
    settings = context.recipe.synthesis
    ranked = ranked_evidence(document, context.chunks.get(document.id, ()), context.recipe.seed)
    number, quotas = settings.samples_per_document, read_quotas(settings)
    if settings.coverage:
        return [evidence for evidence in ranked if _in_focus(context, evidence)]
    if not quotas:
        return ranked[:number]
    chosen: list[EvidenceSentence] = []
    for quota in allocate(quotas, min(number, len(ranked)), context.recipe.seed, document.source):
        unused = [evidence for evidence in ranked if evidence not in chosen]
        fitting = [evidence for evidence in unused if quota.fits(kind_of(evidence.sentence), evidence.chunk)]
        chosen.append((fitting or unused)[0])
    return chosen


def write_samples(context: TaskContext, pairs: Sequence[Pair], result: TaskResult, answers: Answers) -> None:
    """Add samples on these sentences: one of each, or as many as ``synthesis.coverage`` asks for, in other words each.

    A sentence whose question fails, or repeats an earlier one's words, is tried again in another view, twice at most.
    Of a sentence that the teacher never writes a usable question for, rules ask for a value.

    Args:
        context: supplies the teacher and the recipe.
        pairs: the sentences with their documents.
        result: gets samples, rejections and figures.
        answers: from questions to samples.
    """
    times = context.recipe.synthesis.coverage
    written: dict[tuple[str, int], list[str]] = {_key(evidence): [] for _, evidence in pairs}
    # Sentences in focus begin with a view of their own: those before it were used earlier.
    first_view = max((focus.view for focus in (context.focus or {}).values()), default=0)
    for view in range(first_view, first_view + (times + SPARE_VIEWS if times else 1)):
        missing = [(document, evidence) for document, evidence in pairs if len(written[_key(evidence)]) < max(1, times)]
        if not missing:
            break
        fresh: list[SentenceQuestion] = []
        for item in _questions(context, missing, result, view):
            if any(_repeats(item.question, other) for other in written[_key(item.evidence)]):
                _reject(result, item, REPEATS_WORDS)
            else:
                fresh.append(item)
        for sample in answers(context, fresh, result):
            result.samples.append(sample)
            written[sample.document or "", sample.evidence.start if sample.evidence else 0].append(sample.question)
    if times:
        bare = [(document, evidence) for document, evidence in pairs if not written[_key(evidence)]]
        before = len(result.samples)
        _answer_by_rules(context, bare, result)
        reached = sum(map(bool, written.values())) + len(result.samples) - before
        result.figures["sentences"] += len(written)
        result.figures["sentences_reached"] += reached
        result.figures[f"sentences_reached_{times}_times"] += sum(len(own) >= times for own in written.values())


def _key(evidence: EvidenceSentence) -> tuple[str, int]:
    return evidence.span.document, evidence.span.start


def _repeats(question: str, other: str) -> bool:
    first, second = subjects(question), subjects(other)
    union = first | second
    return question == other or (
        bool(union) and len(first & second) >= _MOST_SHARED * len(union) and _opens_alike(question, other)
    )


def _opens_alike(question: str, other: str) -> bool:
    return question.split()[:2] == other.split()[:2]


def _reject(result: TaskResult, item: SentenceQuestion, reason: str) -> None:
    answer = item.evidence.sentence
    identity = sample_id(result.task, item.document.id, item.question, answer)
    result.reject(identity, reason, f"{item.question} <- {answer}")


def _questions(context: TaskContext, pairs: Sequence[Pair], result: TaskResult, view: int) -> list[SentenceQuestion]:
    """Return the usable questions of one view; each sentence counts as tried, and faults are rejected."""
    result.num_tried += len(pairs)
    label = "writing questions" if not view else f"writing questions, view {view + 1}"
    usable = []
    for (document, evidence), reply in zip(
        pairs, ask_questions(context, "answer-first", pairs, label, view), strict=True
    ):
        question = clean_question(reply.text) if reply else ""
        fault = reply_fault(reply) or sentence_fault(question, document.title, evidence.sentence)
        item = SentenceQuestion(document, evidence, stand_alone(question, document.title))
        if fault:
            _reject(result, item, fault)
        else:
            usable.append(item)
    return usable


def _sample(context: TaskContext, task: str, item: SentenceQuestion, answer: str) -> Sample:
    evidence = item.evidence
    return plain_sample(
        context, task, item.document.id, item.question, answer, evidence.chunk.id, (evidence.span,),
        kind_of(evidence.sentence),
    )  # fmt: skip


def _word_for_word(context: TaskContext, items: Sequence[SentenceQuestion], result: TaskResult) -> list[Sample]:
    return [_sample(context, result.task, item, item.evidence.sentence) for item in items]


def _with_passage(context: TaskContext, items: Sequence[SentenceQuestion], result: TaskResult) -> list[Sample]:
    """Return the questions with the teacher's answers from their passages; refusals and failed calls are rejected."""
    system = context.recipe.system_prompt
    prompts = [chat(system, item.question, [passage_text(item.evidence.chunk)]) for item in items]
    requests = [context.request(prompt, _ANSWER_TOKENS) for prompt in prompts]
    samples = []
    replies = context.teacher.ask_all(requests, "writing answers") if requests else []
    for item, reply in zip(items, replies, strict=True):
        answer = " ".join(reply.text.split()) if reply else ""
        fault = reply_fault(reply)
        if not fault and is_refusal(answer, context.recipe.refusal):
            fault = "answer declines"
        if fault:
            _reject(result, item, fault)
        else:
            samples.append(_sample(context, result.task, item, answer))
    return samples


def _answer_by_rules(context: TaskContext, pairs: Sequence[Pair], result: TaskResult) -> None:
    """Add questions that rules write, where the teacher cannot write the document's language, or found no question.

    They ask for another value of the sentence than the exam does, or curation drops them as leaks.
    """
    evidence_of: dict[str, list[EvidenceSentence]] = {}
    for document, evidence in pairs:
        evidence_of.setdefault(document.id, []).append(evidence)
    result.num_tried += len(pairs)
    if not pairs:
        return
    writer = RuleWriter(evidence_of, context.recipe.seed + 1, context.languages, set(evidence_of))
    for document, evidence in pairs:
        written, answer = writer.write("short", document, evidence), evidence.sentence
        avoided = context.focus[_key(evidence)].avoid if context.focus is not None else ""
        if written is not None and written.question == avoided:
            result.reject(
                sample_id(result.task, document.id, written.question, answer), "question is kept apart", answer
            )
            continue
        if written is None:
            result.reject(sample_id(result.task, document.id, "", answer), "sentence states no value", answer)
            continue
        span = (evidence.span,)
        result.samples.append(
            plain_sample(context, result.task, document.id, written.question, answer, evidence.chunk.id, span)
        )
