import json
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from support.verdicts import ARMS, GOOD, answered, scored
from tunewright.errors import StageError
from tunewright.evaluation.rule import rule, rule_digest
from tunewright.evaluation.verdict import Verdict, apply_rule, decide
from tunewright.records import Score
from tunewright.reporting.report import summary_table


def judge(
    means: Mapping[str, float], leaks: int | None = 0, arms: Sequence[str] | None = None, **how: object
) -> Verdict:
    scores, answers = answered(means, **how)  # type: ignore[arg-type]
    return decide(scores, answers, rule(0.10, arms or list(means)), leaks)


@pytest.mark.parametrize(
    ("means", "name"),
    [
        (GOOD, "SHIP"),
        (scored(0.4, 0.3, 0.3, 0.2, 0.9), "WORSE"),
        (scored(0.2, 0.3, 0.5, 0.5, 0.8), "SHIP WITH RAG"),
        (scored(0.2, 0.3, 0.7, 0.5, 0.7), "USE RAG"),
        (scored(0.2, 0.8, 0.5, 0.5, 0.5), "PROMPT INSTEAD"),
        (scored(0.2, 0.7, 0.8, 0.5, 0.5), "USE RAG"),  # both cheap arms beat tuned: the better one is named
        (scored(0.2, 0.3, 0.48, 0.5, 0.48), "USE RAG"),  # ahead of RAG, but by less than the margin
        (scored(0.5, 0.5, 0.5, 0.5, 0.5), "NOT PROVEN"),
    ],
)
def test_each_step_of_the_rule(means: dict[str, float], name: str) -> None:
    verdict = judge(means)
    assert verdict.name == name
    assert len(verdict.why) >= 2 or name == "NOT PROVEN"
    assert (verdict.questions_needed is not None) == (name == "NOT PROVEN")


def test_a_lead_that_is_uncertain_but_may_be_worth_having_is_not_proven() -> None:
    verdict = judge(scored(0.3, 0.3, 0.42, 0.5, 0.42), noise=4.0)
    tuned_rag = verdict.results.difference("tuned", "rag")
    assert tuned_rag is not None
    assert tuned_rag.interval.low < 0 < 0.10 < tuned_rag.interval.high
    assert verdict.name == "NOT PROVEN"
    assert verdict.questions_needed is not None
    assert any(
        f"{verdict.questions_needed:,} questions" in reason or "large enough" in reason for reason in verdict.why
    )


def test_leaks_invalidate_whatever_the_scores() -> None:
    verdict = judge(GOOD, leaks=2)
    assert verdict.name == "INVALID"
    assert "2 training sample(s) leak" in " ".join(verdict.why)


@pytest.mark.parametrize(("num", "per_document", "fault"), [(9, 1, "9 question(s)"), (20, 5, "4 document(s)")])
def test_small_exams_are_invalid(num: int, per_document: int, fault: str) -> None:
    verdict = judge(GOOD, num=num, per_document=per_document)
    assert verdict.name == "INVALID"
    assert fault in " ".join(verdict.why)


def test_ten_questions_on_five_documents_are_enough_to_be_judged() -> None:
    assert judge(GOOD, num=10, per_document=2).name != "INVALID"


@pytest.mark.parametrize(("arm", "name"), [("tuned", "INVALID"), ("tuned+rag", "INVALID"), ("base", "SHIP")])
def test_answers_cut_short_invalidate_only_judged_arms(arm: str, name: str) -> None:
    cut = {fault: lambda i: float(i < 2) for fault in ("cut_short", "cut_or_empty")}
    verdict = judge(GOOD, metrics={arm: cut})  # 2 of 30: 6.7 %
    assert verdict.name == name
    sentence = f"2 of 30 answers of {arm} (6.7%)" if name == "INVALID" else f"7% of the {arm} answers"
    assert any(sentence in reason for reason in verdict.why)
    assert judge(GOOD, metrics={arm: {"cut_short": lambda i: float(i < 1)}}).name == "SHIP"  # 3.3 %


def test_answers_that_ramble_on_or_say_nothing_are_no_fault_of_the_exam() -> None:
    ruined = judge({**GOOD, "tuned": 0.0}, metrics={"tuned": {"cut_or_empty": lambda i: 1.0}})
    assert ruined.name == "WORSE"
    assert any("100% of the tuned answers are empty or cut" in reason for reason in ruined.why)
    before = {key: value for key, value in ruined.rule.items() if key != "cut_short"}  # as version 4 stated it
    assert apply_rule(ruined.results, before, 0, False)[0] == "INVALID"


