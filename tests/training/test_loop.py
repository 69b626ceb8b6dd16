"""Exact resume, refusals and interruption of the training loop."""

import errno
import json
import math
import signal

import pytest
import torch

from support.bench_of_training import run_loop, tasks, tiny_adapted, tiny_examples
from tunewright.errors import DiskFullError, TrainingError
from tunewright.storage import file_digest
from tunewright.training import checkpoint
from tunewright.training.checkpoint import trainable
from tunewright.training.loop import TrainingTask
from tunewright.training.metrics import read_metrics
from tunewright.training.objectives import NEXT_TOKEN
from tunewright.training.optimizers import learning_rate
from tunewright.training.step_plan import Capacity

IDENTITY = {"data": "abc", "learning_rate": 1e-2}


class Stop(Exception):
    """Stands for a crash: nothing of the loop handles it."""


@pytest.fixture
def stop_after(monkeypatch):
    """Make the loop crash right after it saved that step."""

    def arm(step_to_stop):
        original = checkpoint.save

        def save_then_stop(where, model, optimizer, step, *rest):
            original(where, model, optimizer, step, *rest)
            if step == step_to_stop:
                monkeypatch.setattr(checkpoint, "save", original)
                raise Stop

        monkeypatch.setattr(checkpoint, "save", save_then_stop)

    return arm


def run_training(tiny_model, folder, identity=IDENTITY, task=None, **changes):
    model = tiny_adapted(tiny_model, dropout=0.1)
    torch.manual_seed(7)
    run_loop(model, task or TrainingTask(tiny_examples(tiny_model), NEXT_TOKEN), folder, identity, **changes)
    return model


def weights(model):
    return {name: value.detach().clone() for name, value in trainable(model).items()}


def metrics(folder):
    rows = read_metrics(folder / "metrics.jsonl")
    return [(row["step"], row["loss"], row["learning_rate"], row["grad_norm"]) for row in rows]


def test_training_lowers_the_loss(tiny_model, tmp_path):
    run_training(tiny_model, tmp_path, epochs=12)
    losses = [loss for _, loss, _, _ in metrics(tmp_path)]
    assert len(losses) == 36
    assert sum(losses[-6:]) < sum(losses[:6]) - 6 * 0.2


@pytest.mark.parametrize("optimizer", ["adamw", "adamw-8bit"])
@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 5, 6])
def test_resume_after_any_step_is_bit_identical(tiny_model, tmp_path, stop_after, stop_at, optimizer):
    changes = {"optimizer": optimizer}
    whole = weights(run_training(tiny_model, tmp_path / "whole", **changes))
    stop_after(stop_at)
    with pytest.raises(Stop):
        run_training(tiny_model, tmp_path / "cut", **changes)
    resumed = weights(run_training(tiny_model, tmp_path / "cut", **changes))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


@pytest.mark.slow
def test_preferences_and_texts_are_learned(tiny_model, tmp_path):
    for name in ("dpo", "text"):
        run_training(tiny_model, tmp_path / name, task=tasks(tiny_model)[name], epochs=10, learning_rate=3e-3)
        losses = [loss for _, loss, _, _ in metrics(tmp_path / name)]
        assert losses[-1] < losses[0] - 0.1, name
    rows = read_metrics(tmp_path / "dpo" / "metrics.jsonl")
    assert {"chosen_reward", "rejected_reward", "margin", "accuracy"} <= set(rows[-1])
    assert rows[-1]["margin"] == pytest.approx(rows[-1]["chosen_reward"] - rows[-1]["rejected_reward"], abs=1e-4)
    assert rows[-1]["margin"] > rows[0]["margin"]
    assert 0 <= rows[-1]["accuracy"] <= 1


def test_the_held_out_loss_is_measured_before_and_after_each_epoch(tiny_model, tmp_path):
    examples = tiny_examples(tiny_model, 24)
    run_training(tiny_model, tmp_path, task=TrainingTask(examples[:20], NEXT_TOKEN, examples[20:]))
    held = [
        (row["step"], row["held_out_loss"])
        for row in read_metrics(tmp_path / "metrics.jsonl")
        if "held_out_loss" in row
    ]
    assert [step for step, _ in held] == [0, 3, 6]
    assert held[-1][1] < held[0][1]


