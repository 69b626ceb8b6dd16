"""Answers when the memory does not hold a whole batch."""

import pytest
import torch

from tunewright.evaluation.answering import false_gold
from tunewright.evaluation.measurement import measure
from tunewright.models import generation
from tunewright.models.generation import AnswerJob, Output, answer_or_halve
from tunewright.records import Answer, Question, Score


def jobs(number):
    return [AnswerJob([n], [n]) for n in range(number)]


def with_memory_for(most, monkeypatch):
    sizes = []

    def answer(model, batch, limit, ends, pad_id, sample):
        sizes.append(len(batch))
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [Output([job.prompt_ids[0]], "stop", 0.0, 0.0) for job in batch]

    monkeypatch.setattr(generation, "answer_batch", answer)
    return sizes


def test_a_batch_that_does_not_fit_is_answered_in_halves_in_order(monkeypatch):
    sizes = with_memory_for(3, monkeypatch)
    outputs = answer_or_halve(None, jobs(9), 8, [2], 2)
    assert [output.token_ids[0] for output in outputs] == list(range(9))
    assert sizes == [9, 4, 2, 2, 5, 2, 3]


def test_a_single_question_that_does_not_fit_is_an_error(monkeypatch):
    with_memory_for(0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        answer_or_halve(None, jobs(4), 8, [2], 2)


def question(gold, answerable=True, passage=None):
    content = {"id": "q", "ring": "learned", "document": "d", "question": "How many?", "passage": passage}
    return Question(**content, gold=gold, answerable=answerable)


def test_a_false_gold_differs_in_a_fact_that_the_passage_does_not_hold():
    changed = false_gold(question("It had 40 patients.", passage="10, 16, 20, 24, 30, 52 and 60."), 0)
    assert changed.startswith("It had ")
    assert changed.endswith(" patients.")
    assert changed.split()[2] in {"68", "80"}
    assert false_gold(question("It rose."), 0) is None
    assert false_gold(question("It had 40 patients.", answerable=False), 0) is None


def test_the_contrast_margin_counts_questions_without_a_passage_and_with_a_fact():
    scores, answers = [], []
    for arm, gain in (("base", 0.0), ("tuned", 0.5)):
        for n in range(12):
            metrics = {"answerable": 1.0, "closed_book": float(n < 10)}
            content = {"question": f"q{n}", "arm": arm}
            scores.append(Score(**content, ring="learned", document=f"d{n}", primary=0.5, metrics=metrics))
            nll = {"gold_nll": 2.0 - gain, "contrast_nll": None if n == 0 else 2.5 + 0.1 * n}
            cost = {"num_prompt_tokens": 1, "num_tokens": 1, "duration_s": 0.1}
            answers.append(Answer(**content, text="x", finish="stop", **cost, **nll))
    contrast = measure(scores, answers, ["base", "tuned"], {}).contrast
    assert (contrast.first, contrast.second, contrast.interval.num) == ("tuned", "base", 9)
    assert contrast.interval.mean == pytest.approx(0.5)
    without = [answer.model_copy(update={"contrast_nll": None}) for answer in answers]
    assert measure(scores, without, ["base", "tuned"], {}).contrast is None
