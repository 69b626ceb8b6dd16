"""Verdicts whose right answer follows from how the scores were made."""

from __future__ import annotations

from typing import Literal

import pytest

from support.finished_run import kept_answers
from support.verdicts import answered
from tunewright.evaluation.rule import rule
from tunewright.evaluation.verdict import Verdict, decide
from tunewright.retention.suite import load_suite

CHATS_ALONE = {"rag": "there are no documents to search"}
LABELS = {"base": 0.0, "few-shot": 0.05, "similar-shot": 0.22, "tuned": 0.42}  # measured: labels to JSON, 70 samples


def verdict_on(
    means: dict[str, float],
    use: Literal["task", "assistant"] = "task",
    lost: float = 0.0,
    rise: float = 0.2,
    impossible: dict[str, str] = CHATS_ALONE,
) -> Verdict:
    """Return the verdict on 30 questions, with this loss of accuracy and rise of cross-entropy on general items."""
    scores, answers = answered(means, per_document=1)
    made = rule(0.10, list(means), 0.05, use=use, impossible=impossible)
    return decide(scores, answers, made, 0, kept_answers(load_suite(), lost, rise))


@pytest.mark.parametrize("use", ["task", "assistant"])
def test_labels_to_json_ship_though_the_likelihood_of_general_text_drifts(use: Literal["task", "assistant"]) -> None:
    verdict = verdict_on(LABELS, use)
    assert verdict.name == "SHIP"
    for rival in ("base", "few-shot", "similar-shot"):
        assert any(reason.startswith(f"tuned beats {rival} by") for reason in verdict.why)
    assert "rag is no rival here: there are no documents to search." in verdict.why


def test_a_loss_of_general_ability_is_worse_in_place_of_the_base_and_not_beside_it() -> None:
    assert verdict_on(LABELS, "assistant", lost=0.4).name == "WORSE"
    beside = verdict_on(LABELS, "task", lost=0.4)
    assert beside.name == "SHIP"
    assert any("send other requests to the base" in reason for reason in beside.why)


@pytest.mark.parametrize("removed", ["few-shot", "similar-shot"])
def test_a_rival_that_the_data_allows_and_the_recipe_leaves_out_is_required_still(removed: str) -> None:
    verdict = verdict_on({arm: mean for arm, mean in LABELS.items() if arm != removed})
    assert verdict.name == "NOT PROVEN"
    assert any(f"Rivals not run: {removed};" in reason for reason in verdict.why)


def test_where_documents_exist_rag_is_required() -> None:
    verdict = verdict_on(LABELS, impossible={})
    assert verdict.name == "NOT PROVEN"
    assert any("Rivals not run: rag;" in reason for reason in verdict.why)


def test_documents_alone_ship_without_worked_examples() -> None:
    means = {"base": 0.2, "rag": 0.4, "tuned": 0.7, "tuned+rag": 0.5}
    none = dict.fromkeys(("few-shot", "similar-shot"), "there is no training chat to show")
    assert verdict_on(means, impossible=none).name == "SHIP"
    with_rag = verdict_on({**means, "tuned": 0.4, "tuned+rag": 0.8}, impossible=none)
    assert with_rag.name == "SHIP WITH RAG"


def test_similar_examples_that_do_as_well_are_the_better_choice() -> None:
    verdict = verdict_on({**LABELS, "similar-shot": 0.42})
    assert verdict.name == "PROMPT INSTEAD"
    assert any("similar-shot" in reason for reason in verdict.why)


def test_shuffled_labels_never_ship() -> None:
    assert verdict_on({**LABELS, "tuned": 0.05}).name != "SHIP"
