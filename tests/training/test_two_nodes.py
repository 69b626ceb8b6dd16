"""Two machines in one training, as docs/scale.md types it: torchrun twice, with gloo over the loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from support.finished_training import own_recipe
from tunewright import pipeline
from tunewright.recipe import dump_recipe


@pytest.mark.slow  # two processes of one machine train the same in test_stage.py
def test_two_machines_meet_and_train_the_same_adapter(tiny_model, tmp_path):
    recipe = own_recipe(tmp_path / "own", tiny_model)
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe.with_absolute_paths()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1"}
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank),
             "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port),
             "-m", "tunewright", "run", "recipe.toml", "--dir", "together", "--until", "train"],
            cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    printed = [node.communicate(timeout=400)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], printed
    alone = pipeline.run(recipe, tmp_path / "alone", until="train")
    expected = load_file(alone.file("adapter/adapter_model.safetensors"))
    for name, value in load_file(tmp_path / "together" / "adapter" / "adapter_model.safetensors").items():
        assert torch.allclose(value, expected[name], atol=2e-4), name
