"""The whole path and exact resume on a CUDA device; run apart: pytest -m gpu."""

import json
import tomllib

import pytest
import torch

from support.bench_of_training import FIRST, loop_settings, tiny_examples
from support.faulty_server import fake_teacher
from support.whole_path import asks, write_recipe
from tunewright import pipeline
from tunewright.models.loading import attach_adapter, load_base
from tunewright.recipe import parse_recipe
from tunewright.settings import TrainingSettings
from tunewright.training import checkpoint
from tunewright.training.loop import TrainingTask, train
from tunewright.training.metrics import MetricsLog, read_metrics
from tunewright.training.objectives import NEXT_TOKEN
from tunewright.training.plain_path import PlainPath
from tunewright.training.step_plan import Capacity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("quantization", ["nf4-double", "nf4", "none"])
def test_whole_path_on_the_gpu(tmp_path, tiny_model, abstracts, quantization):
    with fake_teacher(asks) as server:
        path = write_recipe(tmp_path, tiny_model, server.url, abstracts, model={"quantization": quantization})
        recipe = parse_recipe(tomllib.loads(path.read_text()), tmp_path)
        run = pipeline.run(recipe, tmp_path / "run")
        pipeline.run(recipe, tmp_path / "run")
    assert [e["stage"] for e in run.journal().entries if e["event"] == "start"] == [
        n for n in pipeline.STAGE_NAMES if n not in ("hold-out", "pairs", "seeds", "placebo", "judge", "verdict")
    ]
    losses = [json.loads(line)["loss"] for line in run.file("metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert run.file("report.html").exists()


def trained(tiny_model, folder, epochs_then_stop=None):
    base = load_base(tiny_model, "nf4-double", "cuda:0")
    model = attach_adapter(base, TrainingSettings(rank=4, alpha=8, dropout=0.1), 0)
    settings = loop_settings(device="cuda:0", checkpoint_steps=2, compute=torch.bfloat16)
    folder.mkdir(exist_ok=True)

    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch == epochs_then_stop:
            raise Stop

    task, log = TrainingTask(tiny_examples(tiny_model), NEXT_TOKEN), MetricsLog(folder / "m.jsonl")
    try:
        train(PlainPath(model), task, settings, FIRST, folder / "c", {"a": 1}, log, stop)
    except Stop:
        return None
    return [row["loss"] for row in read_metrics(folder / "m.jsonl")], checkpoint.trainable(model)


def test_resume_on_the_gpu_keeps_order_and_loss(tiny_model, tmp_path):
    whole, weights = trained(tiny_model, tmp_path / "whole")
    assert trained(tiny_model, tmp_path / "cut", epochs_then_stop=1) is None
    again, resumed = trained(tiny_model, tmp_path / "cut")
    assert len(again) == len(whole) == 6
    assert again == pytest.approx(whole, abs=1e-3)
    for name, value in weights.items():
        assert torch.allclose(resumed[name], value, atol=1e-3), name


def test_a_real_lack_of_memory_halves_the_rows(tiny_model, tmp_path):
    """The process may use a sliver of the card: rows of 4,096 tokens do not fit, and the training still ends."""
    model = attach_adapter(load_base(tiny_model, "none", "cuda:0"), TrainingSettings(rank=4), 0)
    task = TrainingTask(tiny_examples(tiny_model, 600), NEXT_TOKEN)
    settings = loop_settings(device="cuda:0", batch_size=300, epochs=1, compute=torch.bfloat16)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 100e6) / total)
    try:
        log = MetricsLog(tmp_path / "m.jsonl")
        ended = train(PlainPath(model), task, settings, Capacity(16384), tmp_path / "c", {"a": 1}, log)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert ended.halvings >= 1
    assert len(read_metrics(tmp_path / "m.jsonl")) == 2
