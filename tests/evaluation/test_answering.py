"""Answers when the memory does not hold a whole batch."""

import pytest
import torch

from tunewright.models import generate
from tunewright.models.generate import Job, Output, answer_or_halve


def jobs(number):
    return [Job([n], [n]) for n in range(number)]


def with_memory_for(most, monkeypatch):
    sizes = []

    def answer(model, asked, limit, ends, pad_id, sample):
        sizes.append(len(asked))
        if len(asked) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [Output([job.prompt_ids[0]], "stop", 0.0, 0.0) for job in asked]

    monkeypatch.setattr(generate, "answer_batch", answer)
    return sizes


def test_a_batch_that_does_not_fit_is_answered_in_halves_in_order(monkeypatch):
    sizes = with_memory_for(3, monkeypatch)
    outputs = answer_or_halve(None, jobs(9), 8, [2], 2)
    assert [output.token_ids[0] for output in outputs] == list(range(9))
    assert sizes == [9, 4, 2, 2, 5, 2, 3]


def test_one_question_that_does_not_fit_is_an_error(monkeypatch):
    with_memory_for(0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        answer_or_halve(None, jobs(4), 8, [2], 2)
