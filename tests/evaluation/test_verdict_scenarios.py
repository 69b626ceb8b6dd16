"""Verdicts whose right answer follows from how the scores were made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
from verdicts import data
from verdicts.run import RESULTS, prepare
from verdicts.scenarios import SCENARIOS

from support.constructed_answers import Says, exam_answers, trained
from support.constructed_answers import verdict_on as verdict_on_answers
from support.finished_run import kept_answers
from support.verdicts import answered
from tunewright.evaluation.rule import rule
from tunewright.evaluation.verdict import Verdict, decide
from tunewright.recipe import Recipe, load_recipe
from tunewright.retention.suite import load_suite
from tunewright.run_folder import RunFolder

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


# The scenarios of benchmarks/verdicts with constructed answers, through the real evaluate stage. Their data is the same.

LABELED = data.labels()
RIGHT = exam_answers(LABELED["exam.jsonl"])
FORM_ALONE = [*RIGHT[1:], RIGHT[0]]  # each ticket with the labels of another
PROSE = "This ticket is about a product."


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[RunFolder, Recipe]:
    folder = tmp_path_factory.mktemp("scenarios") / "labels"
    return trained(folder, tiny_model, LABELED["train.jsonl"], LABELED["exam.jsonl"], retention_items=120)


def tuned_says(texts: Sequence[str], prompted: Sequence[str] = (PROSE,) * len(RIGHT)) -> Says:
    """Return the tuned model's answers, those of both kinds of worked examples, and prose of the base."""
    return lambda arm, number, _: {"base": PROSE, "tuned": texts[number]}.get(arm, prompted[number])


MOSTLY_RIGHT = [FORM_ALONE[n] if n % 4 == 0 else right for n, right in enumerate(RIGHT)]


def test_labels_learned_ship_and_beat_the_most_frequent_labels_too(labeled: tuple[RunFolder, Recipe]) -> None:
    verdict = verdict_on_answers(*labeled, tuned_says(MOSTLY_RIGHT, FORM_ALONE))
    assert verdict.name == "SHIP"
    assert any(reason.startswith("tuned beats majority by") for reason in verdict.why)


def test_shuffled_labels_do_not_ship_although_they_beat_every_rival_that_is_prompted(
    labeled: tuple[RunFolder, Recipe],
) -> None:
    verdict = verdict_on_answers(*labeled, tuned_says(FORM_ALONE))
    assert verdict.name == "NOT PROVEN"
    won = {d.second for d in verdict.results.differences if d.first == "tuned" and d.interval.low > 0}
    assert won == {"base", "few-shot", "similar-shot"}
    assert any(reason.startswith("tuned against majority") for reason in verdict.why)


def test_answers_of_the_base_are_not_proven_and_said_to_be_so_whatever_a_prompt_can_do(
    labeled: tuple[RunFolder, Recipe],
) -> None:
    verdict = verdict_on_answers(*labeled, tuned_says([PROSE] * len(RIGHT), RIGHT))
    assert verdict.name == "NOT PROVEN"
    assert "changed next to nothing" in " ".join(verdict.why)


def test_declining_every_ticket_is_worse(labeled: tuple[RunFolder, Recipe]) -> None:
    run, recipe = labeled
    assert verdict_on_answers(run, recipe, tuned_says([recipe.refusal] * len(RIGHT))).name == "WORSE"


def test_an_assistant_that_loses_its_general_ability_is_worse_and_the_same_task_ships(
    labeled: tuple[RunFolder, Recipe],
) -> None:
    run, recipe = labeled

    def keeps(arm: str, number: int) -> bool:
        return arm == "base" or number % 2 == 0

    for use, name in (("assistant", "WORSE"), ("task", "SHIP")):
        evaluation = recipe.evaluation.model_copy(update={"use": use})
        as_used = recipe.model_copy(update={"evaluation": evaluation})
        assert verdict_on_answers(run, as_used, tuned_says(MOSTLY_RIGHT, FORM_ALONE), keeps).name == name


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_a_recipe_and_data_that_it_names(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    recipe = load_recipe(prepare(name, scenario, tmp_path), scenario.settings)
    assert recipe.resolve(recipe.exam.file).is_file()
    assert all(recipe.resolve(path).is_file() for path in recipe.synthesis.data)
    assert all(recipe.resolve(path).is_dir() for path in recipe.documents.paths)


def test_every_scenario_is_recorded_with_the_right_verdict() -> None:
    recorded = json.loads(RESULTS.read_text(encoding="utf-8"))["scenarios"]
    assert recorded.keys() == SCENARIOS.keys()
    for name, outcome in recorded.items():
        assert outcome["verdict"] in SCENARIOS[name].expected
        assert outcome["right"]


def test_the_preview_of_every_scenario_bounds_the_gain_that_came() -> None:
    """Tuned over the best rival, against the upper end of what the preview called left to gain."""
    recorded = json.loads(RESULTS.read_text(encoding="utf-8"))["scenarios"]
    for outcome in recorded.values():
        before, scores = outcome["preview"], {arm: score[0] for arm, score in outcome["scores"].items()}
        best = max(scores[arm] for arm in ("base", "few-shot", "similar-shot", "rag") if arm in scores)
        assert before["gain_over_best_rival"] == pytest.approx(scores["tuned"] - best, abs=1e-3)
        assert before["gain_over_best_rival"] <= before["left_to_gain"][2] and before["bound_holds"]
        assert before["questions"] >= 7
