"""The simulation of the verdict rule is the project's own statistics and rule, and the rule errs as rarely as recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_simulation import RESULTS, false_positives, intervals, results_of, verdicts
from verdict_worlds import ARMS, BASE, FALSE_SHIP, MARKED_WORLDS, TUNED, WORLDS, draw_scores

from tunewright.evaluation.verdict import apply_rule, decide
from tunewright.records import Score
from tunewright.statistics.intervals import difference_interval


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 40), st.booleans())
def test_intervals_of_many_runs_are_those_of_the_project(seed: int, documents: int, extra: int, binary: bool) -> None:
    draw = np.random.default_rng(seed)
    clusters = np.concatenate([np.arange(documents), draw.integers(0, documents, extra)])
    rows = draw.normal(0.2, 0.5, (3, len(clusters)))
    if binary:  # and one row that does not vary at all
        rows = np.vstack([np.sign(rows.round()), np.ones(len(clusters))])
    simulated = intervals(rows, clusters)
    for index, row in enumerate(rows):
        own = difference_interval(row.tolist(), clusters.tolist())
        theirs = [simulated[name][index] for name in ("mean", "low", "high", "p")]
        assert theirs == pytest.approx([own.mean, own.low, own.high, own.p], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", WORLDS)
def test_each_simulated_verdict_is_that_of_the_whole_path(name: str) -> None:
    """From scores through ``decide``: intervals, guards and rule, as in a real run."""
    truth = WORLDS[name]
    drawn = draw_scores(truth, 6, np.random.default_rng(7))
    written = truth.rule
    for run, results in enumerate(results_of(truth, drawn)):
        scores = [
            Score(
                question=f"q{index}",
                arm=arm,
                ring="learned",
                document=f"d{truth.clusters[index]}",
                primary=float(drawn[run, row, index]),
                metrics={"cut_or_empty": 0.0, **({"false_refusal": 0.0} if truth.answerable[index] else {})},
            )
            for row, arm in enumerate(ARMS)
            if arm in truth.arms
            for index in range(truth.num_questions)
        ]
        verdict = decide(scores, [], written, 0)
        simulated, _, needed = apply_rule(results, written, 0, False)
        assert simulated == verdict.name
        assert needed == verdict.questions_needed
        assert [guard.state for guard in results.guards] == [guard.state for guard in verdict.results.guards]


def test_drawn_scores_have_the_spread_and_the_correlation_that_they_claim() -> None:
    truth = WORLDS["no effect"]
    drawn = draw_scores(truth, 4000, np.random.default_rng(1))
    differences = drawn[:, TUNED] - drawn[:, BASE]
    assert differences.std() == pytest.approx(0.383, abs=0.005)
    assert np.corrcoef(differences[:, 0], differences[:, 10])[0, 1] == pytest.approx(0.3, abs=0.06)  # one document
    assert np.corrcoef(differences[:, 0], differences[:, 1])[0, 1] == pytest.approx(0.0, abs=0.06)


@pytest.mark.parametrize("name", [name for name, truth in WORLDS.items() if truth.kinds])
def test_kinds_have_the_means_that_they_claim_and_a_correlation_within_documents(name: str) -> None:
    truth = WORLDS[name]
    drawn = draw_scores(truth, 2000, np.random.default_rng(2))
    means = drawn.mean(axis=(0, 2))
    assert [means[ARMS.index(arm)] for arm in truth.arms] == pytest.approx(list(truth.true_means.values()), abs=0.01)
    for kind, of_kind in enumerate(truth.kinds):
        assert drawn[:, :, truth.kind_of == kind].mean(axis=(0, 2)) == pytest.approx(of_kind.means, abs=0.02)
    assert set(truth.kind_of) == set(range(len(truth.kinds)))
    document = truth.clusters == 0
    if document.sum() > 1:
        pairs = np.corrcoef(drawn[:, TUNED, document].T)
        assert 0.05 < pairs[np.triu_indices(len(pairs), 1)].mean() < 0.35


def test_worlds_whose_best_rival_equals_tuned_are_what_they_say() -> None:
    for name, most in FALSE_SHIP.items():
        means = {**WORLDS, **MARKED_WORLDS}[name].true_means
        best = max(mean for arm, mean in means.items() if arm not in ("tuned", "tuned+rag"))
        assert best == pytest.approx(means["tuned"]), name
        assert (max(means.values()) - min(means.values()) < 1e-9) == (most == 1), name


def test_false_ship_is_rare() -> None:
    draw = np.random.default_rng(3)
    assert verdicts(WORLDS["no effect"], 2000, draw)["ship_or_ship_with_rag_percent"] <= 1
    equal = verdicts(WORLDS["RAG equals tuned, far above the others"], 2000, draw)["ship_percent"]
    assert 1 < equal <= 2.5 + 3 * 0.35  # 2.5 % is what the rule allows; one standard error of 2,000 runs is 0.35 %


def test_false_ship_is_rare_where_marks_decide() -> None:
    draw = np.random.default_rng(5)
    assert verdicts(MARKED_WORLDS["kinds, no effect, by marks"], 300, draw)["ship_percent"] <= 1
    assert verdicts(MARKED_WORLDS["+0.3 over all rivals, by marks"], 100, draw)["ship_percent"] > 60


def test_the_difference_test_holds_its_level_where_the_item_t_test_does_not() -> None:
    rates = false_positives(30, 10, 10_000, np.random.default_rng(4))
    assert 4.2 < rates["cluster_t_percent"] < 5.8
    assert rates["item_t_percent"] > 10


def test_the_record_has_enough_runs_and_passed_every_bar() -> None:
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert min(part["runs"] for part in (*record["worlds"].values(), *record["false_positives_at_5_percent"])) >= 40_000
    assert min(part["runs"] for part in record["worlds_by_marks"].values()) >= 10_000
    assert set(record["worlds"]) == set(WORLDS) and set(record["worlds_by_marks"]) == set(MARKED_WORLDS)
    assert {f"false SHIP: {name}" for name in FALSE_SHIP} <= {bar["bar"] for bar in record["bars"]}
    for bar in record["bars"]:
        assert bar["from"] <= bar["percent"] <= bar["to"], bar
        assert bar["passed"]
