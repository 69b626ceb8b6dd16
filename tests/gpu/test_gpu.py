"""The whole path and exact resume on a CUDA device; run apart: pytest -m gpu."""

import json
import tomllib

import pytest
import torch
from bench_of_training import loop_settings, tiny_examples
from faulty_server import fake_teacher

from tunewright import pipeline
from tunewright.models.load import attach_adapter, load_base
from tunewright.recipe import parse_recipe
from tunewright.training import checkpoint
from tunewright.training.loop import train
from whole_path import asks, write_recipe

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
        n for n in pipeline.STAGE_NAMES if n != "pairs"
    ]
    losses = [json.loads(line)["loss"] for line in run.file("metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert run.file("report.html").exists()


def trained(tiny_model, folder, epochs_then_stop=None):
    base = load_base(tiny_model, "nf4-double", "cuda")
    model = attach_adapter(base, 4, 8, 0.1, ("all-linear",), seed=0)
    settings = loop_settings(device="cuda", checkpoint_steps=2)
    folder.mkdir(exist_ok=True)

    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch == epochs_then_stop:
            raise Stop

    try:
        train(model, tiny_examples(tiny_model), settings, folder / "c", {"a": 1}, folder / "m.jsonl", stop)
    except Stop:
        return None
    return [json.loads(line)["loss"] for line in (folder / "m.jsonl").read_text().splitlines()], checkpoint.trainable(
        model
    )


def test_resume_on_the_gpu_keeps_order_and_loss(tiny_model, tmp_path):
    whole, weights = trained(tiny_model, tmp_path / "whole")
    assert trained(tiny_model, tmp_path / "cut", epochs_then_stop=1) is None
    again, resumed = trained(tiny_model, tmp_path / "cut")
    assert len(again) == len(whole) == 6
    assert again == pytest.approx(whole, abs=1e-3)
    for name, value in weights.items():
        assert torch.allclose(resumed[name], value, atol=1e-3), name
