"""A rule that is changed once answers exist is reported, whoever changes it and however."""

import pytest

from tunewright.errors import StageError
from tunewright.evaluation.generation import require_finite
from tunewright.evaluation.rule import note_rule, rule
from tunewright.run_folder import Journal

ARMS = ("base", "few-shot", "rag", "tuned")


def test_before_the_first_answer_a_rule_may_change_and_after_it_every_change_is_reported(tmp_path):
    path = tmp_path / "rules.jsonl"
    assert note_rule(Journal(path), rule(0.10, ARMS), answered=False) == ()
    assert note_rule(Journal(path), rule(0.20, (*ARMS, "placebo")), answered=False) == ()
    assert note_rule(Journal(path), rule(0.20, (*ARMS, "placebo")), answered=True) == ()
    assert note_rule(Journal(path), rule(0.20, (*ARMS, "placebo"), compared=["other"]), answered=True) == ()
    (margin,) = note_rule(Journal(path), rule(0.05, (*ARMS, "placebo")), answered=True)
    assert "margin was 0.2 and is 0.05" in margin
    dropped = note_rule(Journal(path), rule(0.20, ARMS), answered=True)
    assert any("arms was" in change for change in dropped)
    assert note_rule(Journal(path), rule(0.20, (*ARMS, "placebo")), answered=True) == ()  # the fixed rule again


def test_a_history_that_begins_with_answers_says_so(tmp_path):
    path = tmp_path / "rules.jsonl"
    assert "answers existed already" in note_rule(Journal(path), rule(0.10, ARMS), answered=True)[0]
    path.unlink()
    assert "answers existed already" in note_rule(Journal(path), rule(0.10, ARMS), answered=True)[0]


@pytest.mark.parametrize(
    "bad", [{"gold_nll": float("inf")}, {"nll": [0.5, float("nan")]}, {"contrast_nll": -float("inf")}]
)
def test_an_overflow_is_refused_and_not_left_out(bad):
    require_finite([{"gold_nll": 1.0, "contrast_nll": None}, {"nll": [1.0, 2.0]}, {"text": "a"}])
    with pytest.raises(StageError, match="not a finite number"):
        require_finite([{"gold_nll": 1.0}, bad])
