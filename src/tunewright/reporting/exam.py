"""Views of an exam: counts by ring, a spread of its questions, and its rows as a file that people can edit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tunewright.records import Document, Question, RetentionItem
from tunewright.text.choices import SEVERAL, lists_options, option_text, question_alone

_NUM_SHOWN = 10

ExamCell = str | bool | list[str]


def by_ring(questions: Sequence[Question]) -> dict[str, list[Question]]:
    """Return the questions of each ring, and last all of them."""
    rings = sorted({question.ring for question in questions})
    groups: dict[str, list[Question]] = {ring: [q for q in questions if q.ring == ring] for ring in rings}
    return {**groups, "all": list(questions)}


def count_rows(questions: Sequence[Question]) -> list[list[str]]:
    """Return ring, questions, share answerable, with a passage, and documents: a row by ring, and one for all."""
    return [
        [
            name,
            str(len(group)),
            f"{sum(q.answerable for q in group) / len(group):.0%}",
            str(sum(q.passage is not None for q in group)),
            str(len({q.document for q in group})),
        ]
        for name, group in by_ring(questions).items()
        if group
    ]


def evenly_spaced(questions: Sequence[Question], number: int = _NUM_SHOWN) -> list[Question]:
    """Return up to ``number`` questions, evenly spaced, so that they come from all parts of the exam."""
    if len(questions) <= number:
        return list(questions)
    return [questions[index * len(questions) // number] for index in range(number)]


def exam_file_rows(questions: Sequence[Question], documents: Sequence[Document]) -> list[dict[str, ExamCell]]:
    """Return the questions as rows of a user's own exam (``exam.file``), which reads them back unchanged.

    ``evidence`` is the sentence with the answer; reading the file finds its position in the document again. A document
    is named by its source where that is unique; a question that is its own cluster names no document.
    """
    named: dict[str, str] = {name: d.id for d in documents for name in (d.title, d.source, d.id)}
    source = {d.id: d.source for d in documents if d.source and named[d.source] == d.id}
    with_options = any(question.options for question in questions)
    with_hidden = any(map(_hides_options, questions))
    with_kinds = any(question.kind != "free" for question in questions)
    return [
        {
            "question": question_alone(question.question, question.options),
            "answer": _answer(question),
            **({"options": list(question.options)} if with_options else {}),
            **({"listed": not _hides_options(question)} if with_hidden else {}),
            "answerable": question.answerable,
            **({"kind": question.kind} if with_kinds else {}),
            "ring": question.ring,
            "document": "" if question.document == question.id else source.get(question.document, question.document),
            "passage": question.passage or "",
            "evidence": span.quote if (span := question.evidence) and span.document == question.document else "",
        }
        for question in questions
    ]


def _hides_options(question: Question) -> bool:
    return bool(question.options) and not lists_options(question.question, question.options)


def _answer(question: Question) -> str | list[str]:
    """Return the right answers as a row gives them: of a choice, the right option behind its letter."""
    if _hides_options(question):
        return option_text(question.options, question.options.index(question.gold))
    return list(question.golds) if question.further_golds or SEVERAL in question.gold else question.gold


def retention_rows(items: Sequence[RetentionItem]) -> list[list[str]]:
    """Return kind, number and topics of the retention items, one row per kind."""
    groups: dict[str, Counter[str]] = {}
    for item in items:
        groups.setdefault(item.kind, Counter())[item.topic] += 1
    return [
        [kind, str(topics.total()), ", ".join(f"{topic.replace('_', ' ')} {num}" for topic, num in topics.items())]
        for kind, topics in groups.items()
    ]
