"""The retention suite: what is drawn, how it is scored, and that forgetting decides the verdict."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.finished_run import kept_answers
from support.retention_verdicts import judge
from support.verdicts import GOOD, scored
from tunewright.evaluation.retention import answer_items, item_tokens, measure_retention, retention_answer
from tunewright.evaluation.verdict import Verdict
from tunewright.records import RetentionItem
from tunewright.retention.suite import draw, load_suite

SUITE = load_suite()
QUESTION = RetentionItem(
    id="c",
    kind="choice",
    topic="t",
    text="Which group had the lower risk?",
    options=("treated", "in three", "No"),
    right=1,
)


def states(verdict: Verdict) -> dict[str, str]:
    return {guard.measure: guard.state for guard in verdict.results.guards if guard.first == "tuned"}


@settings(max_examples=25)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 3))
def test_a_draw_is_balanced_repeatable_and_a_part_of_every_larger_draw(first: int, second: int, seed: int) -> None:
    small, large = sorted((first, second))
    drawn = draw(SUITE, large, seed)
    assert len(drawn) == min(large, len(SUITE))
    assert drawn == draw(SUITE, large, seed)
    assert {item.id for item in draw(SUITE, small, seed)} <= {item.id for item in drawn}
    kinds, wanted = Counter(item.kind for item in drawn), Counter(item.kind for item in SUITE)
    for kind, whole in wanted.items():
        assert abs(kinds[kind] - whole * len(drawn) / len(SUITE)) <= 1
        whole_topics = Counter(item.topic for item in SUITE if item.kind == kind)
        topics = Counter(item.topic for item in drawn if item.kind == kind)
        for topic, num in whole_topics.items():
            assert abs(topics[topic] - num * kinds[kind] / whole) <= 1.5


def test_seeds_draw_different_items() -> None:
    assert {item.id for item in draw(SUITE, 60, 0)} != {item.id for item in draw(SUITE, 60, 1)}


def test_the_default_takes_no_more_than_there_is() -> None:
    from tunewright.settings import ExamSettings

    assert 0 < ExamSettings().retention_items <= len(SUITE) == 480


def test_a_model_that_stays_as_it_was_ships() -> None:
    verdict = judge([answer for answer in kept_answers(SUITE, lost=0, rise=0)])
    same = judge([a.model_copy(update={"value": 0.5}) for a in kept_answers(SUITE)])
    assert verdict.name == same.name == "SHIP"
    assert states(same) == {"false_refusal": "inside", "kept_accuracy": "inside", "kept_cross_entropy": "inside"}
    assert any("general questions and formats right" in reason for reason in verdict.why)
    assert not any(reason.startswith("forgetting: ") for reason in verdict.not_measured)


@pytest.mark.parametrize(
    ("lost", "rise", "measure", "sentence"),
    [
        (0.4, 0.0, "kept_accuracy", "lies beyond the margin of a loss of 0.05"),
        (0.4, 0.5, "kept_accuracy", "lies beyond the margin of a loss of 0.05"),
    ],
)
def test_an_assistant_that_forgets_is_worse_whatever_the_exam_shows(
    lost: float, rise: float, measure: str, sentence: str
) -> None:
    verdict = judge(kept_answers(SUITE, lost, rise))
    assert verdict.name == "WORSE"
    assert states(verdict)[measure] == "beyond"
    assert any(sentence in reason for reason in verdict.why)


def test_beside_its_base_an_adapter_that_forgets_ships_and_the_loss_is_shown() -> None:
    verdict = judge(kept_answers(SUITE, lost=0.4, rise=0), use="task")
    assert verdict.name == "SHIP"
    assert states(verdict)["kept_accuracy"] == "beyond"
    assert {g.measure for g in verdict.results.guards if g.decides} == {"false_refusal"}
    assert any('evaluation.use = "assistant"' in reason for reason in verdict.why)


@pytest.mark.parametrize("use", ["task", "assistant"])
def test_drift_of_general_text_is_shown_and_decides_nothing(use: Literal["task", "assistant"]) -> None:
    verdict = judge(kept_answers(SUITE, lost=0, rise=0.5), use=use)
    assert verdict.name == "SHIP"
    assert states(verdict)["kept_cross_entropy"] == "beyond"
    assert any("drift of likelihood" in reason for reason in verdict.why)
    assert "kept_cross_entropy" in verdict.rule["shown"]


def test_general_ability_gained_is_no_harm() -> None:
    better = kept_answers(SUITE, lost=0, rise=-0.5)
    verdict = judge(
        [a.model_copy(update={"value": 1.0}) if (a.arm, a.kind) == ("tuned", "choice") else a for a in better]
    )
    assert verdict.name == "SHIP"
    assert set(states(verdict).values()) == {"inside"}


@pytest.mark.parametrize("means", [GOOD, scored(0.2, 0.3, 0.5, 0.5, 0.8)])  # SHIP, and SHIP WITH RAG
def test_too_few_items_to_rule_forgetting_out_forbid_shipping(means: dict[str, float]) -> None:
    verdict = judge(kept_answers(draw(SUITE, 24, 0)), means)
    assert states(verdict)["kept_accuracy"] == "unclear"
    assert not verdict.name.startswith("SHIP")
    assert judge([], means, margin=None).name.startswith("SHIP")


def test_without_items_the_verdict_says_that_forgetting_was_not_measured() -> None:
    verdict = judge([], margin=None)
    assert (verdict.name, verdict.results.kept) == ("SHIP", None)
    assert any(reason.startswith("forgetting: ") for reason in verdict.not_measured)


def test_a_suite_that_the_rule_requires_and_no_arm_answered_is_invalid() -> None:
    verdict = judge([])
    assert verdict.name == "INVALID"
    assert any("The retention suite gave no measure" in reason for reason in verdict.why)


def test_pairs_are_formed_by_item_and_topics_add_up() -> None:
    answers = kept_answers(SUITE)
    measured = measure_retention(answers[::-1])
    again = measure_retention(answers)
    assert measured is not None
    assert again is not None
    assert measured.accuracy is not None
    assert measured.accuracy.interval.mean == pytest.approx(again.accuracy.interval.mean)  # type: ignore[union-attr]
    assert (measured.accuracy.first, measured.accuracy.interval.num, measured.accuracy.interval.num_clusters) == (
        "tuned",
        360,
        360,
    )
    assert measured.accuracy.interval.mean == pytest.approx((measured.num_gained - measured.num_lost) / 360)
    for kind, num in (("choice", 300), ("format", 60), ("passage", 120)):
        whole, *topics = sorted((g for g in measured.groups if g.kind == kind), key=lambda g: bool(g.topic))
        assert whole.num == sum(topic.num for topic in topics) == num
        assert whole.base * num == pytest.approx(sum(topic.base * topic.num for topic in topics))


@pytest.fixture(scope="module")
def student(tiny_model: Path) -> tuple[Any, Any]:
    from tunewright.models.chat_template import load_tokenizer
    from tunewright.models.loading import load_base

    return load_base(tiny_model, "none", "cpu").eval(), load_tokenizer(tiny_model)


def nats(model: Any, prompt: list[int], ids: list[int]) -> float:
    import torch

    with torch.inference_mode():
        chances = model(torch.tensor([prompt + ids])).logits[0].float().log_softmax(-1)
    return -sum(float(chances[len(prompt) + index - 1, token]) for index, token in enumerate(ids))


def test_options_and_passages_are_scored_as_each_alone(student: tuple[Any, Any]) -> None:
    model, tokenizer = student
    items = [QUESTION, *draw([item for item in SUITE if item.kind == "choice"], 5, 0)]
    tasks = [item_tokens(item, tokenizer) for item in items]
    for task, output in zip(tasks, answer_items(tokenizer, tasks, model, [2]), strict=True):
        alone = [nats(model, list(task.prompt_ids), list(ids)) for ids in task.continuations]
        assert output["nll"] == pytest.approx(alone, rel=1e-3)
        assert [tokenizer.decode(ids) for ids in task.continuations] == list(task.item.options)
        assert tokenizer.decode(task.prompt_ids).endswith(f"user\n{task.item.text}<|im_end|>\n<|im_start|>assistant\n")
    passages = [item_tokens(item, tokenizer) for item in draw([i for i in SUITE if i.kind == "passage"], 4, 0)]
    for task, output in zip(passages, answer_items(tokenizer, passages, model, [2]), strict=True):
        assert output["nll"] == pytest.approx(
            [nats(model, list(task.prompt_ids), list(task.continuations[0]))], rel=1e-3
        )


def test_the_chosen_option_is_the_likeliest_per_character() -> None:
    nll = {"treated": 7.1, "in three": 7.9, "No": 2.1}  # 1.01, 0.99 and 1.05 nats per character
    answer = retention_answer(QUESTION, "base", {"nll": list(nll.values()), "num_tokens": [2, 3, 1]})
    assert (answer.text, answer.value) == ("in three", 1.0)
    passage = RetentionItem(id="p", kind="passage", topic="t", text="It rose.")
    assert retention_answer(passage, "base", {"nll": [6.0], "num_tokens": [3]}).value == 2.0
    form = RetentionItem(id="f", kind="format", topic="words", text="?", checks=({"kind": "words", "max": 2},))
    assert [retention_answer(form, "base", {"text": text}).value for text in ("One two", "One two three", "")] == [
        1,
        0,
        0,
    ]