def test_a_training_that_changed_next_to_nothing_settles_nothing() -> None:
    means = {**GOOD, "tuned": 0.2, "tuned+rag": 0.4}  # as base and rag; few-shot and rag are better
    scores, answers = answered(means)
    texts = {(a.question, "base"): a.text for a in answers if a.arm == "base"}
    same = [a.model_copy(update={"text": texts[a.question, "base"]}) if a.arm == "tuned" else a for a in answers]
    verdict = decide(scores, same, rule(0.10, list(means)), 0)
    assert verdict.name == "NOT PROVEN"
    assert "to 30 of 30 questions" in verdict.why[1]
    assert "changed next to nothing" in verdict.why[1]
    scores, _ = answered(means)
    nll = {a.question: a.gold_nll for a in answers if a.arm == "base"}  # other words after near ties, the same model
    moved = [a.model_copy(update={"gold_nll": nll[a.question] + 0.04}) if a.arm == "tuned" else a for a in answers]
    verdict = decide(scores, moved, rule(0.10, list(means)), 0)
    assert verdict.name == "NOT PROVEN"
    assert "The likelihood of the gold answers moved by 0.04 nats per token from base to tuned" in verdict.why[1]
    changed = decide(scores, answers, rule(0.10, list(means)), 0)
    assert changed.name == "USE RAG"
    assert not any("changed next to nothing" in reason for reason in changed.why)


def test_refusing_answerable_questions_beyond_the_margin_is_worse() -> None:
    verdict = judge(GOOD, metrics={"tuned": {"false_refusal": lambda i: float(i % 2)}})
    assert verdict.name == "WORSE"
    (guard,) = verdict.results.guards_of("tuned")
    assert (guard.state, guard.margin) == ("beyond", 0.10)


def test_a_guard_that_is_not_shown_to_be_harmless_forbids_shipping() -> None:
    verdict = judge(GOOD, metrics={"tuned": {"false_refusal": lambda i: float(i in (3, 11))}})
    assert verdict.results.guards_of("tuned")[0].state == "unclear"
    assert verdict.name == "NOT PROVEN"
    assert any("may exceed the margin" in reason for reason in verdict.why)


def test_no_false_refusal_at_all_is_no_proof_on_few_questions() -> None:
    # Rule of three: nothing seen in 20 questions still allows 14 %, in 30 questions 9.5 %.
    few, many = judge(GOOD, num=20), judge(GOOD, num=30)
    assert few.results.guards_of("tuned")[0].interval.high == pytest.approx(1 - 0.05 ** (1 / 20))
    assert (few.name, many.name) == ("NOT PROVEN", "SHIP")


def test_only_base_and_tuned_can_at_best_be_not_proven() -> None:
    verdict = judge({"base": 0.2, "tuned": 0.9})
    assert verdict.name == "NOT PROVEN"
    assert any("few-shot, similar-shot, rag" in reason for reason in verdict.why)
    assert "the rag arm did not run" in verdict.not_measured
    assert judge({"base": 0.9, "tuned": 0.2}).name == "WORSE"
    assert judge({"base": 0.2, "rag": 0.9, "tuned": 0.5}).name == "USE RAG"


@pytest.mark.parametrize("missing", ["base", "tuned"])
def test_without_base_or_tuned_there_is_no_conclusion(missing: str) -> None:
    verdict = judge({arm: mean for arm, mean in GOOD.items() if arm != missing})
    assert verdict.name == "INVALID"
    assert any(f"The {missing} arm did not answer the exam" in reason for reason in verdict.why)


def test_an_arm_that_left_questions_out_invalidates() -> None:
    scores, answers = answered(GOOD)
    verdict = decide(scores[:-1], answers, rule(0.10, ARMS), 0)
    assert verdict.name == "INVALID"
    assert any("tuned+rag answered 29 of 30" in reason for reason in verdict.why)


def test_nll_is_paired_base_minus_tuned_on_closed_book_questions() -> None:
    verdict = judge(scored(0.5, 0.5, 0.5, 0.5, 0.5), nll={"base": 3.0, "tuned": 2.0})
    learned = verdict.results.nll_learned
    assert learned is not None
    assert learned.interval.num == 20  # i % 3 of 30 questions: learned and closed book
    assert 0.9 < learned.interval.low < 1.0 < learned.interval.high < 1.1
    assert learned.interval.p < 0.001
    assert verdict.promising
    assert verdict.name == "NOT PROVEN"  # likelihood alone never ships
    assert any("Promising" in reason for reason in verdict.why)
    assert not judge(GOOD, nll={"base": 2.0, "tuned": 3.0}).promising


