"""Trackers log what metrics.jsonl holds, offline; none of them can end a training."""

import pytest

from tunewright.recipe import Recipe
from tunewright.settings import TrainingSettings
from tunewright.training import metrics
from tunewright.training.metrics import MetricsLog, tracker

ROW = {"step": 3, "loss": 1.5, "learning_rate": 1e-4, "tokens_per_s": 10.0, "num_tokens": 5}


def recipe(name):
    return Recipe(training=TrainingSettings(tracker=name))


def test_no_tracker_is_the_default(tmp_path):
    assert tracker(recipe(""), tmp_path, "sft") == ()


def test_a_missing_tracker_is_reported_with_its_command(tmp_path, capsys):
    pytest.importorskip("accelerate")
    try:
        import mlflow  # noqa: F401

        pytest.skip("mlflow is installed here")
    except ImportError:
        pass
    assert tracker(recipe("mlflow"), tmp_path, "sft") == ()
    assert "pip install mlflow" in capsys.readouterr().err


class Fake:
    """Stands for accelerate's object: keeps what is logged, or breaks."""

    def __init__(self, breaks=False):
        self.logged, self.breaks = [], breaks

    def log(self, values, step):
        if self.breaks:
            raise ConnectionError("the server is gone")
        self.logged.append((step, values))


def test_every_number_of_a_line_is_logged(tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setattr(metrics, "_accelerator", lambda name, folder: fake)
    MetricsLog(tmp_path / "metrics.jsonl", "sft", listeners=tracker(recipe("wandb"), tmp_path, "sft")).write(ROW)
    assert fake.logged == [(3, {f"sft/{key}": value for key, value in ROW.items()})]


def test_a_tracker_that_breaks_is_reported_once_and_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(metrics, "_accelerator", lambda name, folder: Fake(breaks=True))
    log = MetricsLog(tmp_path / "metrics.jsonl", "sft", listeners=tracker(recipe("wandb"), tmp_path, "sft"))
    log.write(ROW)
    log.write(ROW)
    printed = capsys.readouterr().err
    assert printed.count("tracking with wandb ended: the server is gone") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_tensorboard_writes_its_files(tmp_path):
    pytest.importorskip("tensorboard")
    for listen in tracker(recipe("tensorboard"), tmp_path, "sft"):
        listen(ROW)
    assert list((tmp_path / "tracker").rglob("events.out.tfevents*"))
