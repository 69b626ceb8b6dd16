"""Exact resume, refusals and interruption of the training loop."""

import json
import math
import signal

import pytest
import torch
from bench_of_training import loop_settings, tiny_adapted, tiny_examples

from tunewright.errors import DiskFullError, TrainingError
from tunewright.rundir import file_digest
from tunewright.training import checkpoint
from tunewright.training.checkpoint import trainable
from tunewright.training.loop import learning_rate, train

IDENTITY = {"data": "abc", "learning_rate": 1e-2}


class Stop(Exception):
    """Stands for a crash: nothing of the loop handles it."""


def run_training(tiny_model, folder, stop_at=None, identity=IDENTITY, **changes):
    model = tiny_adapted(tiny_model, dropout=0.1)
    torch.manual_seed(7)
    settings = loop_settings(**changes)
    examples = tiny_examples(tiny_model)
    folder.mkdir(exist_ok=True)
    if stop_at is not None:
        original = checkpoint.save

        def save_then_stop(where, model, optimizer, step, *rest):
            original(where, model, optimizer, step, *rest)
            if step == stop_at:
                raise Stop

        checkpoint.save = save_then_stop
        try:
            with pytest.raises(Stop):
                train(model, examples, settings, folder / "checkpoints", identity, folder / "metrics.jsonl")
        finally:
            checkpoint.save = original
        return model
    train(model, examples, settings, folder / "checkpoints", identity, folder / "metrics.jsonl")
    return model


def weights(model):
    return {name: value.detach().clone() for name, value in trainable(model).items()}


def metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["learning_rate"], row["grad_norm"]) for row in rows]


def test_training_lowers_the_loss(tiny_model, tmp_path):
    run_training(tiny_model, tmp_path, epochs=12)
    losses = [loss for _, loss, _, _ in metrics(tmp_path)]
    assert len(losses) == 36
    assert sum(losses[-6:]) < sum(losses[:6]) - 6 * 0.2


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 5, 6])
def test_resume_after_any_step_is_bit_identical(tiny_model, tmp_path, stop_at):
    whole = weights(run_training(tiny_model, tmp_path / "whole"))
    run_training(tiny_model, tmp_path / "cut", stop_at=stop_at)
    resumed = weights(run_training(tiny_model, tmp_path / "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def test_steps_after_the_checkpoint_are_redone_not_doubled(tiny_model, tmp_path):
    run_training(tiny_model, tmp_path, stop_at=3)
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text() + json.dumps({"step": 4, "loss": 99.0}) + '\n{"step": 5, "lo')
    run_training(tiny_model, tmp_path)
    rows = metrics(tmp_path)
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[3][1] != 99.0


def test_other_settings_are_refused_with_the_difference(tiny_model, tmp_path):
    run_training(tiny_model, tmp_path, stop_at=2)
    with pytest.raises(TrainingError) as caught:
        run_training(tiny_model, tmp_path, identity=IDENTITY | {"learning_rate": 5e-3})
    assert "learning_rate: 0.01 → 0.005" in caught.value.cause
    assert "data" not in caught.value.cause


def test_a_finished_training_gives_way_to_one_with_other_settings(tiny_model, tmp_path):
    run_training(tiny_model, tmp_path)
    run_training(tiny_model, tmp_path, identity=IDENTITY | {"data": "new"})
    assert len(metrics(tmp_path)) == 6


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"])
def test_a_flipped_byte_is_refused_by_name(tiny_model, tmp_path, name):
    run_training(tiny_model, tmp_path, stop_at=2)
    file = checkpoint.paths(tmp_path / "checkpoints")[-1] / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if name != "state.json" else 0] ^= 1
    file.write_bytes(content)
    with pytest.raises(TrainingError, match=name):
        run_training(tiny_model, tmp_path)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "rng.safetensors"])
def test_a_missing_file_is_refused_not_ignored(tiny_model, tmp_path, name):
    run_training(tiny_model, tmp_path, stop_at=2)
    (checkpoint.paths(tmp_path / "checkpoints")[-1] / name).unlink()
    with pytest.raises(TrainingError, match="missing"):
        run_training(tiny_model, tmp_path)


def test_a_loss_that_is_not_finite_stops_at_its_step(tiny_model, tmp_path):
    model = tiny_adapted(tiny_model)
    examples = tiny_examples(tiny_model)
    train(model, examples, loop_settings(epochs=1), tmp_path / "c", IDENTITY, tmp_path / "m.jsonl")
    poisoned = tiny_adapted(tiny_model)
    with torch.no_grad():
        next(iter(trainable(poisoned).values())).fill_(math.nan)
    with pytest.raises(TrainingError, match="step 1 gave a loss of nan"):
        train(poisoned, examples, loop_settings(), tmp_path / "d", IDENTITY, tmp_path / "n.jsonl")
    assert checkpoint.latest(tmp_path / "d") is None
    assert (tmp_path / "n.jsonl").read_text() == ""


def test_ctrl_c_ends_the_step_and_keeps_it(tiny_model, tmp_path):
    model, examples = tiny_adapted(tiny_model), tiny_examples(tiny_model)

    class Interrupting(list):
        """Sends the signal when the second step asks for its examples."""

        count = 0

        def __getitem__(self, place):
            Interrupting.count += 1
            if Interrupting.count == 10:
                signal.raise_signal(signal.SIGINT)
            return super().__getitem__(place)

    with pytest.raises(KeyboardInterrupt):
        settings = loop_settings(checkpoint_steps=50)
        train(model, Interrupting(examples), settings, tmp_path / "c", IDENTITY, tmp_path / "m.jsonl")
    assert checkpoint.latest(tmp_path / "c").step == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_full_disk_leaves_the_previous_checkpoint(tiny_model, tmp_path, monkeypatch):
    import errno

    import safetensors.torch

    run_training(tiny_model, tmp_path, stop_at=2)
    before = {path.name: file_digest(path) for path in checkpoint.paths(tmp_path / "checkpoints")}
    monkeypatch.setattr(
        safetensors.torch,
        "save_file",
        lambda *args, **kwargs: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")),
    )
    with pytest.raises(DiskFullError, match="no space left on the disk"):
        run_training(tiny_model, tmp_path)
    monkeypatch.undo()
    assert {path.name: file_digest(path) for path in checkpoint.paths(tmp_path / "checkpoints")} == before
    run_training(tiny_model, tmp_path)


def test_learning_rate_rises_then_follows_half_a_cosine():
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] < 0.01
