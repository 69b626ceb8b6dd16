"""Out of memory at any step: smaller rows, then recomputed activations, then a clear end; the result is the same."""

import pytest
import torch

from support.bench_of_training import run_loop, tasks, tiny_adapted
from tunewright.errors import TrainingError
from tunewright.training import checkpoint
from tunewright.training.checkpoint import trainable
from tunewright.training.loop import TrainingTask
from tunewright.training.metrics import read_metrics
from tunewright.training.objectives import Objective
from tunewright.training.step_plan import Capacity


def with_memory_of(task: TrainingTask, most_tokens: int, without_checkpointing: int = 10**9) -> TrainingTask:
    """The task on a device that holds only rows of so many tokens; fewer where activations are all kept."""

    def loss(path, row, examples):
        limit = most_tokens if path.model.is_gradient_checkpointing else min(most_tokens, without_checkpointing)
        if row.input_ids.shape[1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return task.objective.loss(path, row, examples)

    return TrainingTask(task.examples, Objective(task.objective.count, loss, task.objective.figures), task.held_out)


def run(tiny_model, folder, task, dropout=0.0):
    model = tiny_adapted(tiny_model, dropout)
    ended = run_loop(model, task, folder, {"a": 1}, Capacity(400))
    return trainable(model), [row["loss"] for row in read_metrics(folder / "metrics.jsonl")], ended


@pytest.mark.parametrize("name", ["sft", "text", "dpo"])
def test_smaller_rows_give_the_same_training(tiny_model, tmp_path, name):
    task = tasks(tiny_model)[name]
    whole, losses, before = run(tiny_model, tmp_path / "whole", task)
    longest = max(example.num_tokens for example in task.examples)
    halved, again, ended = run(tiny_model, tmp_path / "halved", with_memory_of(task, longest + 10))
    assert before == Capacity(400)
    assert ended.halvings >= 1
    assert longest <= ended.micro_batch_tokens <= longest + 10
    assert not ended.checkpointing
    assert again == pytest.approx(losses, rel=1e-4)
    for key, value in whole.items():
        assert torch.allclose(halved[key], value, atol=1e-4), key


def test_recomputed_activations_come_last(tiny_model, tmp_path):
    task = tasks(tiny_model)["sft"]
    longest = max(example.num_tokens for example in task.examples)
    _, losses, _ = run(tiny_model, tmp_path / "whole", task)
    _, again, ended = run(tiny_model, tmp_path / "tight", with_memory_of(task, longest, longest - 1))
    assert ended.checkpointing
    assert again == pytest.approx(losses, rel=1e-4)


def test_the_capacity_that_fits_is_kept_by_the_checkpoint(tiny_model, tmp_path):
    task = with_memory_of(tasks(tiny_model)["sft"], 100)
    _, _, ended = run(tiny_model, tmp_path, task)
    newest = checkpoint.latest(tmp_path / "checkpoints")
    assert Capacity.from_dict(newest.loop) == ended
    assert ended.micro_batch_tokens <= 100


def test_a_single_example_that_does_not_fit_ends_with_a_hint(tiny_model, tmp_path):
    task = with_memory_of(tasks(tiny_model)["sft"], 10)
    with pytest.raises(TrainingError, match="does not fit into memory") as caught:
        run(tiny_model, tmp_path, task)
    assert "training.max_tokens" in caught.value.hint


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny_model, tmp_path):
    def loss(path, row, examples):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    task = tasks(tiny_model)["sft"]
    with pytest.raises(RuntimeError, match="shapes"):
        run(tiny_model, tmp_path, TrainingTask(task.examples, Objective(task.objective.count, loss)))


def test_a_resumed_training_takes_the_smaller_rows_of_its_recipe(tiny_model, tmp_path, monkeypatch):
    task, original = tasks(tiny_model)["sft"], checkpoint.save

    def stop(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tmp_path, task)
    monkeypatch.undo()
    model = tiny_adapted(tiny_model)
    ended = run_loop(model, task, tmp_path, {"a": 1}, Capacity(64, kept=0))
    assert (ended.micro_batch_tokens, ended.checkpointing) == (64, True)
    assert [row["micro_batch_tokens"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [400] + [64] * 5


def test_held_out_rows_are_no_larger_than_those_of_training(tiny_model, tmp_path):
    task = tasks(tiny_model)["sft"]
    seen = []

    def loss(path, row, examples):
        seen.append((path.model.training, row.input_ids.shape[1]))
        return task.objective.loss(path, row, examples)

    watched = TrainingTask(task.examples[:8], Objective(task.objective.count, loss), task.examples[8:])
    run_loop(tiny_adapted(tiny_model), watched, tmp_path, {"a": 1}, Capacity(100_000), batch_size=2, epochs=1)
    longest = max(example.num_tokens for example in task.examples)
    assert max(size for training, size in seen if not training) <= 2 * longest