def test_steps_after_the_checkpoint_are_redone_not_doubled(tiny_model, tmp_path, stop_after):
    stop_after(3)
    with pytest.raises(Stop):
        run_training(tiny_model, tmp_path)
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text() + json.dumps({"phase": "sft", "step": 4, "loss": 99.0}) + '\n{"step": 5, "lo')
    run_training(tiny_model, tmp_path)
    rows = metrics(tmp_path)
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[3][1] != 99.0


def test_other_settings_are_refused_with_the_difference(tiny_model, tmp_path, stop_after):
    stop_after(2)
    with pytest.raises(Stop):
        run_training(tiny_model, tmp_path)
    with pytest.raises(TrainingError) as caught:
        run_training(tiny_model, tmp_path, identity=IDENTITY | {"learning_rate": 5e-3})
    assert "learning_rate: 0.01 → 0.005" in caught.value.cause
    assert "data" not in caught.value.cause


def test_a_finished_training_gives_way_to_a_training_with_other_settings(tiny_model, tmp_path):
    run_training(tiny_model, tmp_path)
    run_training(tiny_model, tmp_path, identity=IDENTITY | {"data": "new"})
    assert len(metrics(tmp_path)) == 6


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"])
@pytest.mark.parametrize("position", [0.0, 0.3, 0.999])
def test_a_flipped_byte_is_refused_by_name(tiny_model, tmp_path, stop_after, name, position):
    stop_after(2)
    with pytest.raises(Stop):
        run_training(tiny_model, tmp_path)
    file = checkpoint.paths(tmp_path / "checkpoints")[-1] / name
    content = bytearray(file.read_bytes())
    content[int(len(content) * position)] ^= 1
    file.write_bytes(content)
    with pytest.raises(TrainingError, match=name):
        run_training(tiny_model, tmp_path)


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "rng.safetensors"])
def test_a_missing_file_is_refused_not_ignored(tiny_model, tmp_path, stop_after, name):
    stop_after(2)
    with pytest.raises(Stop):
        run_training(tiny_model, tmp_path)
    (checkpoint.paths(tmp_path / "checkpoints")[-1] / name).unlink()
    with pytest.raises(TrainingError, match=f"{name} is missing"):
        run_training(tiny_model, tmp_path)


@pytest.mark.parametrize("step", [1, 4])
def test_a_loss_that_is_not_finite_stops_at_its_step(tiny_model, tmp_path, step):
    def poisoned(path, row, examples):
        loss, figures = NEXT_TOKEN.loss(path, row, examples)
        seen.append(1)
        return (loss * math.nan if len(seen) == step else loss), figures

    seen = []
    objective = type(NEXT_TOKEN)(NEXT_TOKEN.count, poisoned)
    whole = Capacity(micro_batch_tokens=100_000)
    task = TrainingTask(tiny_examples(tiny_model), objective)
    with pytest.raises(TrainingError, match=f"step {step} gave a loss of nan"):
        run_loop(tiny_adapted(tiny_model), task, tmp_path, IDENTITY, whole)
    assert [row[0] for row in metrics(tmp_path)] == list(range(1, step))
    newest = checkpoint.latest(tmp_path / "checkpoints")
    assert (newest.step if newest else 0) == step - 1


