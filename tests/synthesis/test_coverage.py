"""Coverage: every sentence with a fact is asked about, as often as the recipe says, in other words each time."""

from __future__ import annotations

import re

import pytest

from support.scripted import FACTS, work_on
from tunewright.records import Sample
from tunewright.synthesis.sentence_questions import REPEATS_WORDS, answer_first, passage_qa
from tunewright.synthesis.tasks import tasks_of

NUM_SENTENCES = 4 * len(FACTS)


def in_turns(turn: str) -> str:
    """Ask for other words of the sentence in each view; answer a question from its passage."""
    if turn.startswith("Passages:"):
        question = turn.rpartition("Question: ")[2]
        return f"The passage says: {question.rstrip('?')}."
    sentence, _, view = re.search(r"sentence answers: (.*)", turn)[1], *turn.rpartition("\n")[1:]
    words = re.findall(r"[A-Za-z]{4,}", sentence)
    if "answers:" in view:
        return f"What is known about {' '.join(words[1:4])}?"
    opening = {"Ask in": "Which report mentions", "Begin the": "Is there news of", "Ask as": "Who wrote on"}
    first = next((text for start, text in opening.items() if view.startswith(start)), "When was there talk of")
    return f"{first} {' '.join(words[-3:])}?"


def by_sentence(samples: list[Sample]) -> dict[tuple[str, int], list[Sample]]:
    groups: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.document, sample.evidence.start), []).append(sample)
    return groups


@pytest.mark.parametrize("times", [1, 2, 3])
def test_every_sentence_is_reached_so_often_in_other_words(times):
    context = work_on(in_turns, coverage=times)
    result = answer_first(context, [])
    reached = by_sentence(result.samples)
    assert len(reached) == NUM_SENTENCES
    for own in reached.values():
        assert len({sample.question for sample in own}) == len(own) == times
        assert len({sample.answer for sample in own}) == 1
    assert result.figures["sentences_reached"] == result.figures[f"sentences_reached_{times}_times"] == NUM_SENTENCES
    assert result.num_tried == len(result.samples) + len(result.rejections)


def test_without_coverage_the_count_per_document_decides():
    result = answer_first(work_on(in_turns), [])
    assert len(result.samples) == NUM_SENTENCES  # six of each document, which has six
    assert "sentences" not in result.figures


def test_a_teacher_that_repeats_itself_is_asked_twice_more_and_the_repetitions_are_counted():
    context = work_on(lambda turn: in_turns(turn.rpartition("\n")[0] if "Ask" in turn or "Begin" in turn else turn),
                      coverage=2)  # fmt: skip
    result = answer_first(context, [])
    assert {len(own) for own in by_sentence(result.samples).values()} == {1}
    assert [r.reason for r in result.rejections] == [REPEATS_WORDS] * 3 * NUM_SENTENCES
    assert result.figures["sentences_reached_2_times"] == 0
    assert result.num_tried == len(result.samples) + len(result.rejections)


def test_rules_ask_for_a_value_where_the_teacher_never_writes_a_usable_question():
    result = answer_first(work_on(lambda turn: "What were the findings?", coverage=1), [])
    reached = by_sentence(result.samples)
    assert 0 < len(reached) == result.figures["sentences_reached"] < NUM_SENTENCES
    values = sum(rejection.reason == "sentence states no value" for rejection in result.rejections)
    assert values == NUM_SENTENCES - len(reached)
    assert result.num_tried == len(result.samples) + len(result.rejections)


def test_the_teacher_answers_with_the_passage_in_its_prompt():
    context = work_on(in_turns)
    result = passage_qa(context, [])
    assert len(result.samples) == NUM_SENTENCES
    for sample in result.samples:
        assert sample.answer == f"The passage says: {sample.question.rstrip('?')}."
        assert sample.evidence.quote in context.chunk_by_id[sample.chunk].text
        assert "Passages:" not in sample.question  # the student's prompt shows none
    shown = [r for r in context.teacher.requests if r.messages[-1].content.startswith("Passages:")]
    assert len(shown) == NUM_SENTENCES


def test_an_answer_that_declines_its_own_passage_is_no_sample():
    def declines(turn):
        return (
            "The documents do not give the answer to this question." if turn.startswith("Passages") else in_turns(turn)
        )

    result = passage_qa(work_on(declines), [])
    assert not result.samples
    assert {rejection.reason for rejection in result.rejections} == {"answer declines"}


def test_coverage_alone_asks_for_the_task():
    context = work_on(in_turns, coverage=1)
    synthesis = context.recipe.synthesis.model_copy(update={"samples_per_document": 0})
    assert "answer-first" in tasks_of(context.recipe.model_copy(update={"synthesis": synthesis}))
