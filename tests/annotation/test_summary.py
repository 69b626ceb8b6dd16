"""What marks add up to: majority, evidence, agreement with oneself, with others and of metrics with people."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.annotation.marks import latest_marks
from tunewright.annotation.summary import (
    agreement,
    alpha,
    consensus,
    evidence,
    metric_differences,
    self_agreement,
    summarize_marks,
)
from tunewright.records import Answer, Mark, Score
from tunewright.statistics.agreement import e_value

ARMS = ("base", "tuned")


def mark(question: str, choice: str, marker: str = "Ann", document: str = "d", **more: object) -> Mark:
    arm = choice in ARMS
    fields = {"choice": "better" if arm else choice, "winner": choice if arm else None, "left": "base"}
    return Mark.model_validate({"question": question, "document": document, "marker": marker, **fields, **more})


def test_the_majority_of_markers_decides_a_question() -> None:
    marks = [
        *(mark("q1", choice, who) for who, choice in (("a", "tuned"), ("b", "tuned"), ("c", "base"), ("d", "tuned"))),
        *(mark("q2", choice, who) for who, choice in (("a", "tuned"), ("b", "base"))),
        *(mark("q3", choice, who) for who, choice in (("a", "both bad"), ("b", "base"), ("c", "cannot tell"))),
        mark("q4", "cannot tell"),
        mark("q2", "base", "a", repeat=True),
    ]
    assert consensus(marks, ARMS) == {"q1": 1.0, "q2": 0.0, "q3": -1.0}


def test_evidence_counts_the_first_decisive_mark_of_each_document() -> None:
    marks = [
        mark("q1", "tie", document="d1"),
        mark("q2", "tuned", document="d1"),
        mark("q3", "base", document="d1"),
        mark("q4", "base", "Bob", document="d2"),
        mark("q5", "both bad", document="d3"),
        mark("q6", "tuned", document="d4", repeat=True),
    ]
    result = evidence(marks, ARMS)
    assert (result.wins, result.losses, result.value, result.stop) == (1, 1, e_value(1, 1), False)


@pytest.mark.parametrize("arm", ARMS)
def test_eight_unanimous_documents_stop_the_marking(arm: str) -> None:
    marks = [mark(f"q{n}", arm, document=f"d{n}") for n in range(8)]
    assert evidence(marks, ARMS).stop and not evidence(marks[:7], ARMS).stop


def test_self_agreement_is_within_a_marker() -> None:
    marks = [
        mark("q1", "tuned", "a"),
        mark("q1", "tuned", "a", repeat=True),
        mark("q1", "base", "b"),
        mark("q2", "tie", "a"),
        mark("q2", "both bad", "a", repeat=True),
        mark("q3", "tie", "b", repeat=True),  # its original was never marked
    ]
    result = self_agreement(marks)
    assert (result.num, result.of) == (1, 2)


def test_alpha_is_between_markers_and_leaves_repeats_out() -> None:
    marks = [mark("q1", "tuned", "a"), mark("q1", "tuned", "b"), mark("q2", "base", "a"), mark("q2", "base", "b")]
    assert alpha(marks) == 1.0
    assert alpha([*marks, mark("q1", "base", "a", repeat=True), mark("q2", "cannot tell", "c")]) == 1.0
    assert alpha([mark("q1", "tuned", "a"), mark("q1", "base", "a", repeat=True), mark("q2", "tie", "a")]) is None


def test_the_later_of_two_marks_for_a_showing_counts() -> None:
    early, late = mark("q1", "tuned", at="2026-01-01"), mark("q1", "base", at="2026-01-02")
    again = mark("q1", "tie", at="2026-01-03", repeat=True)
    assert latest_marks([late, again, early]) == [late, again]


def test_agreement_counts_only_where_people_prefer_an_arm() -> None:
    people = {"q1": 1.0, "q2": -1.0, "q3": 0.0, "q4": 1.0, "q5": 1.0}
    result = agreement("m", people, {"q1": 0.3, "q2": 0.1, "q3": 0.5, "q4": 0.0})
    assert (result.agreed, result.opposed, result.equal, result.share) == (1, 1, 1, 0.5)
    assert agreement("m", {}, {}).share is None


def test_metrics_of_which_less_is_better_are_turned() -> None:
    scores = [
        Score(
            question="q",
            arm=arm,
            ring="unseen",
            document="d",
            primary=p,
            metrics={"cut_or_empty": cut, "answerable": 1},
        )
        for arm, p, cut in (("base", 0.25, 1.0), ("tuned", 0.75, 0.0))
    ]
    answers = [
        Answer(
            question="q", arm=arm, text="", finish="stop", num_prompt_tokens=1, num_tokens=1, duration_s=1, gold_nll=nll
        )
        for arm, nll in (("base", 3.0), ("tuned", 1.0))
    ]
    assert metric_differences(scores, answers, ARMS) == {
        "primary": {"q": 0.5},
        "cut_or_empty": {"q": 1.0},
        "gold_nll": {"q": 2.0},
    }


MARKS = st.sampled_from([*ARMS, "tie", "both bad", "cannot tell"])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 8), MARKS, st.sampled_from("ab"), st.booleans()), min_size=1, max_size=30))
def test_every_mark_is_counted_once_and_arms_are_alike(rows: list[tuple[int, str, str, bool]]) -> None:
    marks = latest_marks([mark(f"q{n}", choice, who, f"d{n % 3}", repeat=again) for n, choice, who, again in rows])
    forward, backward = summarize_marks(marks, ARMS, [], {}), summarize_marks(marks, ARMS[::-1], [], {})
    assert sum(forward.choices.values()) == sum(forward.markers.values()) == forward.num_marks == len(marks)
    assert sum(forward.wins.values()) == forward.num_questions
    assert forward.wins == backward.wins and forward.e_value.value == backward.e_value.value and forward.p == backward.p
    assert forward.win_share.low == pytest.approx(1 - backward.win_share.high)