def test_a_bad_likelihood_is_left_out_not_spread() -> None:
    scores, answers = answered(GOOD, nll={"base": 3.0, "tuned": 2.0})
    answers = [a.model_copy(update={"gold_nll": float("inf")}) if a.question == "q1" else a for a in answers]
    learned = decide(scores, answers, rule(0.10, ARMS), 0).results.nll_learned
    assert learned is not None
    assert learned.interval.num == 19


def test_the_rule_is_plain_json_with_a_stable_digest_and_governs() -> None:
    made = rule(0.10, ARMS)
    assert json.loads(json.dumps(made)) == made
    assert rule_digest(made) == rule_digest(dict(reversed(made.items())))
    assert rule_digest(made) != rule_digest(rule(0.11, ARMS))
    assert rule_digest(made) != rule_digest(rule(0.10, ARMS[:-1]))
    scores, answers = answered(GOOD)
    verdict = decide(scores, answers, {**made, "min_questions": 31}, 0)
    assert verdict.name == "INVALID"  # the written rule counts, not the code's constants
    assert verdict.rule_digest != rule_digest(made)


def test_verdict_survives_its_file() -> None:
    verdict = judge(GOOD, nll={"tuned": 1.0})
    assert Verdict.model_validate(json.loads(verdict.model_dump_json())) == verdict


def test_no_scores_is_an_error() -> None:
    with pytest.raises(StageError, match="no scores"):
        decide([], [], rule(0.10, ARMS), 0)


def test_exploratory_comparisons_are_adjusted() -> None:
    verdict = judge(GOOD, metrics={arm: {"fuzzy": lambda i: i / 60, "refusal_right": lambda i: 1.0} for arm in ARMS})
    assert {d.measure for d in verdict.results.exploratory} >= {"primary, learned", "primary, unseen", "fuzzy"}
    assert all(d.p_holm is not None and d.p_holm >= d.interval.p for d in verdict.results.exploratory)


def test_longer_answers_that_score_higher_are_reported() -> None:
    scores, answers = answered(GOOD)
    marks = {(s.arm, s.question): s.primary for s in scores}
    longer = [
        a.model_copy(update={"num_tokens": round(1000 * marks[a.arm, a.question])}) if a.arm == "tuned" else a
        for a in answers
    ]
    results = decide(scores, longer, rule(0.10, ARMS), 0).results
    tuned, base = results.arm("tuned"), results.arm("base")
    assert tuned is not None
    assert base is not None
    assert tuned.length_correlation == pytest.approx(1, abs=0.02)
    assert base.length_correlation is None  # all of one length
    declined = [s.model_copy(update={"metrics": s.metrics | {"answerable": 0.0}}) for s in scores]
    only_refusals = decide(declined, longer, rule(0.10, ARMS), 0).results.arm("tuned")
    assert only_refusals is not None
    assert only_refusals.length_correlation is None


def test_false_ship_is_rare_without_an_effect_and_comparing_means_is_not() -> None:
    """With no effect, comparing the means announces a win half of the time; the rule hardly ever."""
    rng = np.random.default_rng(4)
    ships = means_win = 0
    for _ in range(60):
        scores = [
            Score(question=f"q{i}", arm=arm, ring="learned", document=f"d{i // 3}", primary=float(p), metrics={})
            for arm in ARMS
            for i, p in enumerate(rng.uniform(0, 1, 30))
        ]
        verdict = decide(scores, [], rule(0.10, ARMS), 0)
        ships += verdict.name.startswith("SHIP")
        against = verdict.results.difference("tuned", "base")
        assert against is not None
        means_win += against.interval.mean > 0
    assert ships <= 2
    assert 20 <= means_win <= 40


def test_summary_table_has_a_cell_per_column() -> None:
    columns, rows = summary_table(judge(GOOD))
    assert columns == ["arm", "score", "95% interval", "learned", "unseen", "declines rightly / wrongly", "gold NLL"]
    assert [row[0] for row in rows] == list(ARMS)
    assert all(len(row) == len(columns) for row in rows)
    assert float(rows[4][1]) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(("same", "reported"), [(30, True), (29, True), (28, False), (0, False)])
def test_a_tuned_model_that_answers_like_the_base_is_reported(same: int, reported: bool) -> None:
    scores, answers = answered(GOOD)
    of_base = {a.question: a.text for a in answers if a.arm == "base"}
    answers = [
        a.model_copy(update={"text": f" {of_base[a.question]}\n"})
        if a.arm == "tuned" and int(a.question[1:]) < same
        else a
        for a in answers
    ]
    why = decide(scores, answers, rule(0.10, ARMS), 0).why
    remarks = [reason for reason in why if "same answer as the base" in reason]
    assert len(remarks) == reported
    if reported:
        assert remarks[0] == (
            f"The tuned model gives the same answer as the base to {same} of 30 questions: the training changed "
            "next to nothing. Raise training.learning_rate or training.epochs."
        )


