"""What helps where nothing is left: the next thing to do, by the reason that most records were rejected for.

A stronger teacher is advised only where the teacher's words were the reason. A rule of ours names its setting, and a
limit of ours is called one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tunewright.records import OWN, Rejection
from tunewright.text.injection import PLANTED

_TEACHER = "use a stronger teacher (teacher.url, teacher.model)"
WRONG_DATA = "correct your data"


def reasons_text(rejections: Sequence[Rejection], most: int = 3) -> str:
    """Return the most frequent reasons with their counts."""
    counts = Counter(rejection.reason for rejection in rejections)
    return "; ".join(f"{reason} ({count})" for reason, count in counts.most_common(most))


def remedy(rejections: Sequence[Rejection]) -> str:
    """Return what helps against the most frequent reason of the rejections.

    Args:
        rejections: at least one.
    """
    [(top, _)] = Counter(rejection.reason for rejection in rejections).most_common(1)
    hint = next((hint for start, hint in _REMEDIES if top.startswith(start)), "")
    if hint:
        return hint
    written = any(
        rejection.reason == top and rejection.task != OWN and rejection.stage != "pairs" for rejection in rejections
    )
    return _TEACHER if written else WRONG_DATA


_NO_REASONING = "let the teacher answer without reasoning first (teacher.reasoning = false), or use another one"
_OTHER_PAIRS = "name another way in preference.make (student), or bring pairs (preference.data)"
_PRESENT = "lower curation.evidence_match, or write the samples again from the present documents: run the recipe"

# The start of a reason → what helps; other reasons are the teacher's words, or the user's.
_REMEDIES: tuple[tuple[str, str], ...] = (
    ("teacher call failed", "check the server (teacher.url) and its log; a new run asks only what has no reply yet"),
    ("teacher reply cut", _NO_REASONING),
    ("teacher reply empty", _NO_REASONING),
    (
        "teacher reply not finished",
        "the server stopped its replies, as content filters do: use another server",
    ),
    (
        "longer than the model's context",
        "shorten the questions and their passages, or take a base with a longer context (model.base)",
    ),
    (
        "document has no sentence",
        "a question needs a full sentence of running text: bring longer documents (scans need text recognition, OCR), "
        "or your own exam.file and synthesis.data",
    ),
    ("no value that rules", "let the teacher write questions too (free in exam.kinds), or bring other documents"),
    (PLANTED, "the documents or samples hold orders to a model: remove those passages, or bring others"),
    ("no other document", "add documents, or take refusal out of synthesis.tasks"),
    ("passage may answer", "add documents on other subjects, or take unanswerable out of synthesis.tasks"),
    ("duplicate question", "lower exam.learned_per_document and exam.unseen_per_document, or add documents"),
    ("written twice", "lower synthesis.samples_per_document, or add documents"),
    ("personal data", "mask what is personal (--set curation.privacy=mask), or keep it (--set curation.privacy=keep)"),
    ("held out for the exam", "lower exam.held_out_share, or add chats"),
    ("own data: ", "correct the format of your data: docs/data.md lists the formats"),
    ("embedding duplicate", "raise curation.embedding_duplicate (0: compare no meaning), or bring samples that differ"),
    ("near duplicate", "raise curation.near_duplicate, or bring samples that differ"),
    ("exact duplicate", "bring samples that differ: each is trained on once"),
    ("shares 13 words", "bring an exam that asks something else than the samples (exam.file), or other samples"),
    ("leaks an exam", "raise curation.ngram, or bring an exam that asks something else (exam.file), or other samples"),
    ("leaks exam", "raise curation.ngram, or bring an exam that asks something else (exam.file), or other samples"),
    ("comes from an exam document", "lower split.exam_share, or write the samples again: run the recipe"),
    ("no evidence to hold", _OTHER_PAIRS),
    ("evidence", _PRESENT),
    ("no evidence", _PRESENT),
    ("refuses what another", "lower synthesis.refusal_share, or bring refusals of other questions"),
    ("declines although", "lower synthesis.refusal_share, or bring refusals of other questions"),
    ("not answered from its passage", f"take answerable out of curation.checks, or {_TEACHER}"),
    ("contradicted by", f"take judge out of curation.checks, or {_TEACHER}"),
    ("says what its passage", f"take judge out of curation.checks, or {_TEACHER}"),
    ("chosen and rejected are the same", "bring pairs whose answers differ"),
    ("nothing in the answer to edit", _OTHER_PAIRS),
    ("no answered sample asks", _OTHER_PAIRS),
    ("the passage shown gives", _OTHER_PAIRS),
    ("one direction of refusing", "add refusals to the samples (synthesis.refusal_share), or remove preference.make"),
    ("fewer than two different", "raise preference.samples, or name another way in preference.make"),
    ("scores too close", "raise preference.samples, or name another way in preference.make"),
    ("student makes no error", "there is nothing to prefer: remove student from preference.make"),
    ("student's answers are cut", "name another way in preference.make (edits), or bring pairs (preference.data)"),
    ("lengths too far apart", "raise preference.samples, or name another way in preference.make"),
    ("no answer holds", "name another way in preference.make (edits), or bring pairs (preference.data)"),
    ("holds a control token", "give data that was rendered through a template as messages instead"),
    ("the chat template changes", "use a base whose chat template keeps the text of answers, or strip what it removes"),
)
