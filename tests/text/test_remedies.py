"""Where nothing is left, the hint follows from the reasons that were counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tunewright
from tunewright.curation.preference_pairs import no_pairs_error
from tunewright.recipe import sections
from tunewright.records import OWN, Document, Rejection
from tunewright.synthesis.stage import _nothing_written
from tunewright.text.injection import PLANTED
from tunewright.text.remedies import _REMEDIES, remedy

# Reasons that are put together, or are in a table of a package above.
COMPOSED = ("own data: ", "personal data", PLANTED)


def rejected(reason: str, task: str = "answer-first", stage: str = "synth", number: int = 3) -> list[Rejection]:
    return [Rejection(stage=stage, id=str(n), reason=reason, task=task) for n in range(number)]


@pytest.mark.parametrize(
    "reason",
    [
        "question is not about its sentence",
        "teacher reply is not the JSON asked for",
        "quote not in the passage",
        "answer flips a negation",
        "not a question",
        "item lacks question, answer or quote",
    ],
)
def test_a_stronger_teacher_is_advised_where_its_words_were_the_reason(reason):
    assert "stronger teacher" in remedy(rejected(reason))


@pytest.mark.parametrize(
    ("reason", "named"),
    [
        ("near duplicate", "curation.near_duplicate"),
        ("embedding duplicate", "curation.embedding_duplicate"),
        ("personal data: email", "curation.privacy"),
        ("evidence does not occur in the document", "curation.evidence_match"),
        ("held out for the exam", "exam.held_out_share"),
        ("no other document to refuse from", "synthesis.tasks"),
        ("teacher call failed", "teacher.url"),
        ("teacher reply cut", "teacher.reasoning"),
        ("duplicate question", "exam.unseen_per_document"),
        ("leaks exam evidence", "curation.ngram"),
        ("document has no sentence to ask about", "full sentence"),
        ("text that addresses a model", "documents or samples"),
    ],
)
def test_a_rule_of_ours_names_its_setting_and_blames_no_teacher(reason, named):
    assert named in remedy(rejected(reason)) and "stronger" not in remedy(rejected(reason))


def test_the_most_frequent_reason_decides():
    mixed = [*rejected("near duplicate", number=2), *rejected("quote not in the passage", number=3)]
    assert "stronger teacher" in remedy(mixed)
    assert "near_duplicate" in remedy([*mixed, *rejected("near duplicate", number=2)])


def test_own_data_is_never_blamed_on_a_teacher():
    assert remedy(rejected("turns do not alternate", task=OWN)) == "correct your data"


def test_what_was_not_written_and_which_pairs_are_left_say_why():
    document = Document(id="d", title="t", source="s", text="The lighthouse is built of stone.")
    error = _nothing_written("exam question", rejected("teacher call failed"), 6, [document])
    assert "teacher call failed (3)" in error.cause and "stronger" not in str(error) and error.hint
    error = _nothing_written("training sample", [], 6, [])
    assert "0 documents" in error.cause and "split.exam_share" in error.hint
    error = no_pairs_error(True, rejected("student makes no error", stage="pairs"))
    assert "nothing to prefer" in error.hint
    error = no_pairs_error(False, rejected("not JSON", stage="pairs", task=""))
    assert '"prompt"' in error.hint and "not JSON (3)" in error.cause
    assert "leaves" not in error.hint and "near" not in error.hint


def test_every_remedy_is_for_a_reason_that_exists_and_names_settings_that_exist():
    source = "\n".join(path.read_text(encoding="utf-8") for path in Path(tunewright.__file__).parent.rglob("*.py"))
    known = {f"{section}.{name}" for section, kind in sections() for name in kind.model_fields}
    for start, hint in _REMEDIES:
        assert source.count(f'"{start}') + (start in COMPOSED) > 1, start
        for name in re.findall(r"\b(?:exam|split|curation|synthesis|preference|teacher|documents)\.[a-z_]+", hint):
            assert name in known or name == "exam.file", name
