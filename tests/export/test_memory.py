"""Merging holds two shards in memory, whatever the size of the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

# A child that prints its peak of anonymous memory in bytes, above its start. Pages of files that it reads do not count:
# the system takes them back when it needs them.
CHILD = """
import sys, threading, torch
from pathlib import Path
from safetensors.torch import save_file
from tunewright.export.merge import Merge, write_weights
from tunewright.models.tensors import weight_files

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024

def watch():
    while not done.wait(0.001):
        peaks.append(held())

source, folder, shard_bytes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
save_file({"a": torch.ones(64, 64) @ torch.ones(64, 64)}, folder / "warm.safetensors")
(folder / "warm.safetensors").unlink()
merge = Merge(source, weight_files(source), None, "none", frozenset(), torch.float32, 0, "cpu")
done, before, peaks = threading.Event(), held(), [0]
watcher = threading.Thread(target=watch)
watcher.start()
write_weights(merge, folder, "fp32", shard_bytes=shard_bytes)
done.set()
watcher.join()
print(max(peaks) - before)
"""
TENSOR, NUM, SHARD = 4_000_000, 48, 16_000_000  # bytes of a tensor, tensors, bytes of a shard


def peak_of_merge(source: Path, folder: Path, shard_bytes: int) -> int:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(source), str(folder), str(shard_bytes)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.slow
def test_a_model_of_twelve_shards_is_merged_in_the_room_of_two(tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    weights = {
        f"model.layers.{n}.up_proj.weight": torch.full((1000, 1000), float(n), dtype=torch.bfloat16) for n in range(NUM)
    }
    save_file(weights, source / "model.safetensors")
    assert (
        peak_of_merge(source, tmp_path / "out", SHARD) <= 2 * SHARD + TENSOR + 1_000_000
    )  # and what Python itself takes
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) == NUM * TENSOR // SHARD == 12
    merged = {name: value for shard in shards for name, value in load_file(shard).items()}
    assert all(torch.equal(merged[name], value.float()) for name, value in weights.items())
    assert merged.keys() == weights.keys()
    # The measurement works: with one shard, the whole model is in memory.
    assert peak_of_merge(source, tmp_path / "whole", NUM * TENSOR) > 8 * SHARD