def test_ctrl_c_ends_the_step_and_keeps_it(tiny_model, tmp_path):
    class Interrupting(list):
        """Sends the signal when the second step asks for its examples."""

        count = 0

        def __getitem__(self, position):
            Interrupting.count += 1
            if Interrupting.count == 10:
                signal.raise_signal(signal.SIGINT)
            return super().__getitem__(position)

    task = TrainingTask(Interrupting(tiny_examples(tiny_model)), NEXT_TOKEN)
    with pytest.raises(KeyboardInterrupt):
        run_loop(tiny_adapted(tiny_model), task, tmp_path, IDENTITY, checkpoint_steps=50)
    assert checkpoint.latest(tmp_path / "checkpoints").step == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_ends_at_once_and_the_training_resumes_to_the_same_bits(tiny_model, tmp_path):
    class Impatient(list):
        """Sends the signal twice in the second step."""

        count = 0

        def __getitem__(self, position):
            Impatient.count += 1
            if Impatient.count in (10, 12):
                signal.raise_signal(signal.SIGINT)
            return super().__getitem__(position)

    whole = weights(run_training(tiny_model, tmp_path / "whole"))
    task = TrainingTask(Impatient(tiny_examples(tiny_model)), NEXT_TOKEN)
    with pytest.raises(KeyboardInterrupt):
        run_training(tiny_model, tmp_path / "cut", task=task)
    assert Impatient.count == 12
    resumed = weights(run_training(tiny_model, tmp_path / "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("write", range(4))
def test_a_full_disk_at_any_write_leaves_the_previous_checkpoint(tiny_model, tmp_path, stop_after, monkeypatch, write):
    """The disk fills up at each of the files of a checkpoint in turn: three of tensors, and the state."""
    from pathlib import Path

    import safetensors.torch

    stop_after(2)
    with pytest.raises(Stop):
        run_training(tiny_model, tmp_path)
    before = {path.name: file_digest(path) for path in checkpoint.paths(tmp_path / "checkpoints")}
    save_file, write_text, count = safetensors.torch.save_file, Path.write_text, []

    def full(original):
        def writing(*args, **kwargs):
            count.append(1)
            if len(count) > write:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args, **kwargs)

        return writing

    monkeypatch.setattr(safetensors.torch, "save_file", full(save_file))
    monkeypatch.setattr(Path, "write_text", full(write_text))
    with pytest.raises(DiskFullError, match="no space left on the disk") as caught:
        run_training(tiny_model, tmp_path)
    monkeypatch.undo()
    assert "bytes" in caught.value.cause
    assert len(count) == write + 1
    assert {path.name: file_digest(path) for path in checkpoint.paths(tmp_path / "checkpoints")} == before
    run_training(tiny_model, tmp_path)
    assert checkpoint.latest(tmp_path / "checkpoints").step == 6


def test_a_poisoned_checkpoint_runs_nothing(tiny_model, tmp_path, stop_after):
    """A pickle that would write a file stands in for each file of the checkpoint, its digest corrected to match."""
    import os
    import pickle

    from tunewright.records import digest

    stop_after(2)
    with pytest.raises(Stop):
        run_training(tiny_model, tmp_path)
    canary = tmp_path / "canary"

    class Poison:
        def __reduce__(self):
            return os.system, (f"touch '{canary}'",)

    pickle.loads(pickle.dumps(Poison()))
    assert canary.exists(), "the poison itself works"
    canary.unlink()
    folder = checkpoint.paths(tmp_path / "checkpoints")[-1]
    for name in ("adapter.safetensors", "optimizer.safetensors", "rng.safetensors"):
        (folder / name).write_bytes(pickle.dumps(Poison()))
    state = json.loads((folder / "state.json").read_text())
    state["digests"] = {name: file_digest(folder / name) for name in state["digests"]}
    del state["digest"]
    (folder / "state.json").write_text(json.dumps(state | {"digest": digest(state)}))
    with pytest.raises(TrainingError, match="adapter.safetensors"):
        run_training(tiny_model, tmp_path)
    assert not canary.exists()


def test_schedules_rise_then_fall_as_their_names_say():
    def rates(schedule):
        return [learning_rate(step, 100, 1.0, 0.1, schedule) for step in range(100)]

    for schedule in ("cosine", "linear", "constant"):
        assert rates(schedule)[0] == pytest.approx(0.1)
        assert max(rates(schedule)) == rates(schedule)[10] == 1.0
    assert rates("cosine")[55] == pytest.approx(0.5, abs=0.02)
    assert rates("linear")[55] == pytest.approx(0.5)
    assert rates("cosine")[-1] < 0.01
    assert rates("linear")[-1] == pytest.approx(1 / 90)
    assert rates("constant")[-1] == 1.0


def test_cosine_and_linear_equal_those_of_transformers():
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    for name, theirs in (("cosine", get_cosine_schedule_with_warmup), ("linear", get_linear_schedule_with_warmup)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        scheduler = theirs(optimizer, 10, 100)
        for step in range(100):
            rate = scheduler.get_last_lr()[0]
            # Theirs starts at 0, so that the first step does nothing; ours at the first stair.
            if step >= 10:
                assert learning_rate(step, 100, 2.0, 0.1, name) == pytest.approx(rate, abs=1e-12)
            optimizer.step()
            scheduler.step()


def test_first_capacity_is_kept_by_a_checkpoint(tiny_model, tmp_path, stop_after):
    stop_after(2)
    with pytest.raises(Stop):
        run_training(tiny_model, tmp_path, capacity=Capacity(64, loss_scale=4.0))
    newest = checkpoint.latest(tmp_path / "checkpoints")
    assert Capacity.from_dict(newest.loop) == Capacity(64, loss_scale=4.0, good_steps=2)
