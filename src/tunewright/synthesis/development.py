"""Development questions: rules ask for values of training sentences, apart from the exam and from the samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tunewright.records import Chunk, Document, Question, Span, digest
from tunewright.synthesis.questions import ranked_evidence
from tunewright.synthesis.rule_questions import RuleWriter
from tunewright.text.languages import document_languages
from tunewright.text.normalization import normalize

_SEED = 2  # added to the recipe's: rules draw other values than for the exam (0) and for samples (1)
_MOST = 400  # questions: enough to see a gain of a few percent, and cheap to answer in each round


def development_questions(
    documents: Sequence[Document],
    chunks: Mapping[str, Sequence[Chunk]],
    seed: int,
    apart: Collection[Span],
    taught: Collection[str],
) -> list[Question]:
    """Return short questions on training documents, at most 400, the same for the same documents and seed.

    Args:
        documents: of the training side.
        chunks: of each document.
        seed: the recipe's.
        apart: spans that no question may be about: the exam's evidence.
        taught: questions of the training set; none of them is asked.
    """
    evidence_of = {d.id: ranked_evidence(d, chunks.get(d.id, ()), seed) for d in documents}
    writer = RuleWriter(evidence_of, seed + _SEED, document_languages({d.id: d.text for d in documents}))
    known = {normalize(question) for question in taught}
    questions = []
    for document in documents:
        for evidence in evidence_of[document.id]:
            if any(_touch(evidence.span, span) for span in apart):
                continue
            written = writer.write("short", document, evidence, words_too=False)
            if written is None or normalize(written.question) in known:
                continue
            questions.append(written.beside_the_exam("development", document.id))
    chosen = sorted(questions, key=lambda question: digest(seed, "development", question.id))[:_MOST]
    return sorted(chosen, key=lambda question: (question.document, question.evidence.start if question.evidence else 0))


def _touch(first: Span, second: Span) -> bool:
    return first.document == second.document and first.start < second.end and second.start < first.end