def test_without_base_answers_there_is_no_remark_on_them() -> None:
    assert not any("same answer" in reason for reason in judge({"tuned": 0.5}).why)


def test_an_arm_compared_on_request_is_reported_and_changes_no_verdict():
    means = {**GOOD, "better": 0.95, "worse": 0.1}
    scores, answers = answered({arm: means[arm] for arm in GOOD})
    alone = decide(scores, answers, rule(0.10, list(GOOD)), 0)
    assert alone.name == "SHIP"
    for other, mean in (("better", 0.95), ("worse", 0.1)):
        copied = [s.model_copy(update={"arm": other, "primary": mean}) for s in scores if s.arm == "tuned"]
        # Even an incomplete sheet of theirs is no fault of the exam.
        verdict = decide([*scores, *copied[1:]], answers, rule(0.10, list(GOOD), compared=[other]), 0)
        assert (verdict.name, verdict.why) == (alone.name, alone.why)
        (difference,) = verdict.results.compared
        assert (difference.first, difference.second) == ("tuned", other)
        assert (difference.interval.mean < 0) == (other == "better")
    assert rule(0.10, list(GOOD), compared=["better"]) != rule(0.10, list(GOOD))


def test_where_a_placebo_is_an_arm_shipping_means_beating_it_too():
    without = judge(GOOD)
    assert without.name == "SHIP"
    assert any("no placebo adapter" in item for item in without.not_measured)
    knows = judge({**GOOD, "placebo": 0.3})
    assert knows.name == "SHIP"
    assert any(sentence.startswith("tuned beats placebo") for sentence in knows.why)
    assert any(sentence.startswith("Style against knowledge") for sentence in knows.why)
    assert not any("placebo" in item for item in knows.not_measured)
    form_alone = judge({**GOOD, "placebo": 0.7})
    assert form_alone.name == "NOT PROVEN"
    assert any(sentence.startswith("tuned against placebo") for sentence in form_alone.why)
    ships = next(step for step in knows.rule["steps"] if step.startswith("SHIP:"))
    assert "every k in base, few-shot, similar-shot, rag, placebo," in ships
    assert "placebo" not in json.dumps(without.rule)


def test_gold_answers_that_the_placebo_finds_as_likely_promise_nothing():
    means = {**scored(0.2, 0.4, 0.4, 0.4, 0.4), "placebo": 0.4}
    nll = {"base": 3.0, "tuned": 1.0, "placebo": 2.0}
    assert judge(means, nll=nll).promising
    formed = judge(means, nll={**nll, "placebo": 1.0})
    assert not formed.promising
    assert formed.results.nll_placebo.first == "placebo"
    assert judge(scored(0.2, 0.4, 0.4, 0.4, 0.4), nll=nll).promising


def test_a_cheap_arm_below_the_base_is_never_what_to_use_instead() -> None:
    verdict = judge(scored(0.45, 0.30, 0.42, 0.50, 0.42), arms=ARMS)
    results = verdict.results.model_copy(update={"guards": ()})
    name, why, _ = apply_rule(results, verdict.rule, 0, False)
    assert name == "NOT PROVEN" and any("without it nothing ships" in reason for reason in why)


def test_nothing_ships_without_a_measure_of_every_guard() -> None:
    shipped = judge(GOOD)
    assert shipped.name == "SHIP"
    results = shipped.results.model_copy(update={"guards": ()})
    assert apply_rule(results, shipped.rule, 0, False)[0] != "SHIP"


def test_leaks_are_unmeasured_where_no_sample_was_curated() -> None:
    verdict = judge(GOOD, leaks=None)
    assert verdict.leaks is None and any(item.startswith("leaks") for item in verdict.not_measured)


def test_over_seeds_that_disagree_nothing_ships_although_the_first_alone_would():
    scores, answers = answered({**GOOD, "tuned-seed-2": 0.45, "tuned-seed-3": 0.6})
    assert judge(GOOD).name == "SHIP"
    over = decide(scores, answers, rule(0.10, list(GOOD), seeds=("tuned-seed-2", "tuned-seed-3")), 0)
    assert over.name != "SHIP" and any("trainings from as many seeds" in sentence for sentence in over.why)
    assert not any("training.seeds" in item for item in over.not_measured)
    assert any("training.seeds" in item for item in judge(GOOD).not_measured)
    scores, answers = answered({**GOOD, "tuned-seed-2": GOOD["tuned"], "tuned-seed-3": GOOD["tuned"]}, noise=0.2)
    assert decide(scores, answers, rule(0.10, list(GOOD), seeds=("tuned-seed-2", "tuned-seed-3")), 0).name == "SHIP"
