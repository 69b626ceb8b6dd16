"""The smallest difference that an exam can show, against the t-test's own power and published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from tunewright.commands.plan import provable_effect
from tunewright.commands.plan_sizes import count_sizes
from tunewright.recipe import Recipe
from tunewright.records import Question, SplitEntry
from tunewright.run_folder import RunFolder
from tunewright.settings import ExamSettings, SynthesisSettings
from tunewright.statistics.power import (
    design_effect,
    detectable,
    detectable_on,
    detectable_unclustered,
    exam_power,
    question_counts,
    questions_for,
    retention_power,
)


@given(st.integers(3, 300), st.floats(0.5, 0.95))
def test_independent_questions_agree_with_statsmodels(num: int, power: float) -> None:
    detected = detectable(1, num, num, 0, power)
    # Theirs counts the far tail too, which holds next to nothing.
    assert TTestPower().power(detected, num, 0.05) == pytest.approx(power, abs=2e-3)


@given(st.integers(2, 40), st.integers(1, 9), st.floats(0, 1))
def test_equal_documents_give_the_formula_of_equal_documents(documents: int, size: int, icc: float) -> None:
    sizes = [size] * documents
    assert design_effect(sizes, icc) == pytest.approx(1 + (size - 1) * icc)
    assert detectable_on(sizes, 0.4, icc) == pytest.approx(detectable(0.4, size * documents, documents, icc))


def test_unequal_documents_have_their_own_design_effect() -> None:
    """The variance of a mean of correlated values, term by term."""
    sizes, icc = [1, 2, 7], 0.3
    cluster = np.repeat(range(3), sizes)
    covariance = np.where(cluster[:, None] == cluster[None, :], icc, 0.0)
    np.fill_diagonal(covariance, 1)
    assert design_effect(sizes, icc) == pytest.approx(covariance.sum() / 10)


@given(st.floats(0.05, 0.5), st.integers(1, 6), st.floats(0, 0.6))
def test_the_computed_number_of_questions_is_enough_and_one_less_is_not(
    effect: float, per_document: int, icc: float
) -> None:
    def smallest(num: int) -> float:
        from tunewright.statistics.power import noncentrality

        inflated = 0.16 * (1 + (per_document - 1) * icc)
        return noncentrality(num / per_document - 1) * math.sqrt(inflated / num)

    num = questions_for(effect, 0.16, per_document, icc)
    assert smallest(num) <= effect
    assert num <= 2 * per_document or num - 1 <= per_document or smallest(num - 1) > effect


def test_fewest_questions_agree_with_statsmodels() -> None:
    theirs = TTestPower().solve_power(effect_size=0.1 / 0.4, alpha=0.05, power=0.8)
    assert questions_for(0.1, 0.16) == math.ceil(theirs)
    assert questions_for(0.1, 0.16, large=True) < math.ceil(theirs)


def test_documents_help_more_than_questions() -> None:
    sizes = [3] * 10
    assert detectable_on(sizes * 2) < detectable_on([6] * 10) < detectable_on(sizes)
    line = exam_power(sizes)
    assert line.startswith("the exam: 30 question(s) on 10 document(s) can prove a difference of ")
    assert f"difference of {detectable_on(sizes):.2f} in score with 80% power" in line
    assert f"{detectable_on(sizes * 2):.2f} with twice the documents" in line
    assert f"{detectable_on([2, 1] * 10):.2f} with as many questions on more documents" in line
    assert "more documents before more questions" in line
    assert "as many questions" not in exam_power([1] * 10)


def test_a_single_document_proves_nothing() -> None:
    assert math.isinf(detectable_on([30]))
    assert "prove nothing" in exam_power([30])


def test_questions_are_counted_by_document() -> None:
    assert sorted(question_counts(["a", "b", "a", "a"])) == [1, 3]
    assert question_counts([]) == []


def test_large_samples_need_no_clusters() -> None:
    assert detectable_unclustered(0.16, 10_000) == pytest.approx(detectable(0.4, 10_000, 10_000, 0), rel=1e-3)


def test_the_plan_shows_it_once_the_split_is_known(tmp_path) -> None:
    run = RunFolder.create(tmp_path / "run")
    recipe = Recipe(exam=ExamSettings(learned_per_document=2, unseen_per_document=3))
    sides = ["train"] * 8 + ["exam"] * 2
    run.write_records("split.jsonl", [SplitEntry(document=f"d{i}", side=s, group=f"g{i}") for i, s in enumerate(sides)])
    (line,) = provable_effect(recipe, run, count_sizes(recipe, run))
    assert line == exam_power([2] * 8 + [6] * 2)
    assert "28 question(s) on 10 document(s)" in line
    exam = [question("q1", "d0"), question("q2", "d0"), question("q3", "d9")]
    run.write_records("exam.jsonl", exam)  # the written questions count, not the requested number
    assert list(provable_effect(recipe, run, count_sizes(recipe, run))) == [exam_power([2, 1])]


def test_the_plan_counts_the_users_own_exam_before_anything_ran(tmp_path) -> None:
    (tmp_path / "exam.csv").write_text("question,answer,document\na?,b,x\nc?,d,x\ne?,f,y\ng?,h,\n", encoding="utf-8")
    (tmp_path / "own.jsonl").write_text('{"prompt": "a?", "completion": "b"}\n', encoding="utf-8")
    recipe = Recipe(
        exam=ExamSettings(file=str(tmp_path / "exam.csv")),
        synthesis=SynthesisSettings(data=(str(tmp_path / "own.jsonl"),)),
    )
    run = RunFolder.create(tmp_path / "run")
    assert list(provable_effect(recipe, run, count_sizes(recipe, run))) == [exam_power([2, 1, 1])]


def question(name: str, document: str) -> Question:
    return Question(id=name, ring="learned", document=document, question="What?", gold="That.", answerable=True)


def test_the_loss_that_can_be_ruled_out_is_stated() -> None:
    assert "can rule out a loss of 0.033 or more" in retention_power(360, 0.05)  # 1.967 * sqrt(0.1 / 360)
    assert "raise exam.retention_items" not in retention_power(360, 0.05)
    assert retention_power(90, 0.05).endswith("not within the margin of 0.05: raise exam.retention_items")
    assert "too few to rule out any forgetting" in retention_power(1, 0.05)


def test_an_exam_that_can_give_no_verdict_is_reported_before_anything_is_trained():
    assert "the verdict is INVALID" in exam_power([5, 5, 5, 5])
    assert "the verdict is INVALID" in exam_power([1] * 9)
    assert "INVALID" not in exam_power([2] * 5)
