"""Recovery: which questions count, what was known before, and what became wrong."""

import pytest

from tunewright.evaluation.recovery import measure_recovery, recovery_sentences
from tunewright.records import Question, Score


def question(number, **changes):
    values = {
        "id": f"q{number}",
        "ring": "learned",
        "document": f"d{number % 10}",
        "question": "How many boats?",
        "gold": "forty",
        "answerable": True,
        "kind": "short",
    }
    return Question(**(values | changes))


def scores(arm, values):
    return [
        Score(question=f"q{n}", arm=arm, ring="learned", document=f"d{n % 10}", primary=value, metrics={})
        for n, value in enumerate(values)
    ]


BASE, TUNED, ORACLE = [1.0] * 10 + [0.0] * 40, [0.0] * 2 + [1.0] * 8 + [1.0, 0.0] * 20, [1.0] * 45 + [0.0] * 5


def measured(*more):
    exam = [question(n) for n in range(50)]
    rows = [*scores("base", BASE), *scores("tuned", TUNED), *scores("oracle", ORACLE), *more]
    return measure_recovery(exam, rows)


def test_the_share_of_what_the_passage_brings_and_what_was_unlearned():
    recovery = measured()
    assert (recovery.num_questions, recovery.num_documents) == (50, 10)
    assert recovery.share.value == pytest.approx((28 - 10) / (45 - 10))
    assert recovery.share.low < recovery.share.value < recovery.share.high
    assert (recovery.num_known, recovery.num_unlearned) == (10, 2)
    assert (recovery.num_learned, recovery.num_readable) == (20, 35)
    text = " ".join(recovery_sentences(recovery))
    assert "51%" in text
    assert "2 of them are wrong now" in text


def test_only_short_closed_book_questions_on_learned_documents_count():
    others = [
        question(0, ring="unseen"),
        question(1, kind="free"),
        question(2, passage="It holds forty."),
        question(3, answerable=False),
    ]
    rows = [*scores("base", BASE), *scores("tuned", TUNED), *scores("oracle", ORACLE)]
    assert measure_recovery(others, rows) is None
    assert measure_recovery([question(0)], scores("base", BASE) + scores("tuned", TUNED)) is None


def test_a_passage_that_does_not_help_leaves_no_share():
    exam = [question(n) for n in range(50)]
    rows = [*scores("base", BASE), *scores("tuned", TUNED), *scores("oracle", BASE)]
    recovery = measure_recovery(exam, rows)
    assert recovery.share.value is None
    assert "no share to recover" in recovery_sentences(recovery)[1]
